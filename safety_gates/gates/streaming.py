"""The streaming gate: accuracy as the road sees it, where a late answer describes a world that has moved on.

At the instant of each labelled frame the vehicle asks what is there now, and gets the newest result that is finished by
then: one of an earlier frame, since even a fast engine takes some time. A slow engine answers with older frames, skips
more of them, and loses accuracy without one wrong box. Reported beside offline accuracy on the same frames, with the
loss between the two.

The stream is played with the durations that the latency gate measured, one frame after another in their own order, and
one engine for all cameras; each camera's mailbox holds its newest frame, as `perception.runtime.run` has it. Frames
before a camera's first result are left out on both sides.

Source: Li, Wang & Ramanan 2020, "Towards streaming perception", ECCV, section 3: streaming accuracy; the ground truth
of every frame is held against the latest output at its instant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import match_detections, match_masks
from compile.labels import LabelledFrame, LabelledMask
from perception.results import Detections, Result, SegmentationMap
from perception.sources.table import kind_and_path
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.accuracy import arrays_of
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.gates.latency import LatencyGate
from safety_gates.gates.non_regression import figure_of
from safety_gates.result_log import FrameKey
from safety_gates.statistics import LEAST_FRAMES, Interval, bootstrap_intervals
from safety_gates.trial import UNTIMED, Observation, Trial
from safety_gates.truth import Truth
from safety_gates.verdict import Measured

OFFLINE, STREAMED = "offline", "streamed"
WORK = ("preprocess", "infer", "decode")
QUANTITIES: Mapping[str, Quantity] = {
    "ap50": Quantity("ratio", "at_least", "detection", "AP50 of the newest finished result at each frame's instant"),
    "ap50_loss": Quantity("ratio", "at_most", "detection", "AP50 lost to the age of results: offline less streaming"),
    "miou": Quantity("ratio", "at_least", "segmentation", "mIoU of the newest finished result at each frame's instant"),
    "miou_loss": Quantity("ratio", "at_most", "segmentation", "mIoU lost to the age of results: offline less that"),
}
Ints = NDArray[np.int64]


class StreamingGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Play the results of the recording against its clock, with measured durations."""
        truth = trial.truth
        if truth is None:
            return Unmeasured("there is no ground truth; give it with --labels PATH")
        if kind_and_path(trial.case.recording)[0] in UNTIMED:
            return Unmeasured("a folder of pictures has no capture times; give a labelled video, drive or KITTI raw")
        latency = LatencyGate().measure(trial)
        if isinstance(latency, Unmeasured):
            return latency
        settings: dict[str, JsonValue] = {"latency": latency.sha256}
        settings["class_map"] = truth.class_map.model_dump(mode="json")
        wanted = trial.conditions("streaming", looks_at=("recording", "labels"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial, truth))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Streaming accuracy and what it loses to offline accuracy."""
        return {name: _read(evidence, name) for name in wanted}


def newest_finished(frames: Sequence[FrameKey], durations_ns: Ints) -> Ints:
    """(F,) for each frame, the frame whose result is its camera's newest that is finished at its instant; -1 for none.

    Args:
        frames: in order of capture, of one or more cameras that share the engine.
        durations_ns: how long frames take, one after another as they are started; from the first again at the end.
    """
    finished: dict[str, list[tuple[int, int]]] = {}
    for index, finished_ns in _worked_off(frames, durations_ns):
        finished.setdefault(frames[index].camera_id, []).append((finished_ns, index))
    newest = np.full(len(frames), -1, np.int64)
    for position, frame in enumerate(frames):
        done = finished.get(frame.camera_id, [])
        count = int(np.searchsorted([at_ns for at_ns, _ in done], frame.captured_ns, side="right"))
        if count:
            newest[position] = done[count - 1][1]
    return newest


def _worked_off(frames: Sequence[FrameKey], durations_ns: Ints) -> Iterator[tuple[int, int]]:
    """Which frames the engine takes and when it is done with each; an unread frame gives way to its camera's next."""
    waiting: dict[str, int] = {}
    free_ns, arrived, started = frames[0].captured_ns if frames else 0, 0, 0
    while waiting or arrived < len(frames):
        start_ns = free_ns if waiting else max(free_ns, frames[arrived].captured_ns)
        while arrived < len(frames) and frames[arrived].captured_ns <= start_ns:
            waiting[frames[arrived].camera_id] = arrived
            arrived += 1
        index = waiting.pop(next(iter(waiting)))
        free_ns = start_ns + int(durations_ns[started % len(durations_ns)])
        started += 1
        yield index, free_ns


def durations_of(latency: KeptEvidence) -> Ints:
    """(N,) nanoseconds of work on each timed frame, without the time it waited for its turn."""
    total: Ints = np.sum([np.asarray(latency.arrays[f"{stage}_ns"], np.int64) for stage in WORK], axis=0)
    return total


def _observe(trial: Trial, truth: Truth) -> Observation:
    latency = LatencyGate().measure(trial)
    if isinstance(latency, Unmeasured):
        raise RuntimeError(f"latency was measured and is not any more: {latency.why}")
    package = trial.case.package
    log = trial.result_log(package)
    newest = newest_finished(log.frames, durations_of(latency))
    truths = truth.of_all(log.frames)
    asked = [i for i in range(len(newest)) if newest[i] >= 0 and truths[i] is not None]
    sides = {OFFLINE: [log.results[i] for i in asked], STREAMED: [log.results[newest[i]] for i in asked]}
    arrays: dict[str, NDArray[np.generic]] = {
        "age_ns": np.array([log.frames[i].captured_ns - log.frames[newest[i]].captured_ns for i in asked], np.int64)
    }
    for side, results in sides.items():
        arrays |= _matched(results, [truths[i] for i in asked], truth, package.spec.classes, f"{side}_")
    timing = LatencyGate().read(latency, ["infer_p50"])["infer_p50"]
    values: dict[str, JsonValue] = {
        "task": package.spec.task,
        "groups": [*truth.class_map.groups],
        "frames": len(log.frames),
        "timing_note": timing.note,
        "timed": timing.got is not None,
        "only_slower": timing.interval is not None and timing.interval.low == -np.inf,
    }
    return Observation(len(asked), values, arrays)


def _matched(
    results: Sequence[Result],
    truths: Sequence[LabelledFrame | LabelledMask | None],
    truth: Truth,
    classes: Sequence[str],
    prefix: str,
) -> dict[str, NDArray[np.generic]]:
    if results and isinstance(results[0], SegmentationMap):
        masks, mask_truths = cast("Sequence[SegmentationMap]", results), cast("Sequence[LabelledMask]", truths)
        return arrays_of(match_masks(masks, mask_truths, class_map=truth.class_map, classes=classes).groups, prefix)
    boxes, box_truths = cast("Sequence[Detections]", results), cast("Sequence[LabelledFrame]", truths)
    return arrays_of(match_detections(boxes, box_truths, class_map=truth.class_map, classes=classes).groups, prefix)


def _read(evidence: KeptEvidence, name: str) -> Measured:
    values, frames = evidence.evidence.values, evidence.evidence.samples
    note = str(values["timing_note"])
    if not values["timed"]:
        return Measured(None, frames, "frames", note=note, evidence=evidence.sha256)
    figure, loss = name.removesuffix("_loss"), name.endswith("_loss")
    streamed, offline = (figure_of(evidence, side, figure) for side in (STREAMED, OFFLINE))

    def asked(draws: Ints | None) -> float:
        return offline(draws) - streamed(draws) if loss else streamed(draws)

    (interval,) = bootstrap_intervals(lambda draws: np.array([asked(draws)]), frames, lowest=-1.0 if loss else 0.0)
    beside = f"offline {offline(None):.3f}, streaming {streamed(None):.3f}, results {_age_ms(evidence):.0f} ms old"
    remedy = f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else ""
    words = "; ".join(filter(None, (beside, note)))
    measured = Measured(asked(None), frames, "frames", interval, note=words, remedy=remedy, evidence=evidence.sha256)
    return _can_only_pass(measured, loss=loss) if values["only_slower"] else measured


def _age_ms(evidence: KeptEvidence) -> float:
    """Median age of the result that was in use."""
    return float(np.median(np.asarray(evidence.arrays["age_ns"], np.float64)) / 1e6)


def _can_only_pass(measured: Measured, *, loss: bool) -> Measured:
    """Durations among other programs are no shorter than alone, so alone the engine streams no worse."""
    low, high = (-np.inf, np.inf) if measured.interval is None else (measured.interval.low, measured.interval.high)
    interval = Interval(-np.inf, high) if loss else Interval(low, np.inf)
    return replace(measured, interval=interval, remedy="end them and measure again")
