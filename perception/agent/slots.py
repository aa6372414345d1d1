"""The two slots on disk: filled whole or not at all, and links to what is in use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import SSlibKey

from perception.agent.index import INDEX, RELEASE, SMOKE, IndexedFile, ReleaseIndex, parse_document
from perception.agent.journal import Journal, SlotName, SlotRecord, read_journal
from perception.agent.workshop import BUILT, EVIDENCE, WORK, SlotEvidence
from perception.errors import UpdateError, VerificationError
from perception.files import cannot_write, json_bytes, sha256_of_bytes, staged_folder, sync_folder
from perception.package import EnginePackage, open_package
from perception.release_client import verify_release
from perception.telemetry_record import Reference

SLOTS, ACTIVE, SHADOW = "slots", "active", "shadow"
_WRITTEN_ALONE = (".", SLOTS, "spool")  # folders in which nobody but the agent writes

Prepare = Callable[[Path], SlotEvidence]


class SmokeFailure(VerificationError):
    """A release that verifies, and that does not do on this machine what it did where it was judged."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A release that was downloaded.

    Attributes:
        index: what it consists of.
        index_bytes: the index as it was signed.
        files: sha256 → downloaded file.
        signers: whose signature under its statement counts.
    """

    index: ReleaseIndex
    index_bytes: bytes
    files: Mapping[str, Path]
    signers: Mapping[str, SSlibKey]


def fill(folder: Path, incoming: Incoming, *, prepare: Prepare) -> SlotRecord:
    """Put a release into a slot: copy, verify, try; only then the slot takes its place.

    Raises:
        SmokeFailure: it fails its smoke run.
        VerificationError: it does not verify.
        OutputError: the disk is full; an older slot stands.
    """
    index = incoming.index
    with staged_folder(folder) as staged:
        _lay_out(staged, incoming)
        package = verify_release(staged / RELEASE, incoming.signers).package
        if (package.sha256, package.profile.name) != (index.package_sha256, index.profile):
            raise VerificationError(
                f"{index.name}: the index speaks of package {index.package_sha256[:16]}… for {index.profile}, the "
                f"release holds {package.sha256[:16]}… for {package.profile.name}; publish it again"
            )
        evidence = prepare(staged)
        if evidence.reason:
            raise SmokeFailure(f"{index.name}: {evidence.reason}; this vehicle keeps what it runs")
        shutil.rmtree(staged / WORK, ignore_errors=True)
        (staged / EVIDENCE).write_bytes(json_bytes(evidence.model_dump(mode="json")))
    return SlotRecord(
        release=index.name,
        index_sha256=sha256_of_bytes(incoming.index_bytes),
        package_sha256=evidence.package_sha256,
        released_sha256=index.package_sha256,
        runs=f"{RELEASE}/package" if index.build is None else BUILT,
        commit=index.commit,
    )


def package_in(state: Path, name: SlotName, record: SlotRecord) -> EnginePackage:
    """Open what a slot runs, every byte compared.

    Raises:
        PackageError, VerificationError: it is not what was put there.
    """
    package = open_package(state / SLOTS / name / record.runs)
    if package.sha256 != record.package_sha256:
        raise VerificationError(
            f"slot {name}: holds package {package.sha256[:16]}…, the journal says {record.package_sha256[:16]}…; "
            "it was altered: do not run it"
        )
    return package


def active_package(state: Path) -> EnginePackage:
    """What this vehicle shall run.

    Raises:
        UpdateError: no release was installed yet.
        PackageError, VerificationError: the slot is not what was put there.
    """
    journal = read_journal(state)
    if journal.active is None or journal.running is None:
        raise UpdateError(f"{state}: no release is installed; run: tollgate agent {state} --once")
    return package_in(state, journal.active, journal.running)


def follow(state: Path, journal: Journal) -> None:
    """Let the links lead where the journal says, each by one rename.

    Raises:
        OutputError: the disk is full; the links stand.
    """
    for link, slot in ((ACTIVE, journal.active), (SHADOW, journal.shadow)):
        wanted = None if slot is None else f"{SLOTS}/{slot}/{journal.slots[slot].runs}"
        try:
            _point(state / link, wanted)
        except OSError as error:
            raise cannot_write(state / link, error) from error


def read_evidence(state: Path, name: SlotName) -> SlotEvidence:
    """What was measured when a slot was filled."""
    return SlotEvidence.model_validate_json((state / SLOTS / name / EVIDENCE).read_bytes())


def reference_in(state: Path, name: SlotName, record: SlotRecord) -> Reference | None:
    """What drives with a slot's release are held against, from the index as it was signed; None where it has none."""
    try:
        content = (state / SLOTS / name / INDEX).read_bytes()
    except OSError:
        return None
    if sha256_of_bytes(content) != record.index_sha256:
        return None
    return parse_document(ReleaseIndex, content, where=f"slot {name}").reference


def tidy(state: Path) -> None:
    """Remove what processes that died were writing. Only for whoever holds the vehicle's lock."""
    for leftover in (leftover for folder in _WRITTEN_ALONE for leftover in (state / folder).glob(".*")):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with suppress(OSError):
                leftover.unlink()


def _lay_out(staged: Path, incoming: Incoming) -> None:
    (staged / INDEX).write_bytes(incoming.index_bytes)
    (staged / RELEASE / "package").mkdir(parents=True)
    for file in incoming.index.files:
        _place(incoming.files, file, staged / RELEASE / file.path)
    _place(incoming.files, incoming.index.smoke, staged / SMOKE)


def _place(files: Mapping[str, Path], file: IndexedFile, path: Path) -> None:
    """A link where the file system has links: a vehicle's disk need not hold a release twice."""
    try:
        os.link(files[file.sha256], path)
    except OSError:
        shutil.copyfile(files[file.sha256], path)


def _point(link: Path, wanted: str | None) -> None:
    found = str(link.readlink()) if link.is_symlink() else None
    if found == wanted:
        return
    if wanted is None:
        link.unlink()
    else:
        fresh = link.with_name(f".{link.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(wanted)
        fresh.replace(link)
    sync_folder(link.parent)
