"""The temporal gate: does what stands on the road stay there from frame to frame. Needs no labels.

Objects are followed through each camera (`safety_gates.tracks`) for as long as they are missing for at most the
setting `memory_ms`. Flicker is the share of an object's life in which it is not reported, together with objects that
show up for a single frame; a break is an object whose class changed or whose box jumped since it was last seen. In
masks, flicker is the share of pixels that change their class for one frame and change back.

Measured on the timing recordings if there are any, else on the recording; pictures without capture times have no order
that counts. Neighbouring frames flicker together, so intervals count stretches of `stretch_ms` as clusters. The rise
against the float model is what quantization adds: a far object flickers in any model.

Source: for flicker and breaks, the fragmentations and identity switches of Bernardin & Stiefelhagen 2008, "Evaluating
multiple object tracking performance: the CLEAR MOT metrics", EURASIP J. Image and Video Processing, here without truth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from perception.package import EnginePackage
from perception.results import Detections, Result, SegmentationMap
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.gates.parity import SAME, says_the_same
from safety_gates.looks import Observation
from safety_gates.result_log import FrameKey
from safety_gates.statistics import bootstrap_intervals, clustered_proportion_interval
from safety_gates.tracks import follow
from safety_gates.trial import Trial
from safety_gates.verdict import Measured

QUANTITIES: Mapping[str, Quantity] = {
    "flicker": Quantity("ratio", "at_most", "detection", "share of an object's life in which it is not reported"),
    "identity_breaks": Quantity(
        "ratio", "at_most", "detection", "share of reports in which an object changed its class or jumped"
    ),
    "flicker_rise": Quantity("ratio", "at_most", "detection", "flicker beyond that of the float model"),
    "mask_flicker": Quantity(
        "ratio", "at_most", "segmentation", "share of the pixels that change their class for one frame"
    ),
    "mask_flicker_rise": Quantity("ratio", "at_most", "segmentation", "pixels' flicker beyond that of the float model"),
}
SETTINGS = {"memory_ms": 500.0, "stretch_ms": 200.0}
COUNTED = ("events", "trials", "breaks", "seen")
ABSENT = "there is no float model to compare with; give it with --reference FLOAT_PACKAGE"
Ints = NDArray[np.int64]


class TemporalGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES
    settings = SETTINGS

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Follow what both packages report."""
        if not trial.has_sequence():
            return Unmeasured("a folder of pictures has no order in time; give a video or drive as --timing-recording")
        settings: dict[str, JsonValue] = {name: trial.setting("temporal", name) for name in SETTINGS}
        wanted = trial.conditions("temporal", looks_at=("timing", "reference"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Shares over all cameras and recordings."""
        return {name: _read(evidence, name) for name in wanted}


def _observe(trial: Trial) -> Observation:
    case, memory_ms = trial.case, trial.setting("temporal", "memory_ms")
    sides = {"engine": case.package} | ({} if case.reference is None else {"reference": case.reference})
    streams = {side: _streams(trial, package) for side, package in sides.items()}
    arrays: dict[str, NDArray[np.generic]] = {}
    for side, package in sides.items():
        counted = [_counted(stream, package, memory_ms) for stream in streams[side].values()]
        arrays |= {f"{side}_{name}": np.concatenate([each[name] for each in counted]) for name in COUNTED}
    ours = streams["engine"]
    arrays["block"] = _blocks(list(ours.values()), trial.setting("temporal", "stretch_ms"))
    arrays["frames_of_camera"] = np.array([len(stream) for stream in ours.values()], np.int64)
    same = case.reference is not None and says_the_same(case.package, case.reference)
    values: dict[str, JsonValue] = {"task": case.package.spec.task, "cameras": [*ours], "same": same}
    return Observation(sum(map(len, ours.values())), values, arrays)


def _streams(trial: Trial, package: EnginePackage) -> dict[str, list[tuple[FrameKey, Result]]]:
    """Frames and results of each camera, in order of capture."""
    log = trial.sequence_log(package)
    rows = sorted(zip(log.frames, log.results, strict=True), key=lambda row: row[0].camera_id)
    return {camera: list(group) for camera, group in groupby(rows, key=lambda row: row[0].camera_id)}


def _counted(stream: Sequence[tuple[FrameKey, Result]], package: EnginePackage, memory_ms: float) -> Mapping[str, Ints]:
    """Per frame: events of flicker, breaks, chances of flicker, and what was seen."""
    results = [result for _, result in stream]
    if package.spec.task == "segmentation":
        return _flickering_pixels(cast("list[SegmentationMap]", results))
    threshold = package.spec.decoding.score_threshold
    shown = [result.at_least(threshold) for result in cast("list[Detections]", results)]
    steady = follow(shown, memory=_frames_in([key for key, _ in stream], memory_ms))
    return {
        "events": steady.missing + steady.blinks,
        "trials": steady.seen + steady.missing,
        "breaks": steady.breaks,
        "seen": steady.seen,
    }


def _flickering_pixels(maps: Sequence[SegmentationMap]) -> Mapping[str, Ints]:
    """Pixels that differ from both neighbours in time, which agree; the first and last frame have one neighbour."""
    events, pixels = np.zeros((2, len(maps)), np.int64)
    for position in range(1, len(maps) - 1):
        before, now, after = (maps[position + step].class_ids for step in (-1, 0, 1))
        if before.shape == now.shape == after.shape:
            events[position] = np.count_nonzero((before == after) & (now != before))
            pixels[position] = now.size
    return {"events": events, "trials": pixels, "breaks": np.zeros_like(events), "seen": pixels}


def _frames_in(keys: Sequence[FrameKey], memory_ms: float) -> int:
    """How many frames of a camera fit into a stretch of time; 1 at least."""
    steps_ns = np.diff([key.captured_ns for key in keys])
    return max(1, round(memory_ms * 1e6 / float(np.median(steps_ns)))) if len(steps_ns) else 1


def _blocks(streams: Sequence[Sequence[tuple[FrameKey, Result]]], stretch_ms: float) -> Ints:
    """(F,) the stretch of time each frame belongs to, numbered through all cameras."""
    numbers: list[Ints] = []
    first = 0
    for stream in streams:
        block = np.arange(len(stream)) // _frames_in([key for key, _ in stream], stretch_ms) + first
        numbers.append(block.astype(np.int64))
        first = int(block[-1]) + 1
    return np.concatenate(numbers)


def _read(evidence: KeptEvidence, name: str) -> Measured:
    samples, sampled = evidence.evidence.samples, "frames"
    if name.endswith("_rise"):
        if evidence.evidence.conditions.reference is None:
            return Measured(None, samples, sampled, note=ABSENT, evidence=evidence.sha256)
        return _rise(evidence)
    events, trials = ("breaks", "seen") if name == "identity_breaks" else ("events", "trials")
    happened, possible = (_by_block(evidence, f"engine_{each}") for each in (events, trials))
    if not possible.sum():
        note = "nothing was reported that could be followed; record scenes that hold objects"
        return Measured(None, samples, sampled, note=note, evidence=evidence.sha256)
    interval = clustered_proportion_interval(happened, possible)
    return Measured(float(happened.sum() / possible.sum()), samples, sampled, interval, evidence=evidence.sha256)


def _rise(evidence: KeptEvidence) -> Measured:
    """Engine less reference over the same stretches of time."""
    sides = [
        (_by_block(evidence, f"{side}_events"), _by_block(evidence, f"{side}_trials"))
        for side in ("engine", "reference")
    ]

    def rise(draws: Ints) -> NDArray[np.float64]:
        shares = [draws @ events / (draws @ trials) if draws @ trials else np.nan for events, trials in sides]
        return np.array([shares[0] - shares[1]])

    samples = evidence.evidence.samples
    if evidence.evidence.values["same"]:
        return Measured(0.0, samples, "frames", note=SAME, evidence=evidence.sha256)
    stretches = len(sides[0][0])
    (interval,) = bootstrap_intervals(rise, stretches, lowest=-1.0)
    got = float(rise(np.ones(stretches, np.int64))[0])
    stretch_ms = float(str(evidence.evidence.conditions.settings["stretch_ms"]))
    note = f"over {stretches} stretches of {stretch_ms:g} ms"
    return Measured(got, samples, "frames", interval, note=note, remedy="record longer", evidence=evidence.sha256)


def _by_block(evidence: KeptEvidence, name: str) -> Ints:
    counts = np.bincount(evidence.arrays["block"], weights=evidence.arrays[name])
    return counts.astype(np.int64)
