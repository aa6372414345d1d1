"""A TUF repository as a folder of files: read, changed as one step, served by anything.

The order of writing makes it one step: target files and versioned metadata have new names and are seen by nobody until
`timestamp.json`, written last and by one rename, leads to them. A vehicle that reads meanwhile sees the state before.

    metadata/   N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    targets/    every file under the sha256 of its bytes

Source: The Update Framework specification 1.0, sections 4 and 6 (consistent snapshots).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import SerializationError

from perception.errors import ReleaseError
from perception.files import locked, staged_file, write_atomically
from safety_gates.publishing.keyring import KeyEntry, Keyring
from safety_gates.publishing.keyring import Role as RoleName
from safety_gates.publishing.signing import Now, sign, sign_root, signers_of, utc_now

METADATA, TARGETS, LOCK = "metadata", "targets", ".lock"
ROOT_THRESHOLD = 2
TUF_ROLES: tuple[RoleName, ...] = ("root", "targets", "snapshot", "timestamp")

Content: TypeAlias = "bytes | Path"


@dataclass(frozen=True, slots=True)
class State:
    """The newest metadata of a repository, as it lies on disk; not verified, see `publishing.audit`."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    @property
    def version(self) -> int:
        """Counts the changes of targets."""
        return int(self.targets.signed.version)


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different.

    Attributes:
        add: target name → bytes or file; replaces an older target of that name.
        remove: target names.
        expected_version: refuse where the repository has moved on from this version of targets.
    """

    add: Mapping[str, Content] = field(default_factory=dict)
    remove: frozenset[str] = frozenset()
    expected_version: int | None = None


def create_repository(folder: Path, keyring: Keyring, *, threshold: int, now: Now = utc_now) -> State:
    """An empty repository whose root names the keyring's keys.

    Raises:
        ReleaseError: there is one already, or the threshold cannot be reached.
        OutputError: the folder cannot be written.
    """
    if (folder / METADATA).exists():
        raise ReleaseError(f"{folder}: is a repository already; rotate its keys instead: tollgate release keys rotate")
    roles: dict[str, Role] = {role: Role([entry.key_id for entry in keyring.of(role)], 1) for role in TUF_ROLES}
    roles["root"] = Role([entry.key_id for entry in keyring.of("root")], threshold)
    keys = {entry.key_id: entry.key for role in TUF_ROLES for entry in keyring.of(role)}
    with _locked(folder):
        root = Metadata(Root(keys=keys, roles=roles, consistent_snapshot=True))
        state = State(root, Metadata(Targets()), Metadata(Snapshot()), Metadata(Timestamp()))
        sign_root(state.root, keyring, signed_before=None, now=now)
        _publish(folder, state, keyring, now=now)
    return state


def read_state(folder: Path) -> State:
    """The newest metadata.

    Raises:
        ReleaseError: no repository, or metadata that cannot be read.
    """
    metadata = folder / METADATA
    versions = sorted(int(path.name.split(".")[0]) for path in metadata.glob("*.root.json"))
    if not versions:
        raise ReleaseError(
            f"{folder}: no repository; make one with: tollgate release keys create --output KEYS --repository {folder}"
        )
    timestamp: Metadata[Timestamp] = _read(metadata / "timestamp.json")
    snapshot: Metadata[Snapshot] = _read(metadata / f"{timestamp.signed.snapshot_meta.version}.snapshot.json")
    targets: Metadata[Targets] = _read(metadata / f"{snapshot.signed.meta['targets.json'].version}.targets.json")
    return State(_read(metadata / f"{versions[-1]}.root.json"), targets, snapshot, timestamp)


def read_target(folder: Path, state: State, name: str) -> bytes | None:
    """The bytes of a target; None where there is none of that name.

    Raises:
        ReleaseError: the file is missing or not the one that is signed.
    """
    target = state.targets.signed.targets.get(name)
    if target is None:
        return None
    path = target_path(folder, name, target)
    try:
        content = path.read_bytes()
        target.verify_length_and_hashes(content)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror}); restore the repository") from error
    except RepositoryError as error:
        raise ReleaseError(f"{path}: is not the file that is signed; restore the repository") from error
    return content


def target_path(folder: Path, name: str, target: TargetFile) -> Path:
    """Where a target's file lies: its sha256 stands before its name."""
    parent, _, file = name.rpartition("/")
    return folder / TARGETS / parent / f"{target.hashes['sha256']}.{file}"


def change(folder: Path, keyring: Keyring, wanted: Change, *, now: Now = utc_now) -> State:
    """Change targets as one step: vehicles see all of it or nothing.

    Raises:
        ReleaseError: somebody else is publishing, or published meanwhile; or a key cannot be had.
        OutputError: the folder cannot be written; vehicles see the state before.
    """
    with _locked(folder):
        state = read_state(folder)
        if wanted.expected_version not in (None, state.version):
            raise ReleaseError(
                f"{folder}: somebody published meanwhile (version {state.version}, you saw {wanted.expected_version}); "
                "look at what is there now, and decide again"
            )
        targets = state.targets.signed.targets
        for name, content in wanted.add.items():
            targets[name] = _store(folder, name, content)
        for name in wanted.remove:
            targets.pop(name, None)
        state.targets.signed.version += 1
        _publish(folder, state, keyring, now=now)
        return state


def refresh(folder: Path, keyring: Keyring, *, now: Now = utc_now) -> State:
    """Sign snapshot and timestamp anew, so that vehicles know that nothing was held back from them.

    Needs neither root nor targets keys: it is what a timer does every day.

    Raises:
        ReleaseError, OutputError: as `change`.
    """
    with _locked(folder):
        state = read_state(folder)
        _publish(folder, state, keyring, now=now, roles=("snapshot", "timestamp"))
        return state


def replace_keys(
    folder: Path, keyring: Keyring, *, gone: Iterable[KeyEntry], new: Iterable[KeyEntry], now: Now = utc_now
) -> State:
    """A new root with other keys, signed by a threshold of the old and of the new root keys; all below signed anew.

    Args:
        folder: the repository.
        keyring: holds old and new keys.
        gone: keys that count no more.
        new: keys that count from now on.
        now: the clock.

    Raises:
        ReleaseError: a role would be left with fewer keys than its threshold, or too few root keys are at hand.
    """
    with _locked(folder):
        state = read_state(folder)
        before = Metadata.from_bytes(state.root.to_bytes())
        root = state.root.signed
        for entry in new:
            root.add_key(entry.key, entry.role)
        for entry in gone:
            root.revoke_key(entry.key_id, entry.role)
        for name, role in root.roles.items():
            if len(role.keyids) < role.threshold:
                raise ReleaseError(
                    f"role {name}: would have {len(role.keyids)} keys, needs {role.threshold}; rotate the key instead: "
                    "tollgate release keys rotate"
                )
        root.version += 1
        sign_root(state.root, keyring, signed_before=before, now=now)
        state.targets.signed.version += 1
        _publish(folder, state, keyring, now=now)
        return state


def _publish(
    folder: Path, state: State, keyring: Keyring, *, now: Now, roles: tuple[RoleName, ...] = TUF_ROLES
) -> None:
    """Sign everything, then write it, what leads to the rest last: a missing key stops it before the first byte."""
    snapshot, timestamp = state.snapshot.signed, state.timestamp.signed
    snapshot.version += 1
    timestamp.version += 1
    if "targets" in roles:
        sign(state.targets, signers_of(keyring, state.root, "targets"), now=now)
        snapshot.meta["targets.json"] = _meta(state.targets.signed.version, state.targets.to_bytes())
    sign(state.snapshot, signers_of(keyring, state.root, "snapshot"), now=now)
    timestamp.snapshot_meta = _meta(snapshot.version, state.snapshot.to_bytes())
    sign(state.timestamp, signers_of(keyring, state.root, "timestamp"), now=now)
    for role, metadata in (("targets", state.targets), ("snapshot", state.snapshot), ("root", state.root)):
        if role in roles:
            write_atomically(folder / METADATA / f"{metadata.signed.version}.{role}.json", metadata.to_bytes())
    write_atomically(folder / METADATA / "timestamp.json", state.timestamp.to_bytes())


def _meta(version: int, content: bytes) -> MetaFile:
    file = TargetFile.from_data("", content, ["sha256"])
    return MetaFile(version, file.length, file.hashes)


def _store(folder: Path, name: str, content: Content) -> TargetFile:
    """Put a target's bytes under their digest; they are not seen before metadata names them."""
    try:
        if isinstance(content, Path):
            target = TargetFile.from_file(name, str(content), ["sha256"])
        else:
            target = TargetFile.from_data(name, content, ["sha256"])
    except OSError as error:
        raise ReleaseError(f"{content!s}: cannot be read ({error.strerror}); nothing was published") from error
    path = target_path(folder, name, target)
    if not path.exists():
        with staged_file(path) as staged:
            if isinstance(content, Path):
                shutil.copyfile(content, staged)
            else:
                staged.write_bytes(content)
    return target


def _read(path: Path) -> Metadata[Any]:
    try:
        return Metadata.from_bytes(path.read_bytes())
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror}); restore the repository") from error
    except (SerializationError, RepositoryError) as error:
        raise ReleaseError(f"{path}: is no TUF metadata; restore the repository") from error


def _locked(folder: Path) -> AbstractContextManager[None]:
    """One publisher at a time."""
    busy = ReleaseError(f"{folder}: somebody else is publishing; wait until it is done")
    return locked(folder / LOCK, busy=busy)
