"""What an agent does when nobody attacks: try, watch, keep, return; and what each figure makes it do."""

from __future__ import annotations

import fcntl
import json
import shutil
import ssl
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from perception.agent.agent import Outcome
from perception.agent.download import Fetcher, fetcher_for
from perception.agent.health import HEALTH, Health, HealthReporter, Verdict, health_of, settle
from perception.agent.index import CommitRule, OnDeviceBuild, Tolerance, rollout_name
from perception.agent.journal import read_journal
from perception.agent.slots import active_package, read_evidence
from perception.agent.smoke import measure, record
from perception.agent.workshop import prepare_in_child
from perception.cli import main
from perception.cohort import RolloutPlan, assignment
from perception.errors import EngineError, OutputError, UpdateError, VerificationError
from perception.package import open_package
from perception.record import RunHeader
from perception.sinks.table import open_sink
from perception.sources.table import open_source
from safety_gates.publishing.repository import Change, change
from tests.disk import room_for
from tests.perception.agent.fleet import HASTY, TERMS, Quiet, served
from tests.perception.builders import null_package
from tests.safety_gates.builders import RIGHT, SHIFTED, drive, package

LOOSE = Tolerance(relative_error=0.01, disagreement=0.05, latency_p90_ms=60_000)


class TestCommitWindow:
    def test_a_release_is_kept_after_enough_good_frames(self, works, road):
        second = works.publish("second", service_ms=0.1)
        assert road.update().outcome is Outcome.SWITCHED
        road.drive(frames=9)
        assert road.update().outcome is Outcome.ON_TRIAL
        road.drive(frames=1)
        assert road.update().outcome is Outcome.COMMITTED
        assert road.update().outcome is Outcome.UP_TO_DATE
        assert road.release == second.name

    @pytest.mark.parametrize(("late", "outcome"), [(1, Outcome.COMMITTED), (2, Outcome.FELL_BACK)])
    def test_one_late_frame_in_ten_is_allowed_and_two_are_not(self, works, road, late, outcome):
        works.publish("second", service_ms=0.1)
        road.update()
        road.drive(late=late)
        assert road.update().outcome is outcome

    def test_a_release_that_fell_back_is_not_tried_again(self, works, road):
        second = works.publish("second", service_ms=0.1)
        road.update()
        road.drive(frames=1, faults=("EngineError: outputs are no numbers",))
        report = road.update()
        assert (report.outcome, report.reason) == (Outcome.FELL_BACK, "EngineError: outputs are no numbers")
        assert road.release == road.first.name
        before = road.snapshot()
        assert road.update().outcome is Outcome.REFUSED
        assert road.snapshot() == before
        third = works.publish("third", service_ms=0.2)
        road.commit()
        assert road.release == third.name != second.name

    def test_a_vehicle_that_keeps_restarting_falls_back(self, works, road, tmp_path):
        works.publish("second", service_ms=0.1)
        road.update()
        outcomes = []
        for number in range(4):
            shutil.rmtree(tmp_path / "machine", ignore_errors=True)
            boot_id = tmp_path / "machine" / "proc/sys/kernel/random/boot_id"
            boot_id.parent.mkdir(parents=True)
            boot_id.write_text(f"boot {number}\n")
            outcomes.append(road.update(machine_root=tmp_path / "machine").outcome)
        assert outcomes == [Outcome.ON_TRIAL] * 2 + [Outcome.FELL_BACK, Outcome.REFUSED]
        assert road.release == road.first.name

    def test_a_release_withdrawn_while_on_trial_is_left_at_once(self, works, road):
        works.publish("second", service_ms=0.1)
        road.update()
        works.offer(road.first)
        assert road.update().outcome is Outcome.FELL_BACK
        assert road.release == road.first.name
        assert road.update().outcome is Outcome.UP_TO_DATE

    def test_the_window_closes_without_a_network(self, works, road):
        works.publish("second", service_ms=0.1)
        road.update()
        road.drive(late=10)
        road.origin = replace(road.origin, url="http://127.0.0.1:9")
        assert road.update().outcome is Outcome.FELL_BACK


class TestHealth:
    def test_a_run_that_ends_well_is_reported_by_its_sink(self, road):
        header = _header(road)
        sink = open_sink("agent", road.state, header)
        assert list((road.state / HEALTH).glob("*.running"))
        sink.close()
        known = health_of(road.state / HEALTH, road.runs)
        assert (known.drives, known.faults) == (1, ())

    def test_a_process_that_dies_is_found_by_its_lock(self, works, road):
        works.publish("second", service_ms=0.1)
        road.update()
        code = (
            "import sys, signal; from pathlib import Path;"
            "from perception.agent.health import DriveReport, hold_running;"
            "report = DriveReport(package_sha256=sys.argv[2], started_ns=1);"
            "held = hold_running(Path(sys.argv[1]) / 'd.running', report); print('up', flush=True); signal.pause()"
        )
        folder = road.state / HEALTH
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder), road.runs], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"up\n"
        settle(folder)
        assert health_of(folder, road.runs).faults == (), "it runs"
        process.kill()
        process.wait()
        settle(folder)
        assert health_of(folder, road.runs).faults == ("the process that ran it died (d)",)
        assert road.update().outcome is Outcome.FELL_BACK

    def test_an_aborted_run_is_no_fault_but_a_failed_engine_is(self, road):
        for error, faults in ((KeyboardInterrupt(), 0), (EngineError("outputs are no numbers"), 1)):
            sink = HealthReporter(road.state, _header(road))
            try:
                raise error
            except BaseException:  # noqa: BLE001
                sink.abort()
            assert len(health_of(road.state / HEALTH, road.runs).faults) == faults

    @pytest.mark.parametrize(
        ("frames", "late", "boots", "verdict"),
        [
            (9, 9, 1, Verdict.WAIT),
            (10, 1, 1, Verdict.COMMIT),
            (10, 2, 1, Verdict.FALL_BACK),
            (0, 0, 4, Verdict.WAIT),
            (0, 0, 5, Verdict.FALL_BACK),
        ],
    )
    def test_the_rule_around_its_limits(self, frames, late, boots, verdict):
        known = Health(drives=1, frames=frames, late=late, faults=())
        assert known.verdict(CommitRule(frames=10, max_late=0.1, max_boots=3), boots)[0] is verdict


class TestSmokeRun:
    def test_a_release_that_answers_otherwise_here_is_not_used(self, works, road, tmp_path):
        """The engine's bytes are as signed, the recorded outputs are of another engine: as on a CPU that saturates."""
        good, other = package(tmp_path / "good"), package(tmp_path / "other", bias=SHIFTED)
        pictures, _ = drive(tmp_path / "drive", frames=6)
        recording = record(other, _frames_in(pictures))
        checks = {check.name: check for check in measure(good, recording, LOOSE)}
        assert not checks["relative_error"].passed
        assert checks["disagreement"].got == 0 or not checks["disagreement"].passed
        assert all(check.passed for check in measure(other, recording, LOOSE))

    def test_every_object_lost_is_all_disagreement(self, tmp_path):
        good, blind = package(tmp_path / "good"), package(tmp_path / "blind", weights=RIGHT * 0)
        pictures, _ = drive(tmp_path / "drive", frames=6)
        checks = {check.name: check for check in measure(blind, record(good, _frames_in(pictures)), LOOSE)}
        assert checks["disagreement"].got == 1

    def test_a_release_that_is_too_slow_here_is_not_used(self, works, road):
        works.publish("second", service_ms=3, tolerance=TERMS.tolerance.model_copy(update={"latency_p90_ms": 2}))
        before, runs = road.snapshot(), road.runs
        for attempt in range(3):
            report = road.update()
            assert report.outcome is Outcome.REFUSED
            assert "latency_p90: got" in report.reason, attempt
        assert road.runs == runs
        assert {name: content for name, content in road.snapshot().items() if name != "journal.json"} == {
            name: content for name, content in before.items() if name != "journal.json"
        }
        failure = next(iter(read_journal(road.state).failures.values()))
        assert (failure.attempts, failure.final) == (3, True)

    def test_an_engine_that_takes_its_process_along_does_not_take_the_agent(self, works, road, tmp_path):
        """A child that dies writes no evidence; that is a failed smoke run, in one sentence."""
        index = works.publish("second", service_ms=0.1)
        road.update()
        slot = road.state / "slots" / read_journal(road.state).active
        (slot / "smoke.npz").unlink()
        evidence = prepare_in_child(slot)
        assert evidence.release == index.name
        assert "the smoke run died with exit status 1: FileNotFoundError" in evidence.reason

    def test_a_full_disk_in_the_child_is_no_fault_of_the_release(self, works, road):
        works.publish("second", service_ms=0.1)
        road.update()
        slot = road.state / "slots" / read_journal(road.state).active
        with room_for(10), pytest.raises(OutputError, match=r"evidence\.json: cannot be written"):
            prepare_in_child(slot)

    def test_a_child_measures_as_this_process_does(self, works, road):
        second = works.publish("second", service_ms=0.1)
        assert road.update(prepare=prepare_in_child).outcome is Outcome.SWITCHED
        evidence = read_evidence(road.state, read_journal(road.state).active)
        assert evidence.package_sha256 == second.package_sha256
        assert [check.name for check in evidence.checks] == ["relative_error", "disagreement", "latency_p90"]
        assert evidence.reason == ""

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut"])
    def test_a_recording_that_cannot_be_read_is_told(self, tmp_path, content):
        with pytest.raises(VerificationError, match="recording cannot be read"):
            measure(null_package(tmp_path / "package"), content, LOOSE)


class TestBuiltOnTheDevice:
    def test_a_portable_model_is_built_here_measured_and_run(self, works, road, tmp_path):
        release = tmp_path / "release"
        works.factory.package_at(release, lambda folder: package(folder))
        index = works.publish_folder(release, build=OnDeviceBuild(kind="onnxrt"), tolerance=LOOSE)
        road.commit()
        running = active_package(road.state)
        assert running.sha256 != index.package_sha256
        assert running.manifest.build["from_package_sha256"] == index.package_sha256
        assert running.manifest.engine.requires["cpu_features"]
        evidence = read_evidence(road.state, read_journal(road.state).active)
        assert (evidence.package_sha256, evidence.reason) == (running.sha256, "")

    def test_a_build_that_nobody_knows_is_refused_before_it_is_used(self, works, road, tmp_path):
        release = tmp_path / "release"
        works.factory.package_at(release, lambda folder: package(folder))
        works.publish_folder(release, build=OnDeviceBuild(kind="abacus"), tolerance=LOOSE)
        runs = road.runs
        report = road.update()
        assert report.outcome is Outcome.REFUSED
        assert "on-device build 'abacus' is unknown, expected one of onnxrt, tensorrt" in report.reason
        assert road.runs == runs


class TestRollout:
    def _plan(self, works, control, candidate, *, sha256=None, **changes):
        fields = {
            "format": "tollgate-rollout/1",
            "rollout": "november",
            "salt": "0123456789abcdef",
            "serial": 0,
            "state": "rolling",
            "stage": "one",
            "stages": [{"name": "one", "share": 1.0}],
            "holdout": 0.0,
            "candidate": {"name": candidate.name, "sha256": sha256 or candidate.package_sha256},
            "control": {"name": control.name, "sha256": control.package_sha256},
        }
        plan = RolloutPlan.model_validate(fields | changes)
        change(works.repository, works.keyring, Change(add={rollout_name(control.profile): plan.to_bytes()}))
        return plan

    def test_a_vehicle_follows_its_place_in_the_plan_and_back(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        self._plan(works, road.first, second)
        road.commit()
        assert road.release == second.name
        self._plan(works, road.first, second, state="rolled_back", serial=1)
        assert road.update().outcome is Outcome.SWITCHED
        assert road.release == road.first.name

    def test_a_vehicle_beyond_the_share_stays(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        plan = self._plan(works, road.first, second, stages=[{"name": "one", "share": 0.0}])
        assert assignment(plan, "V1").role == "control"
        assert road.update().outcome is Outcome.UP_TO_DATE

    def test_a_shadow_fills_the_other_slot_and_never_drives(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        self._plan(works, road.first, second, stages=[{"name": "one", "share": 0.0, "shadow": 1.0}])
        assert road.update().outcome is Outcome.SHADOWING
        assert road.release == road.first.name
        assert open_package((road.state / "shadow").resolve()).sha256 == second.package_sha256
        self._plan(works, road.first, second, stages=[{"name": "one", "share": 0.0}])
        assert road.update().outcome is Outcome.UP_TO_DATE
        assert not (road.state / "shadow").is_symlink()

    def test_a_plan_for_other_bytes_under_a_releases_name_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        self._plan(works, road.first, second, sha256="0" * 64)
        before = road.snapshot()
        with pytest.raises(VerificationError, match="the rollout speaks of package 0000000000000000…"):
            road.update()
        assert road.snapshot() == before


class TestNetwork:
    def test_a_download_that_breaks_goes_on_where_it_stopped(self, works, road):
        second = works.publish("second", service_ms=0.1)
        asked = []

        class Breaks(Quiet):
            def do_GET(self):
                asked.append((self.path, self.headers.get("Range")))
                if "engine.json" not in self.path:
                    return super().do_GET()
                content = Path(self.translate_path(self.path)).read_bytes()
                begins = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if begins else 200)
                self.send_header("Content-Length", str(len(content) - begins))
                self.end_headers()
                self.wfile.write(content[begins : begins + 40])
                self.close_connection = True

        with served(works.repository, Breaks) as url:
            road.origin = replace(road.origin, url=url)
            for _ in range(20):
                try:
                    assert road.update().outcome is Outcome.SWITCHED
                    break
                except UpdateError as error:
                    assert "\n" not in str(error)
        ranges = [range_ for path, range_ in asked if "engine.json" in path]
        assert ranges[:3] == [None, "bytes=40-", "bytes=80-"]
        assert road.release == second.name

    def test_a_repository_in_a_folder_works_as_one_on_a_server(self, works, road):
        second = works.publish("second", service_ms=0.1)
        road.origin = replace(road.origin, url=str(works.repository))
        assert road.update(fetcher=fetcher_for(str(works.repository))).outcome is Outcome.SWITCHED
        assert road.release == second.name

    def test_over_https_a_server_without_a_trusted_certificate_is_refused(self, works, road, tmp_path, monkeypatch):
        second = works.publish("second", service_ms=0.1)
        certificate = _self_signed(tmp_path)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        with served(works.repository, tls=tls) as url:
            road.origin = replace(road.origin, url=url)
            before = road.snapshot()
            with pytest.raises(UpdateError, match="certificate verify failed"):
                road.update(fetcher=Fetcher(HASTY))
            assert road.snapshot() == before
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            assert road.update(fetcher=Fetcher(HASTY)).outcome is Outcome.SWITCHED
        assert road.release == second.name

    def test_two_agents_on_one_vehicle_do_not_meet(self, road):
        with (road.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(UpdateError, match="another agent is at work on this vehicle"):
                road.update()

    def test_a_damaged_journal_is_told_and_nothing_is_guessed(self, road):
        (road.state / "journal.json").write_text('{"active": "c"}')
        with pytest.raises(UpdateError, match=r"journal\.json: active: got 'c'"):
            road.update()


class TestVerb:
    def _words(self, road, tmp_path):
        (tmp_path / "root.json").write_bytes(road.origin.root)
        words = [str(road.state), "--repository", road.origin.url, "--root", str(tmp_path / "root.json")]
        return [*words, "--profile", "x86_cpu", "--vehicle-id", "V1"]

    def test_the_service_goes_on_until_it_is_told_to_stop(self, works, road, tmp_path):
        second = works.publish("second", service_ms=0.1)
        command = [sys.executable, "-m", "perception.cli", "agent", *self._words(road, tmp_path), "--interval-s", "0.1"]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            lines = [service.stdout.readline() for _ in range(2)]
        finally:
            service.terminate()
        assert service.wait(timeout=30) == 0
        assert lines[0].startswith("SWITCHED")
        assert lines[1].split("  ")[:2] == ["ON_TRIAL", second.name]
        assert lines[1].rstrip().endswith("0 of 10 frames")

    def test_a_release_that_fell_back_ends_with_1_and_status_says_why(self, works, road, tmp_path, capsys):
        works.publish("second", service_ms=0.1)
        road.update()
        road.drive(late=10)
        assert main(["agent", *self._words(road, tmp_path), "--once", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["outcome"] == "FELL_BACK"
        assert main(["agent", str(road.state), "--status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["events"][-1]["what"] == "fell_back"
        assert 'tollgate_agent_slot_events{what="fell_back"} 1' in (road.state / "metrics.prom").read_text()

    @pytest.mark.parametrize(
        ("missing", "match"),
        [
            ("--repository", "--repository is missing"),
            ("--vehicle-id", "--vehicle-id is missing"),
            ("--root", "--root is"),
        ],
    )
    def test_a_missing_word_is_one_line(self, road, tmp_path, capsys, missing, match):
        words = self._words(road, tmp_path)
        position = words.index(missing)
        assert main(["agent", *words[:position], *words[position + 2 :], "--once"]) == 2
        said = capsys.readouterr().err
        assert f"{missing} is missing" in said
        assert said.count("\n") == 1


def _self_signed(folder):
    """A certificate for the loopback, with its private key, in one file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of this test")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


def _frames_in(pictures):
    source = open_source(pictures, cameras=[])
    try:
        return list(source.frames())
    finally:
        source.close()


def _header(road):
    package = active_package(road.state)
    return RunHeader(
        package_sha256=package.sha256,
        engine_sha256=package.engine_sha256,
        recording={"name": "drive", "sha256": "0" * 64},
        profile=package.profile.name,
        classes=package.spec.classes,
        versions={},
    )
