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

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import EvidenceError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import FrameResult, Instants, Status, Timings
from perception.results import Detections, Result, SegmentationMap
from perception.sources.cameras import is_live, named
from perception.sources.digest import sha256_of_recording
from perception.sources.source import Camera
from perception.sources.table import kind_and_path

_LIBRARIES = ("tollgate", "numpy", "opencv-python", "av", "onnxruntime", "tensorrt")
_NO_INSTANTS = Instants()
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
class LoggedFrame:
    """One frame as the log holds it: a `FrameResult` without the pixels."""

    camera_id: str
    frame_id: int
    captured_ns: int
    name: str
    result: Result | None
    timings: Timings
    status: Status
    deadline_ns: int
    model: str = ""
    instants: Instants = _NO_INSTANTS
    age_ns: int = 0
    causes: tuple[str, ...] = ()
    set_id: int | None = None
    skew_ns: int = 0


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


def fields_from_frame(outcome: FrameResult) -> dict[str, object]:
    """A published frame as the fields of its line."""
    return _fields(outcome.frame, outcome)


def _fields(frame: Frame | LoggedFrame, outcome: FrameResult | LoggedFrame) -> dict[str, object]:
    return {
        "model": outcome.model,
        "camera_id": frame.camera_id,
        "frame_id": frame.frame_id,
        "captured_ns": frame.captured_ns,
        "name": frame.name,
        "result": None if outcome.result is None else _fields_from_result(outcome.result),
        "timing": {
            "status": outcome.status.value,
            "deadline_ns": outcome.deadline_ns,
            **_as_fields(outcome.timings),
            **_as_fields(outcome.instants),
            "age_ns": outcome.age_ns,
            "causes": outcome.causes,
            "set_id": outcome.set_id,
            "skew_ns": outcome.skew_ns,
        },
    }


def frame_from_fields(fields: Mapping[str, Any]) -> LoggedFrame:
    """The inverse of `fields_from_frame`, but for the pixels.

    Raises:
        KeyError, TypeError, ValueError: not the fields of a frame.
    """
    timing = fields["timing"]
    return LoggedFrame(
        model=fields["model"],
        camera_id=fields["camera_id"],
        frame_id=int(fields["frame_id"]),
        captured_ns=int(fields["captured_ns"]),
        name=fields["name"],
        result=None if fields["result"] is None else _result_from_fields(fields["result"]),
        timings=Timings(**{name: timing[name] for name in Timings.__slots__}),
        status=Status(timing["status"]),
        deadline_ns=int(timing["deadline_ns"]),
        instants=Instants(**{name: timing[name] for name in Instants.__slots__}),
        age_ns=int(timing["age_ns"]),
        causes=tuple(timing["causes"]),
        set_id=timing["set_id"],
        skew_ns=int(timing["skew_ns"]),
    )


def _as_fields(record: Timings | Instants) -> dict[str, int]:
    return {name: getattr(record, name) for name in record.__slots__}


def fields_from_logged(logged: LoggedFrame) -> dict[str, object]:
    """A logged frame as the fields of its line: what `frame_from_fields` read."""
    return _fields(logged, logged)


def differing(before: object, after: object, *, place: str = "") -> Iterator[tuple[str, object, object]]:
    """The places where two trees of fields differ, each with both values; lists of another length differ as a whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(each for each in after if each not in before)]:
            inner = f"{place}.{name}" if place else str(name)
            yield from differing(before.get(name), after.get(name), place=inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differing(one, other, place=f"{place}[{index}]")
    elif before != after:
        yield place, before, after


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


def _fields_from_result(result: Result) -> dict[str, object]:
    if isinstance(result, SegmentationMap):
        return {
            "width_px": result.width_px,
            "height_px": result.height_px,
            "grid": list(result.class_ids.shape),
            "runs": _runs(result.class_ids),
        }
    return {
        "boxes_px": [_shortest(box) for box in result.boxes_px],
        "scores": _shortest(result.scores),
        "class_ids": result.class_ids.tolist(),
    }


def _result_from_fields(fields: Mapping[str, Any]) -> Result:
    if "runs" in fields:
        runs = np.asarray(fields["runs"], np.int64).reshape(-1, 2)
        class_ids = np.repeat(runs[:, 0].astype(np.uint8), runs[:, 1]).reshape(fields["grid"])
        return SegmentationMap(class_ids, int(fields["width_px"]), int(fields["height_px"]))
    return Detections(
        np.asarray(fields["boxes_px"], np.float32).reshape(-1, 4),
        np.asarray(fields["scores"], np.float32),
        np.asarray(fields["class_ids"], np.int32),
    )


def _shortest(numbers: NDArray[np.float32]) -> list[float]:
    """Numbers whose JSON has the fewest digits that give the same float32 back."""
    return [float(str(number)) for number in numbers]


def _runs(class_ids: NDArray[np.uint8]) -> list[int]:
    """Class and length of each run of equal cells, row by row."""
    cells = class_ids.ravel()
    starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]])[: cells.size]
    lengths = np.diff(np.r_[starts, cells.size])
    runs: list[int] = np.stack([cells[starts].astype(np.int64), lengths], axis=1).ravel().tolist()
    return runs


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
