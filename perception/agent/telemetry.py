"""From drive reports to signed records: numbered, signed by this vehicle, spooled, sent when there is a network.

A process that dies anywhere here counts no drive twice and loses none: a report is renamed to its number first, its
record is made of the report and the journal alone, and so comes out the same when it is made again.

A vehicle's key is a file in its folder: nobody could type a passphrase there. Its public half goes to the fleet's owner
once, when the vehicle is made.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner

from perception.agent.companion import ShadowReport
from perception.agent.health import HEALTH, SPOOLED, DriveReport, reports_in
from perception.agent.journal import Event, Journal, SlotName, SlotRecord, read_journal
from perception.agent.slots import read_evidence, reference_in
from perception.agent.wanted import Vehicle
from perception.cohort import ReleaseRef
from perception.distributions import drift_of
from perception.errors import UpdateError
from perception.files import cannot_write, write_atomically
from perception.telemetry_record import DriveRecord, Shadow, SlotEvent, sign_record
from perception.telemetry_spool import Delivery, Spool

SPOOL, KEY = "spool", "vehicle.pem"
NUMBERED = "numbered-"
EVENTS = 16


@dataclass(frozen=True, slots=True)
class Reporter:
    """Turns what was driven into records.

    Attributes:
        state: the vehicle's folder.
        vehicle: who signs.
    """

    state: Path
    vehicle: Vehicle

    def collect(self) -> int:
        """Spool a record for every drive that ended and was not spooled yet; returns how many.

        Raises:
            OutputError: the disk is full; the reports wait.
            UpdateError: the vehicle's key cannot be read.
        """
        folder, journal = self.state / HEALTH, read_journal(self.state)
        fresh = [(path, report) for path, report in reports_in(folder) if not path.name.startswith(SPOOLED)]
        if not fresh:
            return 0
        spool, signer = Spool(self.state / SPOOL, self.vehicle.vehicle_id), vehicle_signer(self.state)
        for path, report in fresh:
            numbered = path if path.name.startswith(NUMBERED) else _numbered(path, spool.reserve())
            sequence = int(numbered.stem.removeprefix(NUMBERED))
            record = None if report is None else self._record(report, journal, sequence)
            if record is not None:
                spool.put(sequence, sign_record(record, signer))
            _rename(numbered, SPOOLED)
        return len(fresh)

    def upload(self, url: str) -> Delivery:
        """Send what waits.

        Raises:
            OutputError: a record that was sent cannot be removed.
        """
        return Spool(self.state / SPOOL, self.vehicle.vehicle_id).upload(url)

    def _record(self, report: DriveReport, journal: Journal, sequence: int) -> DriveRecord | None:
        """The record of a drive; None where what drove was not a release of this vehicle."""
        found = _slot_of(report.package_sha256, journal)
        if found is None:
            return None
        name, slot = found
        place = journal.place
        reference = reference_in(self.state, name, slot)
        return DriveRecord(
            vehicle_id=self.vehicle.vehicle_id,
            sequence=sequence,
            started_ns=report.started_ns,
            duration_s=min(report.duration_s, 7 * 86400.0),
            rollout=None if place is None else place.rollout,
            role=None if place is None else place.role,
            release=ReleaseRef(name=slot.release, sha256=slot.released_sha256),
            profile=self.vehicle.profile,
            versions={_label(library): _label(version) for library, version in report.versions.items()},
            ended=report.ended,
            frames=report.frames,
            late=report.late,
            skipped=report.skipped,
            latency=report.latency,
            faults=Counter(_label(fault.partition(":")[0]) for fault in report.faults),
            shadow=None if report.shadow is None else _shadow(report.shadow, journal),
            input_drift=drift_of(report.input, None if reference is None else reference.input),
            output_drift=drift_of(report.output, None if reference is None else reference.output),
            temperature_max_c=report.temperature_c,
            slot_events=tuple(_slot_event(event) for event in journal.events[-EVENTS:]),
            smoke=self._smoke(name, slot),
        )

    def _smoke(self, name: SlotName, slot: SlotRecord) -> dict[str, float]:
        """What was measured on this device before the release was used."""
        try:
            evidence = read_evidence(self.state, name)
        except (OSError, ValidationError):
            return {}
        if evidence.package_sha256 != slot.package_sha256:
            return {}
        return {check.name: check.got for check in evidence.checks if check.got is not None}


def vehicle_signer(state: Path) -> CryptoSigner:
    """This vehicle's key, made at the first call; its public half lies beside it as `vehicle.pub`.

    Raises:
        OutputError: the folder cannot be written.
        UpdateError: the file is no key.
    """
    path = state / KEY
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_atomically(path.with_suffix(".pub"), public)
        _write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), None))
    except (OSError, ValueError, TypeError) as error:
        raise UpdateError(f"{path}: no private key in PEM; move it away, and enrol this vehicle anew") from error


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    fresh = path.with_name(f".{path.name}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise cannot_write(path, error) from error


def _numbered(path: Path, sequence: int) -> Path:
    return _renamed(path, path.with_name(f"{NUMBERED}{sequence:020d}.json"))


def _rename(path: Path, prefix: str) -> Path:
    return _renamed(path, path.with_name(prefix + path.name.removeprefix(NUMBERED)))


def _renamed(path: Path, target: Path) -> Path:
    try:
        return path.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error


def _slot_of(package_sha256: str, journal: Journal) -> tuple[SlotName, SlotRecord] | None:
    return next(((name, slot) for name, slot in journal.slots.items() if slot.package_sha256 == package_sha256), None)


def _shadow(report: ShadowReport, journal: Journal) -> Shadow | None:
    """None where the shadow was not a release of this vehicle."""
    found = _slot_of(report.package_sha256, journal)
    if found is None:
        return None
    release = ReleaseRef(name=found[1].release, sha256=found[1].released_sha256)
    return Shadow(release=release, compared=report.compared, agreed=report.agreed, shed=report.shed)


def _slot_event(event: Event) -> SlotEvent:
    return SlotEvent(
        at_ns=event.at_s * 1_000_000_000, slot=event.slot or "none", event=event.what, release=_label(event.release)
    )


def _label(text: str) -> str:
    """As records want names: 64 plain characters at most."""
    return re.sub(r"[^A-Za-z0-9 _.:/+-]", "_", text)[:64].lstrip(" _.:/+-") or "unknown"
