"""The run log: what went in, what came out and what it cost, one JSON line a frame.

::

    {"format":"tollgate-run/1","package_sha256":…,"engine_sha256":…,"recording":{…},"profile":…,"classes":[…], …}
    {"model":"","camera_id":"front","frame_id":0,"captured_ns":…,"name":"000000","result":{…},"timing":{…}}
    …
    {"summary":{"complete":true,"frames":300,"results_sha256":…}}

`result` is one of ::

    {"boxes_px":[[x1,y1,x2,y2],…],"scores":[…],"class_ids":[…]}              shortest digits that give the same float32
    {"width_px":…,"height_px":…,"grid":[h,w],"runs":[class,length,class,length,…]}           row by row over the grid
    null                                                                          the frame was skipped, or a fault

Everything that depends on the clock stands under `timing`, the status too, since it says whether a frame came late. Two
lock-step runs of one package over one recording are equal byte for byte without it, and `results_sha256` is the digest
of exactly that: the frame lines, `timing` left out.

A log ends with its summary. One without it was cut off, and is refused; one that says `complete: false` was ended by an
interrupt or a failure, holds every frame until then, and never stands where a complete one was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import EvidenceError
from perception.logged_frame import LoggedFrame, frame_from_fields
from perception.package import EnginePackage
from perception.pipeline import FrameResult, Instants, Status, Timings
from perception.sources.cameras import is_live, named
from perception.sources.digest import sha256_of_recording
from perception.sources.source import Camera
from perception.sources.table import kind_and_path

_LIBRARIES = ("tollgate", "numpy", "opencv-python", "av", "onnxruntime", "tensorrt")
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordingEntry(_Strict):
    """Which recording: its name, and the digest of all its bytes (`sha256_of_recording`); None where it is live."""

    name: str
    sha256: str | None = Field(pattern=_SHA256)


class RunHeader(_Strict):
    """The conditions of a run; nothing of it depends on the clock.

    Attributes:
        package_sha256: digest of the package's manifest.
        engine_sha256: digest of the engine's bytes.
        files: every other file of the package → its digest.
        recording: what was played.
        clocks: camera → what its `captured_ns` are, in the words of `perception.sources.source.Clock`.
        clock: what `timing` tells: `measured` on this machine, or `simulated`, where work takes no time.
        profile: name of the hardware profile.
        classes: what class ids mean.
        versions: library → version.
        options: what else the run was told, by the option's name.
    """

    format: Literal["tollgate-run/1"] = "tollgate-run/1"
    package_sha256: str = Field(pattern=_SHA256)
    engine_sha256: str = Field(pattern=_SHA256)
    files: dict[str, str] = Field(default_factory=dict)
    recording: RecordingEntry
    clocks: dict[str, str] = Field(default_factory=dict)
    clock: Literal["measured", "simulated"] = "measured"
    profile: str
    classes: tuple[str, ...]
    versions: dict[str, str]
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        package: EnginePackage,
        recording: Path,
        *,
        options: Mapping[str, JsonValue],
        cameras: Sequence[Camera] = (),
        simulated: bool = False,
    ) -> RunHeader:
        """The header for a package played over the recording at a path, as `open_source` takes it.

        Args:
            package: what runs.
            recording: what is played.
            options: what else the run was told.
            cameras: the cameras that are read.
            simulated: work takes no time in this log.

        Raises:
            SourceError: the recording cannot be read.
        """
        return cls(
            package_sha256=package.sha256,
            engine_sha256=package.engine_sha256,
            files={name: entry.sha256 for name, entry in sorted(package.manifest.files.items())},
            recording=_recording_entry(recording),
            clocks={camera.camera_id: camera.clock.value for camera in cameras},
            clock="simulated" if simulated else "measured",
            profile=package.profile.name,
            classes=package.spec.classes,
            versions=_versions(),
            options=dict(options),
        )


class RunSummary(_Strict):
    """How a run ended.

    Attributes:
        complete: False where an interrupt or a failure ended it.
        frames: number of frame lines.
        results_sha256: digest of the frame lines without `timing`: equal for equal results.
    """

    complete: bool
    frames: int
    results_sha256: str = Field(pattern=_SHA256)


@dataclass(frozen=True, slots=True)
class RunLog:
    """A whole run log, checked against its summary."""

    header: RunHeader
    frames: tuple[LoggedFrame, ...]
    summary: RunSummary


def read_run_log(path: Path) -> RunLog:
    """Read a run log and compare it with its own summary.

    A log of an interrupted run is read too: look at `summary.complete`.

    Raises:
        EvidenceError: missing, cut off, altered, or no run log.
    """
    first, *lines = _lines(path)
    header = _header(first, path)
    summary = _summary(lines, path)
    digest, frames = sha256(), []
    for number, fields in enumerate(_parsed(lines[:-1], path, first_number=2), 2):
        try:
            frames.append(frame_from_fields(fields))
        except (KeyError, TypeError, ValueError) as error:
            raise EvidenceError(
                f"{path}:{number}: is no frame of a run log ({error!r}); record the run anew"
            ) from error
        digest.update(line_without_timing(fields))
    if (len(frames), digest.hexdigest()) != (summary.frames, summary.results_sha256):
        raise EvidenceError(
            f"{path}: got {len(frames)} frames of digest {digest.hexdigest()[:16]}…, its summary says "
            f"{summary.frames} of {summary.results_sha256[:16]}…; the log was altered: record the run anew"
        )
    return RunLog(header, tuple(frames), summary)


def line_of(fields: Mapping[str, object]) -> bytes:
    """One line of a log. Equal fields in equal order give equal bytes.

    Raises:
        ValueError: a number that is none; a pipeline lets none through.
    """
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def line_without_timing(fields: Mapping[str, object]) -> bytes:
    """A frame's line as `results_sha256` counts it."""
    return line_of({name: value for name, value in fields.items() if name != "timing"})


def incomplete_path(path: Path) -> Path:
    """Where an interrupted run leaves the log that was meant for `path`."""
    return path.with_name(f"{path.stem}.incomplete{path.suffix}")


def on_simulated_clock(outcome: FrameResult) -> FrameResult:
    """The same result on a clock that stands still while work is done: nothing is late, nothing is measured."""
    status = Status.ON_TIME if outcome.status is Status.LATE else outcome.status
    return replace(outcome, status=status, timings=Timings(0, 0, 0, 0), instants=Instants(), age_ns=0)


def _recording_entry(recording: Path) -> RecordingEntry:
    if is_live(recording):
        return RecordingEntry(name=named(recording), sha256=None)
    _, place = kind_and_path(recording)
    return RecordingEntry(name=place.resolve().name, sha256=sha256_of_recording(place))


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvidenceError(
            f"{path}: cannot be read ({error.strerror}); record a run with: tollgate replay --log"
        ) from error
    if not content:
        raise EvidenceError(f"{path}: is empty, expected a run log; record the run anew")
    return content.splitlines()


def _header(line: bytes, path: Path) -> RunHeader:
    try:
        return RunHeader.model_validate_json(line)
    except ValidationError as error:
        raise EvidenceError(f"{path}:1: is no header of a run log ({complaints_of(error)}); name a run log") from error


def _summary(lines: Sequence[bytes], path: Path) -> RunSummary:
    try:
        return RunSummary.model_validate(json.loads(lines[-1])["summary"])
    except ValidationError as error:
        raise EvidenceError(f"{path}: summary: {complaints_of(error)}; record the run anew") from error
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise EvidenceError(
            f"{path}: ends after {len(lines) + 1} lines without a summary; the log was cut off: record the run anew"
        ) from error


def _parsed(lines: Sequence[bytes], path: Path, *, first_number: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, first_number):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise EvidenceError(f"{path}:{number}: is not JSON ({error}); record the run anew") from error


def _versions() -> dict[str, str]:
    """Python and the libraries that shape a result, as far as they are installed."""
    found = {"python": python_version()}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
