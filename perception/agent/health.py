"""What the processes that run the model tell the agent, and what it makes of it.

Whoever runs the model holds a lock on `health/DRIVE.running` while it runs, and leaves `health/DRIVE.json` when it
ends. What the running file says is what would have to be said if the process died now. The kernel drops the lock of a
process that dies, however it dies, and then the agent renames the file: the crash has reported itself.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw_profiles.telemetry import sample
from perception.agent.companion import Cast, Companion, ShadowReport
from perception.agent.index import CommitRule
from perception.distributions import EVERY, InputCounts, OutputCounts
from perception.errors import EngineError, OutputError
from perception.files import cannot_write, json_bytes, write_atomically
from perception.latency import LatencyRecorder
from perception.pipeline import FrameResult, Status
from perception.record import RunHeader
from perception.telemetry_record import Counted, LatencyBuckets

HEALTH = "health"
SPOOLED = "spooled-"  # how the name of a report begins whose record was made
_NAMED = "[!.]*"  # not what is still being written beside its place


class DriveReport(BaseModel):
    """How one drive went.

    Attributes:
        package_sha256: what ran.
        started_ns: when, on this machine's clock, nanoseconds since 1970.
        duration_s: from the first frame to the last.
        frames: published frames, late and skipped ones among them; a shadow's are not.
        skipped: without a result of their own in time.
        latency: from due to usable result.
        faults: what should not have happened; one is enough to fall back.
        ended: "crash" where the process died.
        input, output: of the frames that were looked at; None after a crash. No output where the run reported objects
            from a score of its own on.
        shadow: None where none ran.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-drive-report/1"] = "tollgate-drive-report/1"
    package_sha256: str
    started_ns: int = Field(ge=0)
    duration_s: float = Field(ge=0, default=0.0)
    frames: int = Field(ge=0, default=0)
    late: int = Field(ge=0, default=0)
    skipped: int = Field(ge=0, default=0)
    latency: LatencyBuckets = LatencyBuckets()
    faults: tuple[str, ...] = ()
    ended: Literal["clean", "aborted", "crash"] = "crash"
    versions: dict[str, str] = Field(default_factory=dict)
    temperature_c: float | None = None
    input: Counted | None = None
    output: Counted | None = None
    shadow: ShadowReport | None = None


class HealthReporter:
    """A sink that tells the agent how a drive goes; see `perception.sinks.sink.Sink`."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin a drive.

        Args:
            path: the agent's folder.
            header: says which package runs.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._begun = DriveReport(
            package_sha256=header.package_sha256, started_ns=time.time_ns(), versions=dict(header.versions)
        )
        self._began_ns = time.monotonic_ns()
        self._counts: Counter[Status] = Counter()
        self._latency = LatencyRecorder()
        self._cast = Cast.of(header)
        self._input, self._output = InputCounts(), OutputCounts()
        self._companion = None if self._cast.shadow is None else Companion(*self._cast.shadow)
        self._final = path / HEALTH / f"{uuid.uuid4().hex}.json"
        self._running: IO[bytes] | None = None
        try:
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._running = hold_running(self._final.with_suffix(".running"), self._begun)
        except OSError as error:
            raise cannot_write(self._final.parent, error) from error

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        if outcome.model in self._cast.shadows:
            if self._companion is not None and outcome.model == self._companion.name:
                self._companion.shadowed(outcome)
            return
        self._counts[outcome.status] += 1
        own = outcome.result is not None and outcome.status is not Status.STALE
        if own:
            self._latency.record(outcome.timings.total_ns)
        if outcome.model == self._cast.drives:
            self._look(outcome, own=own)
            if self._companion is not None:
                self._companion.drove(outcome)

    def _look(self, outcome: FrameResult, *, own: bool) -> None:
        """Count what every fourth frame of a camera shows, and what was said about it."""
        if outcome.frame.frame_id % EVERY:
            return
        self._input.add(outcome.frame.pixels)
        if own and outcome.result is not None and not self._cast.own_score:
            self._output.add(outcome.result)

    def close(self) -> None:
        """See `Sink.close`."""
        self._end("clean")

    def abort(self) -> None:
        """See `Sink.abort`. An interrupt or a lost camera is no fault of the model; what its engine raised is."""
        failure = sys.exc_info()[1]
        faults = (f"EngineError: {failure}",) if isinstance(failure, EngineError) else ()
        with suppress(OSError, OutputError):
            self._end("aborted", faults)

    def _end(self, how: Literal["clean", "aborted"], faults: tuple[str, ...] = ()) -> None:
        if self._running is None:
            return
        report = self._begun.model_copy(
            update={
                "duration_s": (time.monotonic_ns() - self._began_ns) / 1e9,
                "frames": sum(self._counts.values()),
                "late": self._counts[Status.LATE],
                "skipped": self._counts[Status.SKIPPED] + self._counts[Status.STALE],
                "latency": LatencyBuckets.of(self._latency),
                "faults": faults,
                "ended": how,
                "temperature_c": sample().temperature_c,
                "input": self._input.counted(),
                "output": None if self._cast.own_score else self._output.counted(),
                "shadow": None if self._companion is None else self._companion.report(),
            }
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


def hold_running(path: Path, report: DriveReport) -> IO[bytes]:
    """A file that appears locked and complete; the lock holds until it is closed or its process dies.

    Raises:
        OSError: the disk is full.
    """
    hidden = path.with_name(f".{path.name}")
    file = hidden.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(json_bytes(report.model_dump(mode="json")))
    file.flush()
    hidden.rename(path)
    return file


def settle(folder: Path) -> None:
    """Let the drives whose processes died report themselves.

    Raises:
        OutputError: the disk fails.
    """
    for path in sorted(folder.glob(f"{_NAMED}.running")):
        try:
            if _abandoned(path):
                path.replace(path.with_suffix(".json"))
        except OSError as error:
            raise cannot_write(path, error) from error


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
    """What is known about a package's drives; a report that cannot be read counts as a fault."""
    drives, frames, late = 0, 0, 0
    faults: list[str] = []
    for path, report in reports_in(folder):
        if report is None:
            faults.append(f"{path.name} is no drive report")
        elif report.package_sha256 == package_sha256:
            crashed = report.ended == "crash"
            drives, frames = drives + (not crashed), frames + report.frames
            late += report.late + report.skipped
            faults += [f"the process that ran it died ({path.stem})"] if crashed else report.faults
    return Health(drives, frames, late, tuple(faults))


def reports_in(folder: Path) -> Iterator[tuple[Path, DriveReport | None]]:
    """The drives that ended, oldest name first; None where a report cannot be read."""
    for path in sorted(folder.glob(f"{_NAMED}.json")):
        try:
            yield path, DriveReport.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            yield path, None


def forget(folder: Path) -> None:
    """Remove the reports of drives whose records were made; their verdict stands in the journal."""
    for path in folder.glob(f"{SPOOLED}*.json"):
        path.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock; a file that goes away meanwhile was not abandoned."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False
