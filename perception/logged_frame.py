"""One frame of a run log: what was published, as the fields of its line, and back; see `perception.record`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame
from perception.pipeline import FrameResult, Instants, Status, Timings
from perception.results import Detections, Result, SegmentationMap

_NO_INSTANTS = Instants()


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


def fields_from_frame(outcome: FrameResult) -> dict[str, object]:
    """A published frame as the fields of its line."""
    return _fields(outcome.frame, outcome)


def fields_from_logged(logged: LoggedFrame) -> dict[str, object]:
    """A logged frame as the fields of its line: what `frame_from_fields` read."""
    return _fields(logged, logged)


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
