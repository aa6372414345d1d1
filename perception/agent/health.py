"""What the processes that run the model tell the agent, and what it makes of it.

Whoever runs the model holds a lock on `health/DRIVE.running` while it runs, and leaves `health/DRIVE.json` when it
ends. The kernel drops the lock of a process that dies, however it dies: a file that nobody holds is a crash.
"""

from __future__ import annotations

import fcntl
import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perception.agent.index import CommitRule
from perception.errors import EngineError, OutputError
from perception.files import cannot_write, json_bytes, write_atomically
from perception.pipeline import FrameResult, Status
from perception.record import RunHeader

HEALTH = "health"


class DriveReport(BaseModel):
    """How one drive went.

    Attributes:
        package_sha256: what ran.
        frames: published frames, skipped ones too.
        late: of them late or skipped.
        faults: things that should not have happened, told by whoever ran it; one is enough to fall back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-drive/1"] = "tollgate-drive/1"
    package_sha256: str
    frames: int = Field(ge=0)
    late: int = Field(ge=0)
    faults: tuple[str, ...] = ()


class HealthReporter:
    """A sink that tells the agent how a drive goes; see `perception.sinks.sink.Sink`."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin a drive.

        Args:
            path: the agent's folder `health`.
            header: says which package runs.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._package_sha256 = header.package_sha256
        self._counts: Counter[Status] = Counter()
        self._final = path / f"{uuid.uuid4().hex}.json"
        self._running: IO[str] | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._running = _locked(self._final.with_suffix(".running"), self._package_sha256)
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        self._counts[outcome.status] += 1

    def close(self) -> None:
        """See `Sink.close`."""
        self._end()

    def abort(self) -> None:
        """See `Sink.abort`. An interrupt or a lost camera is no fault of the model; what its engine raised is."""
        failure = sys.exc_info()[1]
        with suppress(OSError, OutputError):
            self._end((str(failure),) if isinstance(failure, EngineError) else ())

    def _end(self, faults: tuple[str, ...] = ()) -> None:
        if self._running is None:
            return
        late = self._counts[Status.LATE] + self._counts[Status.SKIPPED]
        report = DriveReport(
            package_sha256=self._package_sha256, frames=sum(self._counts.values()), late=late, faults=faults
        )
        write_report(self._final, report)
        self._final.with_suffix(".running").unlink(missing_ok=True)
        self._running.close()
        self._running = None


def write_report(path: Path, report: DriveReport) -> None:
    """Leave a report where the agent finds it.

    Raises:
        OutputError: the disk is full.
    """
    write_atomically(path, json_bytes(report.model_dump(mode="json")))


class Verdict(Enum):
    """What the commit window says so far."""

    WAIT = "wait"
    COMMIT = "commit"
    FALL_BACK = "fall back"


@dataclass(frozen=True, slots=True)
class Health:
    """All drives with one package.

    Attributes:
        drives: that ended.
        frames: published in them.
        late: of them late or skipped.
        faults: told, and crashes found.
    """

    drives: int
    frames: int
    late: int
    faults: tuple[str, ...]

    def verdict(self, rule: CommitRule, boots: int) -> tuple[Verdict, str]:
        """Whether to keep the release, and why."""
        if self.faults:
            return Verdict.FALL_BACK, self.faults[0]
        if boots - self.drives > rule.max_boots:
            return (
                Verdict.FALL_BACK,
                f"{boots} boots, {self.drives} drives that ended: it keeps restarting",
            )
        if self.frames < rule.frames:
            return Verdict.WAIT, f"{self.frames} of {rule.frames} frames"
        share = self.late / self.frames
        words = f"{self.late} of {self.frames} frames late or skipped, at most {rule.max_late:.2%} allowed"
        return (Verdict.COMMIT if share <= rule.max_late else Verdict.FALL_BACK), words


def health_of(folder: Path, package_sha256: str) -> Health:
    """What is known about a package's drives; reports that cannot be read count as faults."""
    drives, frames, late = 0, 0, 0
    faults = [f"the process that ran it died ({path.stem})" for path in _crashed(folder, package_sha256)]
    for path in sorted(folder.glob("*.json")):
        report = _report(path)
        if report is None:
            faults.append(f"{path.name} is no drive report")
        elif report.package_sha256 == package_sha256:
            drives, frames, late = drives + 1, frames + report.frames, late + report.late
            faults += report.faults
    return Health(drives, frames, late, tuple(faults))


def forget(folder: Path) -> None:
    """Remove the reports of drives that ended; their verdict stands in the journal."""
    for path in (*folder.glob("*.json"), *(path for path in folder.glob("*.running") if _abandoned(path))):
        path.unlink(missing_ok=True)


def _report(path: Path) -> DriveReport | None:
    try:
        return DriveReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _crashed(folder: Path, package_sha256: str) -> Iterator[Path]:
    for path in sorted(folder.glob("*.running")):
        with suppress(OSError):
            if _abandoned(path) and path.read_text() == package_sha256:
                yield path


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock; a file that goes away meanwhile was not abandoned."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False


def _locked(path: Path, content: str) -> IO[str]:
    """A file that appears locked and complete: it is locked under another name first."""
    hidden = path.with_name(f".{path.name}")
    file = hidden.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(content)
    file.flush()
    hidden.rename(path)
    return file
