"""A repository changes as one step or not at all, its keys come and go, and a folder of it can be checked off line."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.signer import CryptoSigner

from perception.cli import main
from perception.errors import OutputError, ReleaseError, VerificationError
from safety_gates.publishing.audit import audit
from safety_gates.publishing.ceremony import revoke, rotate
from safety_gates.publishing.keyring import KeyEntry, create_keyring, read_keyring
from safety_gates.publishing.repository import (
    Change,
    change,
    create_repository,
    read_target,
    refresh,
    target_path,
)
from tests.conftest import PASSPHRASE
from tests.disk import room_for
from tests.perception.agent.fleet import Works, ago
from tests.safety_gates.builders import snapshot


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    """Works with one published, offered release; copied by each test."""
    folder = tmp_path_factory.mktemp("founded")
    works = Works.founded(folder / "works")
    works.first = works.publish("first")
    return works


@pytest.fixture
def works(founded, tmp_path):
    shutil.copytree(founded.folder, tmp_path / "works")
    works = Works(tmp_path / "works")
    works.first = founded.first
    return works


def unchanged(works, match, act, error=ReleaseError):
    before = snapshot(works.repository)
    with pytest.raises(error, match=match) as refusal:
        act()
    assert "\n" not in str(refusal.value)
    assert snapshot(works.repository) == before


class TestRepository:
    def test_it_is_whole_by_the_vehicles_own_rules(self, works):
        found = audit(works.repository, works.root)
        assert [(release.name, release.claims) for release in found.releases] == [
            (works.first.name, ("latency.deadline",))
        ]
        assert found.files == len(works.first.files) + 4  # index, smoke recording, signers, current

    def test_every_role_has_keys_of_its_own_and_root_a_threshold(self, works):
        root = works.state.root.signed
        assert (len(root.roles["root"].keyids), root.roles["root"].threshold) == (3, 2)
        key_ids = [key_id for role in root.roles.values() for key_id in role.keyids]
        assert len(set(key_ids)) == 6
        assert root.consistent_snapshot

    def test_an_edited_file_is_found_off_line(self, works):
        name = f"releases/{works.first.name}/report.html"
        path = target_path(works.repository, name, works.state.targets.signed.targets[name])
        path.write_text("<p>better</p>")
        with pytest.raises(VerificationError, match=r"report\.html: got sha256 .*, signed is"):
            audit(works.repository, works.root)

    def test_a_repository_of_somebody_else_is_found_off_line(self, works, tmp_path):
        other = Works.founded(tmp_path / "other")
        with pytest.raises(VerificationError, match="not signed by enough keys"):
            audit(works.repository, other.root)

    def test_expired_metadata_is_found_off_line(self, works):
        with pytest.raises(VerificationError, match=r"timestamp\.json expired"):
            audit(works.repository, works.root, now=ago(-8))

    def test_what_vehicles_see_changes_last_and_at_once(self, works):
        """Between any two writes the repository is whole: as before, until the timestamp leads to what is new."""
        names = set(snapshot(works.repository))
        timestamp = (works.repository / "metadata" / "timestamp.json").read_bytes()
        works.publish("second", service_ms=0.1)
        for added in sorted(set(snapshot(works.repository)) - names):
            (works.repository / added).unlink()
        (works.repository / "metadata" / "timestamp.json").write_bytes(timestamp)
        assert audit(works.repository, works.root).state.version == works.state.version

    @pytest.mark.parametrize("room_bytes", [0, 500, 1500])
    def test_a_full_disk_leaves_vehicles_the_state_before(self, works, room_bytes):
        before = works.state.version
        with room_for(room_bytes), pytest.raises(OutputError):
            change(works.repository, works.keyring, Change(add={"note.txt": b"x" * 5000}))
        assert works.state.version == before
        audit(works.repository, works.root)

    def test_two_publishers_one_wins_and_the_other_is_told(self, works):
        seen = works.state.version
        change(works.repository, works.keyring, Change(add={"note.txt": b"1"}, expected_version=seen))
        late = Change(add={"note.txt": b"2"}, expected_version=seen)
        unchanged(works, "somebody published meanwhile", lambda: change(works.repository, works.keyring, late))
        assert read_target(works.repository, works.state, "note.txt") == b"1"

    def test_many_publishers_at_once_lose_nothing(self, works):
        outcomes = []

        def publish(number):
            try:
                change(works.repository, works.keyring, Change(add={f"{number}.txt": b"x"}))
                outcomes.append(number)
            except ReleaseError as error:
                assert "somebody else is publishing" in str(error)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes
        assert {f"{number}.txt" for number in outcomes} <= set(works.state.targets.signed.targets)
        audit(works.repository, works.root)

    def test_a_publisher_at_work_keeps_others_out(self, works):
        with (works.repository / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            act = lambda: change(works.repository, works.keyring, Change())  # noqa: E731
            unchanged(works, "somebody else is publishing", act)

    def test_a_release_is_published_once(self, works):
        folder = works.folder / "first"
        unchanged(works, "was published before", lambda: works.publish_folder(folder))

    def test_a_release_nobody_trusted_signed_is_not_published(self, works):
        works.factory.signer = CryptoSigner.generate_ed25519()
        folder = works.factory.release("foreign", service_ms=0.3)
        unchanged(
            works, "signed by key .*, this machine trusts", lambda: works.publish_folder(folder), VerificationError
        )

    @pytest.mark.parametrize("result", ["FAILED", "WARNED"])
    def test_a_release_that_did_not_pass_is_not_published(self, works, result):
        folder = works.factory.release("bad", service_ms=0.3, result=result)
        unchanged(works, f"the result inside is {result}", lambda: works.publish_folder(folder), VerificationError)

    def test_a_repository_is_not_made_twice(self, works):
        act = lambda: create_repository(works.repository, works.keyring, threshold=2)  # noqa: E731
        unchanged(works, "is a repository already", act)

    def test_refreshing_needs_neither_root_nor_targets_key(self, works):
        for path in works.keyring.folder.glob("*.pem"):
            if path.stem not in ("snapshot", "timestamp"):
                path.unlink()
        version = works.state.timestamp.signed.version
        refresh(works.repository, works.keyring)
        assert works.state.timestamp.signed.version == version + 1
        audit(works.repository, works.root)


class TestKeys:
    @pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp", "signer"])
    def test_a_rotated_key_counts_no_more_and_the_chain_still_holds(self, works, role):
        old = works.keyring.of(role)[0]
        keyring, new = rotate(works.repository, works.keyring, old)
        assert new.key_id != old.key_id
        assert old not in read_keyring(works.keyring.folder).keys
        if role == "signer":
            with pytest.raises(VerificationError, match=r"signed by key .*, this machine trusts"):
                audit(works.repository, works.root)
            return
        assert old.key_id not in works.state.root.signed.roles[role].keyids
        audit(works.repository, works.root)
        assert keyring.of(role)

    def test_a_lost_root_key_is_replaced_by_the_two_others(self, works):
        lost = works.keyring.of("root")[0]
        (works.keyring.folder / "root_1.pem").unlink()
        rotate(works.repository, works.keyring, lost)
        audit(works.repository, works.root)

    def test_two_lost_root_keys_change_nothing_any_more(self, works):
        for name in ("root_1.pem", "root_2.pem"):
            (works.keyring.folder / name).unlink()
        act = lambda: rotate(works.repository, works.keyring, works.keyring.of("targets")[0])  # noqa: E731
        unchanged(works, "root: 1 of the 2 keys needed are at hand; bring the others together", act)

    def test_a_key_whose_role_would_be_left_without_is_not_revoked(self, works):
        for role, words in (("targets", "role targets: would have 0 keys, needs 1"), ("signer", "role signer")):
            entry = works.keyring.of(role)[0]
            unchanged(works, words, lambda entry=entry: revoke(works.repository, works.keyring, entry))

    def test_a_third_root_key_can_be_revoked(self, works):
        gone = works.keyring.of("root")[2]
        assert gone not in revoke(works.repository, works.keyring, gone).keys
        assert len(works.state.root.signed.roles["root"].keyids) == 2
        audit(works.repository, works.root)

    def test_a_role_can_move_to_a_key_in_the_environment(self, works, monkeypatch):
        private = Ed25519PrivateKey.generate()
        key = CryptoSigner(private).public_key
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        monkeypatch.setenv("TIMESTAMP_KEY", pem.decode())
        new = KeyEntry(role="timestamp", key_id=key.keyid, public=key.to_dict(), uri="env:TIMESTAMP_KEY")
        keyring, _ = rotate(works.repository, works.keyring, works.keyring.of("timestamp")[0], new=new)
        refresh(works.repository, keyring)
        assert works.state.timestamp.signatures.keys() == {key.keyid}
        audit(works.repository, works.root)

    def test_a_keyring_is_not_made_twice(self, works):
        with pytest.raises(ReleaseError, match="holds a keyring; a key is never overwritten"):
            create_keyring(works.keyring.folder, PASSPHRASE, root_keys=3)

    def test_a_keyring_that_is_none_is_told(self, tmp_path):
        with pytest.raises(ReleaseError, match=r"no keyring .*; make one with: tollgate release keys create"):
            read_keyring(tmp_path)
        (tmp_path / "keyring.json").write_text("{}")
        with pytest.raises(ReleaseError, match=r"keyring\.json: keys: is missing"):
            read_keyring(tmp_path)


class TestVerbs:
    def test_from_keys_to_a_vehicle_and_back_on_the_command_line(self, works, tmp_path, capsys):
        keys, repository = str(tmp_path / "keys"), str(tmp_path / "repository")
        assert main(["release", "keys", "create", "--output", keys, "--repository", repository, "--quiet"]) == 0
        works.factory.signer = CryptoSigner.generate_ed25519()
        capsys.readouterr()
        assert main(["release", "verify", repository, "--root", f"{repository}/metadata/1.root.json", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["releases"] == []
        given = ["--repository", repository, "--keys", keys, "--json"]
        assert main(["release", "refresh", *given]) == 0
        assert main(["release", "refresh", *given, "--targets"]) == 0
        timestamp = read_keyring(tmp_path / "keys").of("timestamp")[0].key_id
        assert main(["release", "keys", "rotate", timestamp[:10], *given]) == 0
        root = read_keyring(tmp_path / "keys").of("root")[0].key_id
        assert main(["release", "keys", "revoke", root[:10], *given]) == 0
        assert main(["release", "verify", repository, "--root", f"{repository}/metadata/1.root.json"]) == 0
        assert "root 3" in capsys.readouterr().out

    def test_a_key_elsewhere_takes_a_roles_place_on_the_command_line(self, works, tmp_path, monkeypatch):
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        monkeypatch.setenv("SNAPSHOT_KEY", pem.decode())
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "snapshot.pub").write_bytes(public)
        words = ["--repository", str(works.repository), "--keys", str(works.keyring.folder), "--quiet"]
        words += ["--uri", "env:SNAPSHOT_KEY", "--public-key", str(tmp_path / "snapshot.pub")]
        old = works.keyring.of("snapshot")[0].key_id
        assert main(["release", "keys", "rotate", old, *words]) == 0
        audit(works.repository, works.root)

    @pytest.mark.parametrize(
        ("words", "match"),
        [
            (["keys", "create"], "--output is missing"),
            (["keys", "rotate", "--keys", "KEYS"], "KEY_ID is missing"),
            (["keys", "create", "--output", "NEW", "--threshold", "4"], "--threshold: got 4, expected 1 to 3"),
            (
                ["offer", "nowhere", "--repository", "REPOSITORY", "--keys", "KEYS"],
                "has no release nowhere; it has null",
            ),
            (["refresh", "--repository", "NEW", "--keys", "KEYS"], "no repository; make one with"),
            (["verify", "REPOSITORY", "--root", "NEW/root.json"], "cannot be read"),
        ],
    )
    def test_misuse_is_one_line_and_changes_nothing(self, works, tmp_path, capsys, words, match):
        places = {"KEYS": works.keyring.folder, "REPOSITORY": works.repository, "NEW": tmp_path / "new"}
        before = snapshot(works.folder)
        assert main(["release", *(str(places.get(word, word)).replace("NEW", str(tmp_path)) for word in words)]) == 2
        said = capsys.readouterr().err
        assert match in said
        assert said.count("\n") == 1
        assert snapshot(works.folder) == before
