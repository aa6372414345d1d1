"""The streaming gate: accuracy as the road sees it, where a late answer describes a world that has moved on.

At the instant of each labelled frame the vehicle asks what is there now, and gets the newest result that is finished by
then: one of an earlier frame, since even a fast engine takes some time. A slow engine answers with older frames, skips
more of them, and loses accuracy without one wrong box. Reported beside offline accuracy on the same frames.

The loss is what lateness alone costs: the accuracy of an engine that is done with every frame before its camera's next,
less that of this one, on the same frames against the same truth. Both answer with earlier frames, so what any engine
pays is subtracted: the motion between two frames, and what the detector misses, makes up or lets flicker. An engine
that is always done in time loses nothing.

The stream is played with the durations that the latency gate measured, one frame after another in their own order, and
one engine for all cameras; each camera's mailbox holds its newest frame, as `perception.runtime.run` has it. Frames
before a camera's first result are left out on both sides.

Labelled pictures without capture times cannot be played. Then the timing recordings are, and what the engine itself
says of each frame stands for what is there (`safety_gates.own_truth`). A recording of far fewer frames a second than
the vehicle's cameras give tells nothing of the engine, and is not judged.

Source: Li, Wang & Ramanan 2020, "Towards streaming perception", ECCV, section 3: streaming accuracy; the truth of every
frame is held against the latest output at its instant, by AP over overlaps 0.5 … 0.95, which says where things are;
results of a detector may stand for the truth that nobody labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledMask
from perception.model_spec import ModelSpec
from perception.results import Result
from perception.sources.table import kind_and_path, open_source
from safety_gates.evidence import KeptEvidence, strings
from safety_gates.gates.accuracy import arrays_of, matched
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.gates.latency import LatencyGate
from safety_gates.gates.regression import Side, side_of
from safety_gates.looks import Observation
from safety_gates.own_truth import own_truth
from safety_gates.reading import UNTIMED
from safety_gates.result_log import FrameKey
from safety_gates.sequences import recording_of
from safety_gates.statistics import LEAST_FRAMES, Interval, bootstrap_draws, intervals_of_shares
from safety_gates.trial import TIMING_ALONE, Trial
from safety_gates.verdict import Measured

SLOWEST = 1.5
"""A recording may have so many times fewer frames a second than the vehicle's cameras."""
OFFLINE, PROMPT, STREAMED = "offline", "prompt", "streaming"
LABELS, OWN = "labels", "own results"
WORK = ("preprocess", "infer", "decode")
QUANTITIES: Mapping[str, Quantity] = {
    "ap50": Quantity("ratio", "at_least", "detection", "AP50 of the newest finished result at each frame's instant"),
    "ap50_loss": Quantity("ratio", "at_most", "detection", "AP50 lost to lateness: of a prompt engine less streaming"),
    "ap50_95": Quantity(
        "ratio", "at_least", "detection", "AP50-95 of the newest finished result at each frame's instant"
    ),
    "ap50_95_loss": Quantity(
        "ratio", "at_most", "detection", "AP50-95 lost to lateness: of a prompt engine less streaming"
    ),
    "miou": Quantity("ratio", "at_least", "segmentation", "mIoU of the newest finished result at each frame's instant"),
    "miou_loss": Quantity("ratio", "at_most", "segmentation", "mIoU lost to lateness: of a prompt engine less that"),
}
Ints = NDArray[np.int64]


class StreamingGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Play results against the clock of their recording, with measured durations."""
        played = _played(trial)
        if played is None:
            return Unmeasured("a folder of pictures has no capture times; give a video or drive as --timing-recording")
        fit, too_slow = _at_vehicle_rate(trial, played)
        if not fit:
            return Unmeasured(too_slow)
        latency = LatencyGate().measure(trial)
        if isinstance(latency, Unmeasured):
            return latency
        settings: dict[str, JsonValue] = {"latency": latency.sha256, "truth": played}
        if played == OWN or trial.truth is None:
            settings["recordings"] = [*fit]
            wanted = trial.conditions("streaming", looks_at=TIMING_ALONE, settings=settings)
        else:
            settings["class_map"] = trial.truth.class_map.model_dump(mode="json")
            wanted = trial.conditions("streaming", looks_at=("recording", "labels"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial, latency))

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


def frames_before(frames: Sequence[FrameKey]) -> Ints:
    """(F,) for each frame, its camera's frame before it, which a prompt engine has finished; -1 for the first."""
    before = np.full(len(frames), -1, np.int64)
    last: dict[str, int] = {}
    for position, frame in enumerate(frames):
        before[position] = last.get(frame.camera_id, -1)
        last[frame.camera_id] = position
    return before


def durations_of(latency: KeptEvidence) -> Ints:
    """(N,) nanoseconds of work on each timed frame, without the time it waited for its turn."""
    total: Ints = np.sum([np.asarray(latency.arrays[f"{stage}_ns"], np.int64) for stage in WORK], axis=0)
    return total


def _played(trial: Trial) -> str | None:
    """Against what the engine is played: the labels of a recording with capture times, or what it says itself."""
    if trial.truth is not None and kind_and_path(trial.case.recording)[0] not in UNTIMED:
        return LABELS
    return OWN if trial.has_sequence() else None


def _at_vehicle_rate(trial: Trial, played: str) -> tuple[list[int], str]:
    """Numbers of the recordings that can tell, and why the last other cannot.

    Between two frames of a slow recording more happens than between two of the vehicle's.
    """
    rate_hz = trial.case.package.profile.cameras.rate_hz
    fit, too_slow = [], ""
    for number, path in enumerate((trial.case.recording,) if played == LABELS else trial.reader.sequences(), start=1):
        with closing(open_source(path)) as source:
            slowest_hz = min((camera.rate_hz for camera in source.cameras if camera.rate_hz), default=rate_hz)
        if slowest_hz * SLOWEST >= rate_hz:
            fit.append(number)
        else:
            too_slow = (
                f"{path.name} has {slowest_hz:.3g} frames a second, the profile's cameras have {rate_hz:.3g}: its "
                "frames are older than any engine makes them; give recordings at the vehicle's rate"
            )
    return fit, too_slow


def _observe(trial: Trial, latency: KeptEvidence) -> Observation:
    spec, scene = trial.case.package.spec, _scene_of(trial)
    durations_ns = durations_of(latency)
    newest = _through(scene.streams, lambda frames: newest_finished(frames, durations_ns))
    before = _through(scene.streams, frames_before)
    asked = [i for i in range(len(newest)) if min(newest[i], before[i]) >= 0 and scene.truths[i] is not None]
    truths = [scene.truths[i] for i in asked]
    if not any(map(_holds_something, truths)):
        nothing = {"task": spec.task, "timing_note": "nothing is there that could move", "timed": False}
        return Observation(len(asked), nothing, {"age_ns": np.zeros(0, np.int64)})
    sides = {PROMPT: [scene.results[before[i]] for i in asked], STREAMED: [scene.results[newest[i]] for i in asked]}
    if scene.labelled:
        sides = {OFFLINE: [scene.results[i] for i in asked], **sides}
    captured_ns = [frame.captured_ns for stream in scene.streams for frame in stream]
    ages_ns = [captured_ns[i] - captured_ns[newest[i]] for i in asked]
    arrays: dict[str, NDArray[np.generic]] = {"age_ns": np.array(ages_ns, np.int64)}
    for side, results in sides.items():
        arrays |= arrays_of(matched(results, truths, scene.class_map, spec).groups, f"{side}_")
    timing = LatencyGate().read(latency, ["infer_p50"])["infer_p50"]
    values: dict[str, JsonValue] = {
        "task": spec.task,
        "groups": [*scene.class_map.groups],
        "sides": [*sides],
        "timing_note": timing.note,
        "timed": timing.got is not None,
        "only_slower": timing.interval is not None and timing.interval.low == -np.inf,
    }
    return Observation(len(asked), values, arrays)


@dataclass(frozen=True, slots=True)
class _Scene:
    """Frames, what the engine says of each, and what is there; each stream has a clock of its own."""

    streams: Sequence[Sequence[FrameKey]]
    results: Sequence[Result]
    truths: Sequence[LabelledFrame | LabelledMask | None]
    class_map: ClassMap
    labelled: bool


def _scene_of(trial: Trial) -> _Scene:
    package = trial.case.package
    if _played(trial) == LABELS and trial.truth is not None:
        log = trial.result_log(package)
        return _Scene([log.frames], log.results, trial.truth.of_all(log.frames), trial.truth.class_map, True)
    log, (fit, _) = trial.sequence_log(package), _at_vehicle_rate(trial, OWN)

    def number_of(frame: FrameKey) -> int:
        return int(recording_of(frame)) if trial.case.timing else fit[0]

    rows = [row for row in zip(log.frames, log.results, strict=True) if number_of(row[0]) in fit]
    streams = [list(group) for _, group in groupby(rows, key=lambda row: number_of(row[0]))]
    return _Scene(
        [[frame for frame, _ in stream] for stream in streams],
        [result for _, result in rows],
        [truth for stream in streams for truth in _own_truths(stream, package.spec)],
        ClassMap.identity(package.spec.classes),
        labelled=False,
    )


def _own_truths(
    stream: Sequence[tuple[FrameKey, Result]], spec: ModelSpec
) -> list[LabelledFrame | LabelledMask | None]:
    """`own_truth` of each camera of a stream, in the order of the stream."""
    cameras = [frame.camera_id for frame, _ in stream]
    own = {
        camera: iter(own_truth([result for frame, result in stream if frame.camera_id == camera], spec))
        for camera in dict.fromkeys(cameras)
    }
    return [next(own[camera]) for camera in cameras]


def _through(streams: Sequence[Sequence[FrameKey]], older: Callable[[Sequence[FrameKey]], Ints]) -> Ints:
    """What each stream's frames are answered with, numbered through all of them."""
    found: list[Ints] = []
    first = 0
    for stream in streams:
        numbers = older(stream)
        found.append(np.where(numbers < 0, -1, numbers + first))
        first += len(stream)
    return np.concatenate(found)


def _holds_something(truth: LabelledFrame | LabelledMask | None) -> bool:
    return bool(truth.objects) if isinstance(truth, LabelledFrame) else truth is not None


def sides_of(evidence: KeptEvidence, figure: str) -> dict[str, Side]:
    """A figure of each side: `OFFLINE` where there are labels, `PROMPT` and `STREAMED`."""
    return {side: side_of(evidence, side, figure) for side in strings(evidence.evidence.values["sides"])}


def _read(evidence: KeptEvidence, name: str) -> Measured:
    values, frames = evidence.evidence.values, evidence.evidence.samples
    note = str(values["timing_note"])
    if not values["timed"]:
        return Measured(None, frames, "frames", note=note, evidence=evidence.sha256)
    figure, loss = name.removesuffix("_loss"), name.endswith("_loss")
    sides = sides_of(evidence, figure)
    prompt, streamed = sides[PROMPT], sides[STREAMED]
    draws = bootstrap_draws(frames)
    drawn = prompt.drawn(draws) - streamed.drawn(draws) if loss else streamed.drawn(draws)
    (interval,) = intervals_of_shares(drawn[:, None], frames, lowest=-1.0 if loss else 0.0)
    got = prompt.got - streamed.got if loss else streamed.got
    figures = ", ".join(f"{side} {each.got:.3f}" for side, each in sides.items())
    beside = f"{figures}, results {_age_ms(evidence):.0f} ms old"
    remedy = f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else ""
    words = "; ".join(filter(None, (beside, note)))
    measured = Measured(got, frames, "frames", interval, note=words, remedy=remedy, evidence=evidence.sha256)
    return _can_only_pass(measured, loss=loss) if values["only_slower"] else measured


def _age_ms(evidence: KeptEvidence) -> float:
    """Median age of the result that was in use."""
    return float(np.median(np.asarray(evidence.arrays["age_ns"], np.float64)) / 1e6)


def _can_only_pass(measured: Measured, *, loss: bool) -> Measured:
    """Durations among other programs are no shorter than alone, so alone the engine streams no worse."""
    known = measured.interval or Interval(-np.inf, np.inf)
    interval = replace(known, low=-np.inf) if loss else replace(known, high=np.inf)
    return replace(measured, interval=interval, remedy="end them and measure again")
