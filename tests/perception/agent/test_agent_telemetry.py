"""Every drive becomes one signed record, whoever dies in between; what was measured on the device goes with it."""

from __future__ import annotations

import json
import shutil
import stat
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from perception.agent.agent import Outcome
from perception.agent.health import (
    HEALTH,
    DriveReport,
    HealthReporter,
    forget,
    health_of,
    hold_running,
    settle,
    write_report,
)
from perception.agent.index import rollout_name
from perception.agent.journal import read_journal
from perception.agent.telemetry import Reporter, vehicle_signer
from perception.cli import main
from perception.cohort import RolloutPlan
from perception.errors import TollgateError, UpdateError
from perception.package import open_package
from perception.pipeline import FrameResult, Status, Timings, open_pipeline
from perception.record import RunHeader
from perception.results import Detections
from perception.runtime import replay
from perception.sources.table import open_source
from perception.telemetry_record import KnownVehicle, read_record
from perception.telemetry_spool import Spool
from safety_gates.publishing.reference import reference_of
from safety_gates.publishing.repository import Change, change
from tests.perception.agent.faults import in_child, kill
from tests.perception.agent.fleet import Quiet, Road, Works, served
from tests.perception.builders import ListSource, detector_package, frames_of

DRIVE = Path(__file__).resolve().parents[3] / "data" / "samples" / "drive"


def records_of(road, folder=None):
    """What waits in the spool, each verified as the fleet's owner would."""
    key = vehicle_signer(road.state).public_key
    known = {key.keyid: KnownVehicle("V1", key)}
    waiting = Spool(road.state / "spool", "V1").pending() if folder is None else sorted(folder.rglob("*.json"))
    return [read_record(path.read_bytes(), known) for path in waiting]


def roll_out(works, candidate, control, **shares):
    """Publish a plan of one stage for every vehicle."""
    plan = {
        "format": "tollgate-rollout/1",
        "rollout": "november",
        "salt": "0123456789abcdef",
        "serial": 0,
        "state": "rolling",
        "stage": "all",
        "stages": [{"name": "all", **shares}],
        "holdout": 0.0,
        "candidate": {"name": candidate.name, "sha256": candidate.package_sha256},
        "control": {"name": control.name, "sha256": control.package_sha256},
    }
    add = {rollout_name(candidate.profile): RolloutPlan.model_validate_json(json.dumps(plan)).to_bytes()}
    change(works.repository, works.keyring, Change(add=add))


def test_a_drive_becomes_a_record_that_says_what_drove_and_what_was_measured_before(works, road):
    second = works.publish("second", service_ms=0.1)
    road.update()
    road.drive(frames=20, late=1)
    road.update()
    record = records_of(road)[-1]
    assert (record.release.name, record.release.sha256) == (second.name, second.package_sha256)
    assert (record.frames, record.late, record.ended, record.profile) == (20, 1, "clean", "x86_cpu")
    assert set(record.smoke) == {"relative_error", "disagreement", "latency_p90"}
    assert [event.event for event in record.slot_events][-1] == "switched"
    assert sorted(record.sequence for record in records_of(road)) == [0, 1]


def test_a_crash_reports_itself(road):
    (road.state / HEALTH).mkdir(exist_ok=True)
    report = DriveReport(package_sha256=road.runs, started_ns=7)
    hold_running(road.state / HEALTH / "d.running", report).close()
    settle(road.state / HEALTH)
    Reporter(road.state, road.vehicle).collect()
    assert (records_of(road)[-1].ended, records_of(road)[-1].started_ns) == ("crash", 7)


def test_a_drive_with_something_else_than_a_release_is_not_the_fleets_business(road):
    before = len(records_of(road))
    write_report(road.state / HEALTH / "x.json", DriveReport(package_sha256="0" * 64, started_ns=1, ended="clean"))
    assert Reporter(road.state, road.vehicle).collect() == 1
    assert len(records_of(road)) == before


def test_killed_at_every_step_each_drive_is_counted_once(road, tmp_path):
    for _ in range(3):
        road.drive(frames=5)
    work = Reporter(road.state, road.vehicle).collect
    before = len(records_of(road))
    shutil.copytree(road.state, tmp_path / "ready", symlinks=True)
    changes = in_child(road.state, work, at=None, act=kill)
    assert len(changes) > 10
    for at in range(1, len(changes) + 1):
        shutil.rmtree(road.state)
        shutil.copytree(tmp_path / "ready", road.state, symlinks=True)
        in_child(road.state, work, at=at, act=kill)
        work()
        assert len(records_of(road)) == before + 3, changes[at - 1]


class Takes(Quiet):
    """A server that keeps what is put to it."""

    def do_PUT(self):
        path = Path(self.directory) / self.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_what_waits_is_sent_and_nothing_is_lost_without_a_network(road, tmp_path):
    road.drive(frames=5)
    reporter = Reporter(road.state, road.vehicle)
    reporter.collect()
    waiting = records_of(road)
    assert reporter.upload("http://127.0.0.1:9").left == len(waiting)
    assert records_of(road) == waiting
    with served(tmp_path / "received", Takes) as url:
        assert reporter.upload(url).sent == len(waiting)
    assert records_of(road) == []
    assert records_of(road, tmp_path / "received") == waiting


class TestService:
    def words(self, road, tmp_path, repository):
        (tmp_path / "root.json").write_bytes(road.origin.root)
        words = ["agent", str(road.state), "--repository", repository, "--root", str(tmp_path / "root.json")]
        return [*words, "--profile", "x86_cpu", "--vehicle-id", "V1", "--once"]

    def test_records_are_sent_also_while_releases_cannot_be_had(self, road, tmp_path, capsys):
        road.drive(frames=5)
        words = self.words(road, tmp_path, "http://127.0.0.1:9")
        with served(tmp_path / "received", Takes) as url:
            assert main([*words, "--telemetry", url]) == 2
        assert "the server cannot be reached" in capsys.readouterr().err
        assert [record.frames for record in records_of(road, tmp_path / "received")][-1] == 5
        assert records_of(road) == []
        assert 'outcome="UpdateError"' in (road.state / "metrics.prom").read_text()

    def test_records_that_wait_are_told(self, road, tmp_path, capsys):
        road.drive(frames=5)
        assert main([*self.words(road, tmp_path, road.origin.url), "--telemetry", "http://127.0.0.1:9"]) == 0
        assert "drive records wait  http://127.0.0.1:9/V1/" in capsys.readouterr().out.replace("\n", "")

    def test_an_address_that_is_none_is_one_line(self, road, tmp_path, capsys):
        assert main([*self.words(road, tmp_path, road.origin.url), "--telemetry", "ftp://x"]) == 2
        assert "--telemetry: got ftp://x, expected http://" in capsys.readouterr().err


def test_a_report_that_is_being_written_is_left_alone(road):
    """It lies beside its place under a hidden name; taken for a report, it would count as a fault, or be lost."""
    report = DriveReport(package_sha256=road.runs, started_ns=1, ended="clean", frames=3)
    before, half = len(records_of(road)), [road.state / HEALTH / name for name in (".d.x1.json", ".d.running")]
    for path in half:
        path.write_bytes(b"{")
    assert road.update().outcome is Outcome.UP_TO_DATE
    assert [path.read_bytes() for path in half] == [b"{", b"{"]
    assert health_of(road.state / HEALTH, road.runs).faults == ()
    write_report(road.state / HEALTH / "d.json", report)
    forget(road.state / HEALTH)
    assert Reporter(road.state, road.vehicle).collect() == 1
    assert len(records_of(road)) == before + 1


def test_the_vehicles_key_is_its_own(road):
    path = road.state / "vehicle.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vehicle_signer(road.state).public_key.keyid == vehicle_signer(road.state).public_key.keyid
    path.write_text("no key")
    with pytest.raises(UpdateError, match=r"vehicle\.pem: no private key in PEM; move it away"):
        vehicle_signer(road.state)


@pytest.mark.parametrize(("file", "match"), [("vehicle.pem", "no private key"), ("spool/next_sequence", "no number")])
def test_a_damaged_key_or_counter_keeps_no_release_away(works, road, file, match):
    second = works.publish("second", service_ms=0.1)
    road.drive(frames=5)
    kept = (road.state / file).read_bytes()
    (road.state / file).write_text("damaged")
    with pytest.raises(TollgateError, match=match):
        road.update()
    assert road.release == second.name
    (road.state / file).write_bytes(kept)
    before = len(records_of(road))
    road.update()
    assert len(records_of(road)) == before + 1


def test_the_record_of_a_rollout_says_the_vehicles_place(works, road):
    second = works.publish("second", service_ms=0.1, offer=False)
    roll_out(works, second, road.first, share=1.0)
    road.update()
    assert read_journal(road.state).place.role == "candidate"
    road.drive(frames=3)
    road.update()
    record = records_of(road)[-1]
    assert (record.rollout, record.role, record.release.name) == ("november", "candidate", second.name)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The detector twice, the second time as a package of its own, and an engine that finds nothing."""
    works = Works.founded(tmp_path_factory.mktemp("seen") / "works")
    folder = works.factory.package_at(works.folder / "detector", detector_package)
    with closing(open_source(DRIVE, cameras=[])) as source:
        some = [frame for frame in source.frames() if frame.frame_id % 5 == 1]
    reference = reference_of(open_package(folder / "package"), some)
    works.detector = works.publish_folder(folder, reference=reference)
    works.blind = works.publish("blind", offer=False, reference=reference)
    twin = works.factory.package_at(works.folder / "twin", partial(detector_package, name="twin"))
    works.twin = works.publish_folder(twin, offer=False)
    return works


class TestWhatWasSeenAndSaid:
    """A vehicle with the bundled detector, its drives and its shadow."""

    @pytest.fixture
    def car(self, published, tmp_path):
        """A vehicle that runs the detector."""
        with served(published.repository) as url:
            car = Road(tmp_path / "car", published, url)
            car.commit()
            yield car

    def test_a_drive_like_the_reference_lies_near_it_and_a_spoilt_one_does_not(self, car):
        drive = ["replay", str(car.state / "active"), str(DRIVE), "--frames", "480", "--agent", str(car.state)]
        assert main([*drive, "--quiet"]) == 0
        usual = self.last(car)
        assert usual.input_drift.divergence < 0.05
        assert usual.output_drift.divergence < 0.05
        assert sum(usual.output_drift.counts) > 100
        with closing(open_source(DRIVE, cameras=["front"])) as source:
            frames = [frame for frame in source.frames() if frame.frame_id % 2 == 0]
        dark = [replace(frame, pixels=frame.pixels // 4, frame_id=2 * frame.frame_id) for frame in frames]
        package = open_package(car.state / "active")
        header = RunHeader.of(package, DRIVE, options={})
        with open_pipeline(package) as pipeline:
            replay(pipeline, ListSource(dark), sinks=[HealthReporter(car.state, header)], on_frame=lambda _: None)
        spoilt = self.last(car)
        assert spoilt.input_drift.divergence > 5 * usual.input_drift.divergence
        assert spoilt.output_drift.divergence > usual.output_drift.divergence

    def test_a_short_drive_says_nothing_about_drift(self, car):
        drive = ["replay", str(car.state / "active"), str(DRIVE), "--frames", "40", "--agent", str(car.state)]
        assert main([*drive, "--quiet"]) == 0
        record = self.last(car)
        assert (record.frames, record.input_drift, record.output_drift) == (40, None, None)

    @pytest.mark.parametrize(("other", "agrees"), [("twin", True), ("blind", False)])
    def test_a_shadow_is_held_against_what_drives_and_counts_as_no_frame(self, published, car, other, agrees):
        release = self.shadow(published, car, other)
        packages = {name: open_package(car.state / name) for name in ("active", "shadow")}
        options = {"packages": {name: [each.sha256] for name, each in packages.items()}, "shadows": ["shadow"]}
        sink = HealthReporter(car.state, RunHeader.of(packages["active"], DRIVE, options=options))
        with ExitStack() as stack:
            source = stack.enter_context(closing(open_source(DRIVE, cameras=["front"])))
            pipelines = {name: stack.enter_context(open_pipeline(each)) for name, each in packages.items()}
            for number, frame in enumerate(islice(source.frames(), 30)):
                for name, pipeline in pipelines.items():
                    if name == "active" or number < 20:
                        sink.write(replace(pipeline.step(frame), model=name))
        sink.close()
        record = self.last(car)
        assert (record.frames, record.shadow.shed) == (30, 10)
        assert record.shadow.release.sha256 == release.package_sha256
        assert record.shadow.compared > 0
        assert record.shadow.agreed == (record.shadow.compared if agrees else 0)

    def test_a_run_tells_of_its_shadow_as_far_as_there_was_slack(self, published, car):
        release = self.shadow(published, car, "twin")
        folders = [str(car.state / name) for name in ("active", "shadow")]
        drive = ["run", folders[0], str(DRIVE), "--shadow", folders[1], "--agent", str(car.state), "--quiet"]
        assert main([*drive, "--camera", "front", "--frames", "30", "--speed", "0.5", "--force"]) == 0
        record = self.last(car)
        assert (record.frames, record.role, record.release.name) == (30, "shadow", published.detector.name)
        assert record.shadow.release.sha256 == release.package_sha256
        assert record.shadow.agreed == record.shadow.compared
        assert record.shadow.compared == 0 or record.shadow.shed < 30

    def shadow(self, published, car, other):
        """Let another release run in the car's shadow."""
        release = getattr(published, other)
        roll_out(published, release, published.detector, share=0.0, shadow=1.0)
        assert car.update().outcome is Outcome.SHADOWING
        return release

    def test_every_miss_counts_once_and_a_score_of_ones_own_says_nothing_about_output(self, car):
        """A stale result is a miss; output is only comparable where it was reported as the reference was."""
        package = open_package(car.state / "active")
        sink = HealthReporter(car.state, RunHeader.of(package, DRIVE, options={"score": 0.6}))
        (picture,) = frames_of("front", 1)
        for number in range(600):
            frame = replace(picture, frame_id=number)
            status = (Status.ON_TIME, Status.LATE, Status.STALE, Status.SKIPPED)[number % 4]
            result = None if status is Status.SKIPPED else Detections.empty()
            sink.write(FrameResult(frame, result, Timings(0, 1, 1, 1), status, 50_000_000))
        sink.close()
        record = self.last(car)
        assert (record.frames, record.late, record.skipped, record.misses) == (600, 150, 300, 450)
        assert record.latency.recorder().samples == 300
        assert record.input_drift is not None
        assert record.output_drift is None

    def last(self, car):
        Reporter(car.state, car.vehicle).collect()
        return records_of(car)[-1]
