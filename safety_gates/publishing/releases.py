"""Put signed releases into a repository, and say which of them the vehicles shall run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.agent.index import (
    CURRENT,
    INDEX,
    SIGNERS,
    SMOKE,
    CommitRule,
    Current,
    IndexedFile,
    OnDeviceBuild,
    ReleaseIndex,
    Signers,
    Tolerance,
    parse_document,
    target_name,
)
from perception.agent.smoke import record
from perception.errors import ReleaseError
from perception.files import json_bytes, sha256_of_bytes, sha256_of_file
from perception.frame import Frame
from perception.release_client import VerifiedRelease, verify_release
from perception.telemetry_record import Reference
from safety_gates.publishing.keyring import Keyring
from safety_gates.publishing.repository import Change, Content, State, change, read_state, read_target
from safety_gates.publishing.signing import Now, utc_now

LONGEST_NAME = 64  # as plans and drive records have them


@dataclass(frozen=True, slots=True)
class Terms:
    """What a release asks of the vehicles that try it.

    Attributes:
        tolerance: how far their outputs may be from the recorded ones.
        commit: when they keep it.
        build: the engine they make themselves; None where the package carries it.
        reference: what their drives are held against; None leaves drift out of their records.
    """

    tolerance: Tolerance
    commit: CommitRule
    build: OnDeviceBuild | None = None
    reference: Reference | None = None


def publish(
    folder: Path,
    keyring: Keyring,
    release: Path,
    *,
    frames: Sequence[Frame],
    terms: Terms,
) -> ReleaseIndex:
    """Add a signed release to a repository; no vehicle runs it before it is offered.

    Args:
        folder: the repository.
        keyring: its targets, snapshot and timestamp keys.
        release: what `tollgate release sign` wrote.
        frames: of the smoke run.
        terms: what is asked of the vehicles.

    Raises:
        VerificationError: it is no release, or not signed by a signer that the repository names.
        ReleaseError: it was published before; or as `change`.
        EngineError: the engine failed on the smoke frames.
    """
    state = read_state(folder)
    verified = verify_release(release, trusted_signers(folder, state).public_keys())
    smoke = record(verified.package, frames)
    index = _index(verified, smoke, terms)
    if target_name(index.name, INDEX) in state.targets.signed.targets:
        raise ReleaseError(
            f"{folder}: release {index.name} was published before; offer it with: tollgate release offer"
        )
    add: dict[str, Content] = {target_name(index.name, file.path): release / file.path for file in index.files}
    add[target_name(index.name, SMOKE)] = smoke
    add[target_name(index.name, INDEX)] = json_bytes(index.model_dump(mode="json"))
    change(folder, keyring, Change(add=add, expected_version=state.version))
    return index


def offer(folder: Path, keyring: Keyring, name: str, *, now: Now = utc_now) -> ReleaseIndex:
    """Let every vehicle of a release's profile run it; also how vehicles return to an older one.

    The metadata that says so is newer than all before. So vehicles follow it back to an older release, while whoever
    shows them old metadata is refused.

    Raises:
        ReleaseError: there is no such release; or as `change`.
    """
    state = read_state(folder)
    index = published(folder, state, name)
    current = current_releases(folder, state)
    releases = {**current.releases, index.profile: index.name}
    document = json_bytes(Current(releases=releases).model_dump(mode="json"))
    change(folder, keyring, Change(add={CURRENT: document}, expected_version=state.version), now=now)
    return index


def published(folder: Path, state: State, name: str) -> ReleaseIndex:
    """The index of a release in the repository.

    Raises:
        ReleaseError: there is none of that name.
    """
    content = read_target(folder, state, target_name(name, INDEX))
    if content is None:
        known = ", ".join(release_names(state)) or "none"
        raise ReleaseError(f"{folder}: has no release {name}; it has {known}")
    return parse_document(ReleaseIndex, content, where=target_name(name, INDEX))


def release_names(state: State) -> list[str]:
    """The names of all releases in a repository."""
    names = (name.split("/") for name in state.targets.signed.targets)
    return sorted(parts[1] for parts in names if parts[0] == "releases" and parts[-1] == INDEX and len(parts) == 3)


def current_releases(folder: Path, state: State) -> Current:
    """Profile → release."""
    content = read_target(folder, state, CURRENT)
    return Current() if content is None else parse_document(Current, content, where=CURRENT)


def trusted_signers(folder: Path, state: State) -> Signers:
    """Whose signature under a statement counts.

    Raises:
        ReleaseError: the repository names nobody.
    """
    content = read_target(folder, state, SIGNERS)
    if content is None:
        raise ReleaseError(f"{folder}: names no signer of statements; make the repository anew")
    return parse_document(Signers, content, where=SIGNERS)


def _index(verified: VerifiedRelease, smoke: bytes, terms: Terms) -> ReleaseIndex:
    package = verified.package
    files = sorted(path for path in verified.folder.rglob("*") if path.is_file())
    suffix = f"-{package.profile.name}-{verified.statement_sha256[:12]}"
    model = re.sub(r"[^A-Za-z0-9._-]", "_", package.manifest.name).lstrip("._-") or "model"
    return ReleaseIndex(
        name=f"{model[: LONGEST_NAME - len(suffix)]}{suffix}",
        profile=package.profile.name,
        package_sha256=package.sha256,
        files=tuple(
            IndexedFile(
                path=path.relative_to(verified.folder).as_posix(),
                sha256=sha256_of_file(path),
                bytes=path.stat().st_size,
            )
            for path in files
        ),
        smoke=IndexedFile(path=SMOKE, sha256=sha256_of_bytes(smoke), bytes=len(smoke)),
        tolerance=terms.tolerance,
        commit=terms.commit,
        build=terms.build,
        reference=terms.reference,
    )
