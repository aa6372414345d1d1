"""The gate of sensor faults: does the vehicle notice a broken camera, stay calm, and come back.

Faults are planted into stretches of the recordings that latency is measured on: black, saturated, frozen, torn and
wrong-sized pictures, an engine whose numbers are none, frames dropped, duplicated, out of order, a jump of the clock.
The camera's health must flag each within a number of frames; no object may be reported with confidence that the sound
pictures do not show, unless the picture is flagged as unfit; and once sound frames come again, flags must go and
results be as if nothing had been.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from statistics import median
from typing import TypeAlias

import numpy as np
import pycocotools.mask as mask
from numpy.typing import NDArray
from pydantic import JsonValue

from perception.camera_health import UNFIT, Ailment, CameraHealth
from perception.engines.engine import Engine, TensorInfo, Tensors
from perception.errors import EngineError
from perception.frame import Frame
from perception.pipeline import Pipeline, open_pipeline
from perception.results import Detections, Result
from safety_gates.evidence import KeptEvidence
from safety_gates.faults import FAULTS, LENGTH, Arrival, Fault
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Observation
from safety_gates.statistics import clustered_proportion_interval
from safety_gates.trial import TIMING_ALONE, Trial
from safety_gates.verdict import Measured

MOST_STRETCHES = 5
CONFIDENT, SEEN, OVERLAP = 0.5, 0.1, 0.3
NEVER = -1
COLUMNS = ("delay", "recovery", "ghosts", "blind_ghosts", "alarms", "sound_frames")
QUANTITIES: Mapping[str, Quantity] = {
    "unflagged": Quantity("count", "at_most", None, "planted faults that the camera's health never flags"),
    "flag_delay": Quantity("frames", "at_most", None, "frames that come before a fault is flagged, the worst fault"),
    "recovery": Quantity(
        "frames", "at_most", None, "sound frames until flags are gone and results right, the worst fault"
    ),
    "ghosts": Quantity(
        "count", "at_most", "detection", "confident objects that no sound picture shows, on pictures not flagged unfit"
    ),
    "blind_ghosts": Quantity("count", "at_most", "detection", "confident objects on black and saturated pictures"),
    "false_alarms": Quantity("ratio", "at_most", None, "share of sound frames that are flagged as unfit"),
}


class SensorFaultsGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Plant every fault into every stretch."""
        settings: dict[str, JsonValue] = {"faults": [*FAULTS], "stretches": MOST_STRETCHES, "confident": CONFIDENT}
        wanted = trial.conditions("sensor_faults", looks_at=TIMING_ALONE, settings=settings)
        kept = trial.obtain(wanted, lambda: _observe(trial))
        if kept.evidence.samples == 0:
            return Unmeasured(f"no {LENGTH} frames of one camera and size follow each other; give a longer recording")
        return kept

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Counts over all planted faults, and the worst of each kind."""
        columns = {name: np.asarray(evidence.arrays[name], np.int64) for name in COLUMNS}
        names = [str(name) for name in evidence.arrays["fault"]]
        found = {
            "unflagged": _count(columns["delay"] == NEVER, names, evidence),
            "flag_delay": _worst(columns["delay"], names, evidence),
            "recovery": _worst(columns["recovery"], names, evidence),
            "ghosts": _count(columns["ghosts"], names, evidence),
            "blind_ghosts": _count(columns["blind_ghosts"], names, evidence),
            "false_alarms": _alarms(columns, evidence),
        }
        return {name: found[name] for name in wanted}


Heard: TypeAlias = tuple[frozenset[Ailment], Result | None]


@dataclass(frozen=True, slots=True)
class _Episode:
    """What one planted fault did; the fields are `COLUMNS`."""

    delay: int
    recovery: int
    ghosts: int
    blind_ghosts: int
    alarms: int
    sound_frames: int


class _Spoilable:
    """A package's engine, whose float outputs become NaN while `spoilt`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.spoilt = False
        self.inputs: tuple[TensorInfo, ...] = engine.inputs
        self.outputs: tuple[TensorInfo, ...] = engine.outputs

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        tensors = self._engine.infer(feeds)
        if not self.spoilt:
            return tensors
        return {
            name: np.full_like(value, np.nan) if np.issubdtype(value.dtype, np.floating) else value
            for name, value in tensors.items()
        }

    def close(self) -> None:
        """See `Engine.close`; the engine stays its owner's."""


class _Bench:
    """A pipeline that faults are played to, and what it says about the sound stretch."""

    def __init__(self, pipeline: Pipeline, engine: _Spoilable, stretch: Sequence[Frame]) -> None:
        self._pipeline, self._engine, self._stretch = pipeline, engine, stretch
        self._clean = [pipeline.step(frame).result for frame in stretch]

    def episode(self, fault: Fault) -> _Episode:
        """Play one fault and judge what came of it."""
        arrivals = fault.plant(self._stretch)
        heard = list(self._heard(arrivals, self._health()))
        faulty = [place for place, each in enumerate(arrivals) if each.faulty]
        sound_places = [place for place, each in enumerate(arrivals) if not each.faulty]
        flagged = [fault.flag in flags for flags, _ in heard]
        if fault.flag is None:
            flagged = [result is None for _, result in heard]
        well = [not flags and self._as_sound(arrivals[place], result) for place, (flags, result) in enumerate(heard)]
        unfit = [bool(flags & UNFIT) or result is None for flags, result in heard]
        blind = [place for place in faulty if not arrivals[place].shows]
        return _Episode(
            delay=_first(flagged[faulty[0] :]),
            recovery=_first(well[faulty[-1] + 1 :]),
            ghosts=sum(self._ghosts(arrivals[place], heard[place][1]) for place in faulty if not unfit[place]),
            blind_ghosts=sum(self._ghosts(arrivals[place], heard[place][1]) for place in blind),
            alarms=sum(unfit[place] for place in sound_places),
            sound_frames=len(sound_places),
        )

    def _health(self) -> CameraHealth:
        first, *_ = self._stretch
        times = [frame.captured_ns for frame in self._stretch]
        period_ns = median(after - before for before, after in pairwise(times))
        return CameraHealth(size_px=(first.width_px, first.height_px), rate_hz=1e9 / period_ns)

    def _heard(self, arrivals: Sequence[Arrival], health: CameraHealth) -> Iterator[Heard]:
        """Flags and result of each arrival.

        Frames before the fault, and those after all is well again, are not run anew: what the engine says of them is
        known.
        """
        faulty = [place for place, each in enumerate(arrivals) if each.faulty]
        recovered = False
        for place, each in enumerate(arrivals):
            flags = health.observe(each.frame, arrived_ns=each.arrived_ns)
            if place < faulty[0] or recovered:
                yield flags, self._clean[each.shows[0]]
                continue
            result = self._result(each)
            recovered = place > faulty[-1] and not flags and self._as_sound(each, result)
            yield flags, result

    def _result(self, arrival: Arrival) -> Result | None:
        """What the pipeline says; None where it refused the engine's numbers."""
        self._engine.spoilt = arrival.spoilt
        try:
            return self._pipeline.step(arrival.frame).result
        except EngineError:
            return None
        finally:
            self._engine.spoilt = False

    def _as_sound(self, arrival: Arrival, result: Result | None) -> bool:
        """Whether a sound frame's result is that of the undisturbed run."""
        return not arrival.faulty and result is not None and _equal(result, self._clean[arrival.shows[0]])

    def _ghosts(self, arrival: Arrival, result: Result | None) -> int:
        """Confident objects that none of the sound pictures it shows holds."""
        if not isinstance(result, Detections):
            return 0
        confident = result.at_least(CONFIDENT)
        scale = self._stretch[0].width_px / arrival.frame.width_px
        seen = [clean.boxes_px for place in arrival.shows if isinstance(clean := self._clean[place], Detections)]
        return _unseen(confident.boxes_px * np.float32(scale), np.concatenate([np.zeros((0, 4), np.float32), *seen]))


def _observe(trial: Trial) -> Observation:
    package = trial.case.package
    rows: list[tuple[str, _Episode]] = []
    with (
        open_pipeline(package, score_threshold=SEEN) as opened,
        trial.reader.timed_recordings("sensor faults") as recordings,
    ):
        engine = _Spoilable(opened.engine)
        deadline_ns = int(package.profile.deadline_ms * 1e6)
        pipeline = Pipeline(package.spec, engine, deadline_ns=deadline_ns, score_threshold=SEEN)
        can_spoil = any(np.issubdtype(np.dtype(each.dtype), np.floating) for each in engine.outputs)
        for stretch in islice(chain.from_iterable(map(_stretches, recordings)), MOST_STRETCHES):
            bench = _Bench(pipeline, engine, stretch)
            rows += [(name, bench.episode(each)) for name, each in FAULTS.items() if each.flag is not None or can_spoil]
    columns = {name: np.array([getattr(row, name) for _, row in rows], np.int64) for name in COLUMNS}
    return Observation(len(rows), {}, {**columns, "fault": np.array([name for name, _ in rows], np.str_)})


def _stretches(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Runs of frames of one camera and size, each of `LENGTH`, none twice."""
    running: dict[tuple[str, int, int], list[Frame]] = {}
    for frame in frames:
        key = (frame.camera_id, frame.width_px, frame.height_px)
        stretch = running.setdefault(key, [])
        stretch.append(frame)
        if len(stretch) == LENGTH:
            del running[key]
            yield stretch


def _first(marks: Sequence[bool]) -> int:
    return marks.index(True) if True in marks else NEVER


def _equal(first: Result, second: Result | None) -> bool:
    if isinstance(first, Detections) and isinstance(second, Detections):
        pairs = ((first.boxes_px, second.boxes_px), (first.scores, second.scores), (first.class_ids, second.class_ids))
        return all(np.array_equal(one, other) for one, other in pairs)
    return np.array_equal(first.class_ids, second.class_ids) if second is not None else False


def _unseen(boxes_px: NDArray[np.float32], seen_px: NDArray[np.float32]) -> int:
    """How many boxes overlap none of those that were seen."""
    if not len(boxes_px) or not len(seen_px):
        return len(boxes_px)
    sides = [np.hstack([each[:, :2], each[:, 2:] - each[:, :2]]).astype(np.float64) for each in (boxes_px, seen_px)]
    overlap = mask.iou(*sides, np.zeros(len(seen_px), np.uint8))
    return int(np.sum(overlap.max(axis=1) < OVERLAP))


def _count(numbers: NDArray[np.generic], names: Sequence[str], evidence: KeptEvidence) -> Measured:
    numbers = np.asarray(numbers, np.int64)
    guilty = sorted({name for name, number in zip(names, numbers, strict=True) if number})
    return Measured(float(numbers.sum()), len(names), "faults", note=", ".join(guilty), evidence=evidence.sha256)


def _worst(frames: NDArray[np.int64], names: Sequence[str], evidence: KeptEvidence) -> Measured:
    numbers = np.where(frames == NEVER, np.inf, frames)
    worst = float(numbers.max())
    guilty = sorted({name for name, number in zip(names, numbers, strict=True) if number == worst})
    note = "" if worst == 0 else f"{'never' if math.isinf(worst) else 'longest'}: {', '.join(guilty)}"
    return Measured(worst, len(names), "faults", note=note, evidence=evidence.sha256)


def _alarms(columns: Mapping[str, NDArray[np.int64]], evidence: KeptEvidence) -> Measured:
    interval = clustered_proportion_interval(columns["alarms"], columns["sound_frames"])
    got, frames = columns["alarms"].sum() / columns["sound_frames"].sum(), int(columns["sound_frames"].sum())
    return Measured(float(got), frames, "frames", interval, evidence=evidence.sha256)
