"""Each test is an attack on a vehicle, or an accident that looks like one: refused in its own words, nothing changed.

"Nothing changed": slots, links, journal and what runs are byte for byte as before. The trusted metadata may have moved
forward, never back.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from perception.agent.agent import Outcome
from perception.agent.index import SIGNERS, target_name
from perception.errors import PreflightError, UpdateError, VerificationError
from perception.files import json_bytes
from safety_gates.publishing.ceremony import rotate
from safety_gates.publishing.repository import Change, change, read_target, refresh, target_path
from tests.perception.agent.fleet import Quiet, ago, served


def refused(road, match, error=VerificationError, **around):
    """The pass fails in one sentence, and nothing on the vehicle changed."""
    before, runs = road.snapshot(), road.runs
    with pytest.raises(error, match=match) as refusal:
        road.update(**around)
    assert "\n" not in str(refusal.value)
    assert road.snapshot() == before
    assert road.runs == runs


@contextmanager
def through(road, folder, handler=Quiet):
    """The vehicle meets another server."""
    with served(folder, handler) as url:
        honest = road.origin
        road.origin = type(honest)(url, honest.root)
        yield
        road.origin = honest


def files_of(works, index, path):
    """Where a file of a release lies on the server."""
    name = target_name(index.name, path)
    return target_path(works.repository, name, works.state.targets.signed.targets[name])


class TestOldMetadata:
    def test_rollback_to_a_recorded_repository_is_refused(self, works, road, tmp_path):
        shutil.copytree(works.repository, tmp_path / "recorded")
        works.publish("second", service_ms=0.1)
        road.commit()
        with through(road, tmp_path / "recorded"):
            refused(road, "rollback attack: the repository shows metadata older than this vehicle has seen")

    def test_rollback_of_the_snapshot_under_a_new_timestamp_is_refused(self, works, road):
        old = works.state.snapshot
        works.publish("second", service_ms=0.1)
        road.commit()
        _forge_timestamp(works, snapshot=old)
        refused(road, "rollback attack: .*snapshot version must be")

    def test_rollback_by_its_owner_leads_back_to_the_kept_slot_without_a_download(self, works, road):
        second = works.publish("second", service_ms=0.1)
        road.commit()
        assert road.release == second.name
        works.offer(road.first)
        shutil.rmtree(works.repository / "targets" / "releases" / road.first.name / "package")
        assert road.update().outcome is Outcome.SWITCHED
        assert road.release == road.first.name
        assert road.update().outcome is Outcome.UP_TO_DATE, "a release that was kept before needs no commit window"

    def test_freeze_on_metadata_that_is_not_renewed_is_refused_once_it_expires(self, road):
        refused(road, "timestamp.json expired: somebody freezes this vehicle", now_s=time.time() + 8 * 86400)

    def test_freeze_by_a_clock_set_back_is_refused(self, works, road):
        road.update(now_s=time.time() + 6 * 86400)
        refresh(works.repository, works.keyring, now=ago(5))
        refused(road, "timestamp.json expired", now_s=time.time() - 3650 * 86400)

    def test_a_clock_years_ahead_refuses_everything_and_changes_nothing(self, road):
        refused(road, r"expired by this clock \(20\d\d-..-..\); check the clock", now_s=time.time() + 3650 * 86400)

    def test_a_clock_of_1970_costs_nothing(self, works, road):
        """A battery that died: the newest time that was ever believed stands in for it."""
        second = works.publish("second", service_ms=0.1)
        assert road.update(now_s=0.0).outcome is Outcome.SWITCHED
        assert road.release == second.name

    def test_expired_targets_are_refused_under_a_fresh_timestamp(self, works, road):
        works.offer(road.first, days_ago=91)
        refresh(works.repository, works.keyring)
        refused(road, "targets expired by this clock")

    def test_an_expired_root_is_refused(self, works, road):
        rotate(works.repository, works.keyring, works.keyring.of("root")[0], now=ago(366))
        refresh(works.repository, works.keyring)
        refused(road, "root.json expired by this clock")


class TestMixedMetadata:
    def test_mix_and_match_of_targets_from_another_state_is_refused(self, works, road):
        old = works.repository / "metadata" / f"{works.state.version}.targets.json"
        content = old.read_bytes()
        works.publish("second", service_ms=0.1)
        (works.repository / "metadata" / f"{works.state.version}.targets.json").write_bytes(content)
        refused(road, "mix-and-match attack: metadata is not the file")

    def test_mix_and_match_of_a_snapshot_from_another_state_is_refused(self, works, road):
        content = works.state.snapshot.to_bytes()
        works.publish("second", service_ms=0.1)
        version = works.state.snapshot.signed.version
        (works.repository / "metadata" / f"{version}.snapshot.json").write_bytes(content)
        refused(road, "mix-and-match attack: metadata is not the file")

    def test_a_snapshot_whose_version_is_not_the_timestamps_is_refused(self, works, road):
        _forge_timestamp(works, snapshot_version=works.state.snapshot.signed.version + 5)
        refused(road, "mix-and-match attack: .*Expected snapshot version")

    def test_a_file_of_another_release_under_this_ones_name_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        name = target_name(second.name, "report.html")
        works.factory.release("third")
        change(works.repository, works.keyring, Change(add={name: b"<p>another report</p>"}))
        works.offer(second)
        refused(road, "mix-and-match: report.html is signed as")

    def test_damaged_metadata_is_refused(self, works, road):
        works.publish("second", service_ms=0.1)
        path = works.repository / "metadata" / "timestamp.json"
        path.write_bytes(path.read_bytes()[:-20])
        refused(road, "metadata is damaged")


class TestKeys:
    def test_metadata_signed_by_a_foreign_key_is_refused(self, works, road):
        works.publish("second", service_ms=0.1)
        _resign(works, "timestamp", CryptoSigner.generate_ed25519())
        refused(road, "not signed by enough keys that this vehicle trusts")

    def test_a_lost_online_key_is_replaced_without_it(self, works, road):
        lost = works.keyring.of("targets")[0]
        (works.keyring.folder / "targets.pem").unlink()
        works.keyring, _ = rotate(works.repository, works.keyring, lost)
        works.publish("second", service_ms=0.1)
        road.commit()
        assert road.release.startswith("null")

    def test_a_revoked_timestamp_key_signs_nothing_that_is_believed(self, works, road):
        stolen = works.keyring.signer(works.keyring.of("timestamp")[0])
        works.keyring, _ = rotate(works.repository, works.keyring, works.keyring.of("timestamp")[0])
        assert road.update().outcome is Outcome.UP_TO_DATE
        works.publish("second", service_ms=0.1)
        _resign(works, "timestamp", stolen)
        refused(road, "not signed by enough keys .*: a revoked, lost or foreign key signed it")

    def test_a_revocation_once_seen_is_not_forgotten_when_its_root_is_withheld(self, works, road, tmp_path):
        stolen = works.keyring.signer(works.keyring.of("timestamp")[0])
        works.keyring, _ = rotate(works.repository, works.keyring, works.keyring.of("timestamp")[0])
        (works.repository / "metadata" / "timestamp.json").rename(tmp_path / "withheld")
        refused(road, "the server does not give what it should have", error=UpdateError)
        (tmp_path / "withheld").rename(works.repository / "metadata" / "timestamp.json")
        (works.repository / "metadata" / "2.root.json").unlink()
        _resign(works, "timestamp", stolen)
        refused(road, "not signed by enough keys")

    def test_one_stolen_root_key_makes_no_root(self, works, road):
        stolen = works.keyring.signer(works.keyring.of("root")[0])
        root = works.state.root
        root.signed.version += 1
        root.signed.roles["timestamp"].keyids = [root.signed.roles["root"].keyids[0]]
        root.signatures.clear()
        root.sign(stolen)
        (works.repository / "metadata" / "2.root.json").write_bytes(root.to_bytes())
        refused(road, r"not signed by enough keys that this vehicle trusts \(root was signed by 1/2 keys\)")

    def test_a_release_of_a_revoked_signer_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        works.keyring, _ = rotate(works.repository, works.keyring, works.keyring.of("signer")[0])
        works.offer(second)
        refused(road, "signed by key .*, this machine trusts")

    def test_a_refused_release_does_not_cost_the_slot_that_vehicles_may_return_to(self, works, road):
        works.publish("second", service_ms=0.1)
        road.commit()
        third = works.publish("third", service_ms=0.2, offer=False)
        works.keyring, _ = rotate(works.repository, works.keyring, works.keyring.of("signer")[0])
        works.offer(third)
        refused(road, r"signed by key .*, this machine trusts")
        works.offer(road.first)
        shutil.rmtree(works.repository / "targets" / "releases" / road.first.name / "package")
        assert road.update().outcome is Outcome.SWITCHED
        assert road.release == road.first.name

    def test_a_release_of_a_foreign_signer_is_refused_though_the_repository_is_well_signed(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        stranger = CryptoSigner.generate_ed25519().public_key
        signers = json_bytes({"format": "tollgate-signers/1", "keys": {stranger.keyid: stranger.to_dict()}})
        change(works.repository, works.keyring, Change(add={SIGNERS: signers}))
        works.offer(second)
        refused(road, "signed by key .*, this machine trusts")


class TestFiles:
    def test_a_truncated_file_is_refused_and_resumed_once_it_is_whole(self, works, road):
        second = works.publish("second", service_ms=0.1)
        path = files_of(works, second, "package/engine.json")
        content = path.read_bytes()
        path.write_bytes(content[:50])
        refused(road, r"got 50 of \d+ bytes: truncated, or the connection broke", error=UpdateError)
        path.write_bytes(content)
        road.commit()
        assert road.release == second.name

    def test_a_swapped_file_of_the_same_length_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1)
        path = files_of(works, second, "package/engine.json")
        path.write_bytes(path.read_bytes()[::-1])
        refused(road, r"engine\.json: got sha256 .*, signed is .*: swapped or damaged on the server")

    def test_endless_data_in_a_file_is_cut_off(self, works, road):
        second = works.publish("second", service_ms=0.1)
        files_of(works, second, "package/engine.json").write_bytes(b"x" * 10_000_000)
        refused(road, r"sends more than the \d+ bytes that are signed \(endless data\)")

    def test_endless_metadata_is_cut_off(self, works, road):
        class Endless(Quiet):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                try:
                    while True:
                        self.wfile.write(b" " * 65536)
                except OSError:
                    return

        with through(road, works.repository, Endless):
            refused(road, "endless data: the server sends more metadata than any repository needs")

    def test_slow_retrieval_of_metadata_is_given_up(self, works, road):
        class Slow(Quiet):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                try:
                    for _ in range(200):
                        self.wfile.write(b" ")
                        time.sleep(0.05)
                except OSError:
                    return

        with through(road, works.repository, Slow):
            began_s = time.monotonic()
            refused(road, "slow retrieval: the server sends too slowly to be of use", error=UpdateError)
            assert time.monotonic() - began_s < 9, "given up long before the sender is done"

    def test_a_silent_server_is_given_up(self, works, road):
        class Silent(Quiet):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                time.sleep(4)

        with through(road, works.repository, Silent):
            refused(road, "slow retrieval: .* nothing for 2 s", error=UpdateError)

    def test_a_server_that_is_down_for_a_week_costs_nothing_but_time(self, works, road):
        second = works.publish("second", service_ms=0.1)
        honest, road.origin = road.origin, type(road.origin)("http://127.0.0.1:9", road.origin.root)
        for day in range(7):
            refused(road, "the server cannot be reached", error=UpdateError, now_s=time.time() + day * 86400)
        road.origin = honest
        road.commit()
        assert road.release == second.name


class TestMisfits:
    def test_a_release_for_another_profile_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1)
        _want(works, second.name, profile="arm_cpu")
        road.vehicle = type(road.vehicle)("V1", "arm_cpu")
        refused(road, "wrong profile: got x86_cpu, this vehicle is arm_cpu")

    def test_a_release_for_other_hardware_is_refused_with_the_reason(self, works, road, tmp_path):
        works.publish("second", service_ms=0.1)
        machine = tmp_path / "machine"
        (machine / "proc").mkdir(parents=True)
        (machine / "proc" / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\nFeatures\t: fp asimd\n")
        refused(
            road,
            "may not run a package for x86_cpu: CPU architecture: got aarch64, expected x86_64",
            error=PreflightError,
            machine_root=machine,
        )

    def test_a_wanted_release_that_is_not_there_is_refused(self, works, road):
        _want(works, "nowhere")
        refused(road, "release nowhere: is wanted, but not in the repository")

    def test_an_index_that_reaches_outside_its_folder_is_refused(self, works, road):
        second = works.publish("second", service_ms=0.1, offer=False)
        name = target_name(second.name, "index.json")
        index = json.loads(read_target(works.repository, works.state, name))
        index["files"][0]["path"] = "../../../etc/passwd"
        change(works.repository, works.keyring, Change(add={name: json_bytes(index)}))
        _want(works, second.name)
        refused(road, r"files\.0\.path: got '\.\./\.\./\.\./etc/passwd'")

    def test_a_slot_altered_on_disk_is_not_returned_to(self, works, road):
        works.publish("second", service_ms=0.1)
        road.commit()
        engine = next(road.state.glob("slots/a/release/package/engine.json"))
        engine.write_bytes(engine.read_bytes().replace(b"0.0", b"9.9", 1))
        works.offer(road.first)
        assert road.update().outcome is Outcome.SWITCHED
        assert road.runs == road.first.package_sha256, "fetched anew, not trusted"


def _want(works, name, *, profile="x86_cpu"):
    """Point vehicles to a release without the publisher's own checks."""
    current = json_bytes({"format": "tollgate-current/1", "releases": {profile: name}})
    change(works.repository, works.keyring, Change(add={"current.json": current}))


def _resign(works, role, signer):
    """Sign the newest metadata of a role by somebody else, under the same key id if it is the same key."""
    path = works.repository / "metadata" / f"{role}.json"
    metadata = Metadata.from_bytes(path.read_bytes())
    metadata.signed.version += 1
    metadata.sign(signer)
    path.write_bytes(metadata.to_bytes())


def _forge_timestamp(works, *, snapshot=None, snapshot_version=None):
    """What a thief of the timestamp key can do."""
    path = works.repository / "metadata" / "timestamp.json"
    metadata = Metadata.from_bytes(path.read_bytes())
    metadata.signed.version += 1
    meta = metadata.signed.snapshot_meta
    if snapshot is not None:
        meta.version = snapshot.signed.version
    if snapshot_version is not None:
        content = (path.parent / f"{meta.version}.snapshot.json").read_bytes()
        meta.version = snapshot_version
        (path.parent / f"{snapshot_version}.snapshot.json").write_bytes(content)
    metadata.sign(works.keyring.signer(works.keyring.of("timestamp")[0]))
    path.write_bytes(metadata.to_bytes())
