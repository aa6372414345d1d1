"""Check a repository folder off line, from its root to the last byte, by the vehicle's own code."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from perception.agent.download import FolderFetcher
from perception.agent.trust import Origin, refreshed
from perception.errors import VerificationError
from perception.files import sha256_of_file
from perception.release_client import verify_release
from safety_gates.publishing.releases import published, release_names, trusted_signers
from safety_gates.publishing.repository import State, read_state, target_path
from safety_gates.publishing.signing import Now, utc_now


@dataclass(frozen=True, slots=True)
class AuditedRelease:
    """A release that a vehicle would believe."""

    name: str
    profile: str
    package_sha256: str
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found right.

    Attributes:
        state: the metadata.
        files: targets whose bytes were compared.
        releases: whose statements were verified.
    """

    state: State
    files: int
    releases: tuple[AuditedRelease, ...]


def audit(folder: Path, root: bytes, *, now: Now = utc_now) -> Audit:
    """Verify metadata, every file, every release.

    Args:
        folder: the repository.
        root: the root metadata that vehicles were made with.
        now: the clock.

    Raises:
        VerificationError: the first thing that is wrong.
        ReleaseError: the folder is no repository.
    """
    state = read_state(folder)
    with tempfile.TemporaryDirectory() as scratch:
        origin = Origin(str(folder), root)
        refreshed(Path(scratch) / "trust", origin, fetcher=FolderFetcher(), now_s=int(now().timestamp()))
        for name in state.targets.signed.targets:
            _compare(folder, state, name)
        releases = tuple(_audited(folder, state, name, Path(scratch) / name) for name in release_names(state))
    return Audit(state, len(state.targets.signed.targets), releases)


def _compare(folder: Path, state: State, name: str) -> None:
    target = state.targets.signed.targets[name]
    path = target_path(folder, name, target)
    try:
        got = sha256_of_file(path)
    except OSError as error:
        raise VerificationError(f"{path}: cannot be read ({error.strerror}); restore the repository") from error
    if got != target.hashes["sha256"]:
        raise VerificationError(
            f"{path}: got sha256 {got[:16]}…, signed is {target.hashes['sha256'][:16]}…; restore the repository"
        )


def _audited(folder: Path, state: State, name: str, scratch: Path) -> AuditedRelease:
    index = published(folder, state, name)
    (scratch / "package").mkdir(parents=True)
    for file in index.files:
        target = state.targets.signed.targets.get(f"releases/{name}/{file.path}")
        if target is None or target.hashes["sha256"] != file.sha256:
            raise VerificationError(
                f"release {name}: {file.path} is not the file that its index names; publish it again"
            )
        _link(target_path(folder, target.path, target), scratch / file.path)
    verified = verify_release(scratch, trusted_signers(folder, state).public_keys())
    if verified.package.sha256 != index.package_sha256:
        raise VerificationError(f"release {name}: its index speaks of another package; publish it again")
    return AuditedRelease(name, index.profile, index.package_sha256, verified.claims)


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)
