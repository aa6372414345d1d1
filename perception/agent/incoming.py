"""A release on its way to a slot: held against this vehicle first, then downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

from hw_profiles.machine import read_machine
from hw_profiles.preflight import check
from hw_profiles.profile import Profile
from perception.agent.index import SIGNERS, IndexedFile, ReleaseIndex, Signers, parse_document, target_name
from perception.agent.slots import Incoming
from perception.agent.trust import Repository
from perception.errors import OutputError, VerificationError
from perception.files import cannot_write
from perception.package import MANIFEST, PROFILE, Manifest

DOWNLOADS = "downloads"


def refuse_misfits(
    repository: Repository, index: ReleaseIndex, profile: str, *, machine_root: Path, state: Path
) -> None:
    """Hold a release against this vehicle and this machine before anything large is downloaded.

    Args:
        repository: where it is.
        index: what it consists of.
        profile: name of the profile that this vehicle satisfies.
        machine_root: whose /proc and /sys tell what this machine is.
        state: the vehicle's folder.

    Raises:
        VerificationError: it is of another profile.
        PreflightError: this machine may not run it, with every reason.
    """
    if index.profile != profile:
        raise VerificationError(
            f"release {index.name}: wrong profile: got {index.profile}, this vehicle is {profile}; "
            "nothing on this vehicle changed"
        )
    folder = downloads_of(state)
    content = {
        name: repository.fetch(target_name(index.name, f"package/{name}"), folder).read_bytes()
        for name in (PROFILE, MANIFEST)
    }
    wanted = Profile.from_yaml(content[PROFILE].decode(), where=f"{index.name}/{PROFILE}")
    manifest = parse_document(Manifest, content[MANIFEST], where=f"{index.name}/{MANIFEST}")
    check(wanted, read_machine(machine_root), manifest.engine.requires if index.build is None else {})


def download(repository: Repository, index: ReleaseIndex, content: bytes, *, state: Path) -> Incoming:
    """Bring every file of a release, going on where an earlier attempt stopped.

    Raises:
        VerificationError: a file is not what is signed.
        UpdateError: the server cannot be reached, or is too slow; what came is kept.
        OutputError: there is no room.
    """
    folder, files = downloads_of(state), (*index.files, index.smoke)
    _forget_others(folder, files)
    _refuse_without_room(folder, files)
    signers = repository.document(SIGNERS, folder)
    if signers is None:
        raise VerificationError(f"{SIGNERS}: the repository names nobody whose statements count; publish it again")
    return Incoming(
        index=index,
        index_bytes=content,
        files={file.sha256: _fetched(repository, index, file, folder) for file in files},
        signers=parse_document(Signers, signers, where=SIGNERS).public_keys(),
    )


def downloads_of(state: Path) -> Path:
    """The folder of files on their way, made where it is missing.

    Raises:
        OutputError: the disk is full.
    """
    folder = state / DOWNLOADS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def _forget_others(folder: Path, files: tuple[IndexedFile, ...]) -> None:
    """Keep files and parts of this release only, so that the folder never holds more than one."""
    kept = {file.sha256 for file in files}
    for path in folder.iterdir():
        if path.name.removesuffix(".part") not in kept:
            path.unlink()


def _fetched(repository: Repository, index: ReleaseIndex, file: IndexedFile, folder: Path) -> Path:
    path = repository.fetch(target_name(index.name, file.path), folder)
    if path.name != file.sha256:
        raise VerificationError(
            f"release {index.name}: mix-and-match: {file.path} is signed as {path.name[:16]}…, its index says "
            f"{file.sha256[:16]}…; nothing on this vehicle changed"
        )
    return path


def _refuse_without_room(folder: Path, files: tuple[IndexedFile, ...]) -> None:
    needed = sum(file.bytes for file in files if not (folder / file.sha256).exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder}: {free} bytes are free, the release needs {needed}; free space, nothing changed")
