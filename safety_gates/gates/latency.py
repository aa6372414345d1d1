"""The latency gate: does a result come in time, shown on enough frames to say so.

Open loop, at the rate of the profile's cameras: a frame is due at its instant, waits if the engine is busy, and is
skipped if a newer one of its camera overtakes it. Time counts from the instant the frame was captured to the usable
result; a skipped frame has none, so its latency is infinite and it misses its deadline. Frames are decoded a handful at
a time, the pipeline is warmed up, then the handful is played at its pace while nothing else is done.

Waiting for a camera takes its time: on the frames of `--recording` the gate stops as soon as the percentiles that the
policy asks for have an upper end, if no frame so far missed its deadline, and plays all of them else. That makes two
looks at one engine, so the interval of each holds with half the error (Bonferroni, Dunn 1961). A shorter recording,
and those that were named to measure latency on, are played to their end in one look.

Percentiles are order statistics with order-statistic intervals; p99 cannot be bounded from fewer than 368 frames, p99.9
from fewer than 3,688, and the first of two looks needs 437 and 4,380: on fewer it is INCONCLUSIVE, however good it
looks. So is everything from a machine that throttled or whose clocks moved. Other programs that took processor time
meanwhile can only have slowed it: then a claim can still pass, but instead of failing it is INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from hw_profiles.profile import CameraSet
from hw_profiles.telemetry import Telemetry, sample
from perception.errors import SourceError
from perception.frame import Frame
from perception.pipeline import Timings, open_pipeline
from perception.runtime import warm_up
from safety_gates.contention import CpuTimes, read_cpu_times, share_of_others
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Observation
from safety_gates.open_loop import Pace, play
from safety_gates.policy import Limit
from safety_gates.statistics import (
    CONFIDENCE,
    Interval,
    percentile,
    percentile_interval,
    proportion_interval,
    samples_for_percentile,
    simultaneous_confidence,
)
from safety_gates.trial import TIMING_ALONE, Trial
from safety_gates.verdict import Measured

HELD_BYTES, LEAST_HELD = 192 << 20, 8
CROWDED = 0.05  # of the processors' time; the kernel's own housekeeping stays below
CLOCK_MOVED = 0.10  # of the fastest clock seen; a boost clock's own jitter stays below
STAGES = ("waited", "preprocess", "infer", "decode")
STATES = ("cpu_clock_mhz", "gpu_clock_mhz", "temperature_c", "gpu_temperature_c")
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}
DEADLINE_QUANTILE = 0.99  # is shown at least
_TWO_LOOKS = simultaneous_confidence(2)
QUANTITIES: Mapping[str, Quantity] = {
    "total_p50": Quantity("ms", "at_most", None, "median time from capture to usable result"),
    "total_p99": Quantity("ms", "at_most", None, "time from capture to usable result that 99 of 100 frames keep"),
    "total_p99_9": Quantity("ms", "at_most", None, "time from capture to usable result that 999 of 1,000 frames keep"),
    "total_max": Quantity("ms", "at_most", None, "the longest time from capture to usable result that was seen"),
    "waited_p99": Quantity("ms", "at_most", None, "time before work on a frame begins that 99 of 100 frames keep"),
    "infer_p50": Quantity("ms", "at_most", None, "median time of the network alone"),
    "infer_p99": Quantity("ms", "at_most", None, "time of the network alone that 99 of 100 frames keep"),
    "infer_p99_9": Quantity("ms", "at_most", None, "time of the network alone that 999 of 1,000 frames keep"),
    "preprocess_p50": Quantity("ms", "at_most", None, "median time from pixels to input tensor"),
    "decode_p50": Quantity("ms", "at_most", None, "median time from output tensors to result"),
    "missed": Quantity("ratio", "at_most", None, "share of frames without a usable result at the profile's deadline"),
}


class LatencyGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Play every frame at the profile's rate, after a warm-up that does not count."""
        cameras = trial.case.package.profile.cameras
        settings = {"rate_hz": cameras.rate_hz, "cameras": cameras.count, "enough": _enough(trial)}
        wanted = trial.conditions("latency", looks_at=TIMING_ALONE, settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial), unfit=_unfit)

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Percentiles by stage, and the share of missed frames; nothing from a machine that was not itself."""
        if (note := _unstable(evidence)) is not None:
            unstable = Measured(None, evidence.evidence.samples, "frames", note=note, evidence=evidence.sha256)
            return dict.fromkeys(wanted, unstable)
        durations_ms = stages_ms(evidence)
        measured = {
            f"{stage}_{name}": _percentile(samples[np.isfinite(samples) | (stage == "total")], quantile, evidence)
            for stage, samples in durations_ms.items()
            for name, quantile in PERCENTILES.items()
        }
        measured["total_max"] = _longest(durations_ms["total"], evidence)
        measured["missed"] = _missed(durations_ms["total"], evidence)
        crowd = _share_of_others(evidence)
        return {name: measured[name] if crowd is None else _upper_bound(measured[name], crowd) for name in wanted}


def stages_ms(evidence: KeptEvidence) -> dict[str, NDArray[np.float64]]:
    """Stage → (F,) milliseconds in order of capture, and `total`; infinite where the frame was skipped."""
    skipped = np.asarray(evidence.arrays["skipped"], np.bool_)
    durations = {stage: np.full(len(skipped), np.inf) for stage in STAGES}
    for stage, column in durations.items():
        column[~skipped] = np.asarray(evidence.arrays[f"{stage}_ns"], np.float64) / 1e6
    durations["total"] = np.sum(list(durations.values()), axis=0)
    return durations


def states(evidence: KeptEvidence) -> dict[str, NDArray[np.float64]]:
    """The machine between handfuls: `frame`, (S,) frames played so far, and each of `STATES`; NaN where untold."""
    return {name: np.asarray(evidence.arrays[f"state_{name}"], np.float64) for name in ("frame", *STATES)}


def _enough(trial: Trial) -> int | None:
    """After so many frames without a miss nothing more is to be shown; None where all are to be played."""
    quantiles = [DEADLINE_QUANTILE, *map(_quantile, trial.asked("latency"))]
    if trial.case.timing or max(quantiles) >= 1:
        return None
    return samples_for_percentile(max(quantiles), _TWO_LOOKS)


def _quantile(limit: Limit) -> float:
    """The share of frames that a limit speaks of; 1 where it speaks of all."""
    if limit.quantity == "missed":
        return 1 - float(limit.limit)
    return PERCENTILES.get(limit.quantity.split("_", 1)[1], 1.0)


def _confidence(evidence: KeptEvidence) -> float:
    """Of each interval, so that it holds whichever look ended it; a recording that ends sooner has one look."""
    enough = evidence.evidence.conditions.settings.get("enough")
    return _TWO_LOOKS if isinstance(enough, int) and evidence.evidence.samples >= enough else CONFIDENCE


def _observe(trial: Trial) -> Observation:
    package = trial.case.package
    enough, deadline_ns = _enough(trial), package.profile.deadline_ms * 1e6
    pace = _pace(package.profile.cameras)
    rows: list[Timings | None] = []
    spans: list[tuple[CpuTimes, CpuTimes]] = []
    seen: list[tuple[int, Telemetry]] = []
    with (
        open_pipeline(package) as pipeline,
        trial.reader.timed_recordings(f"latency of {package.manifest.name}") as recordings,
    ):
        for held in chain.from_iterable(_handfuls(each, enough) for each in recordings):
            warm_up(pipeline, held[0])
            before = read_cpu_times()
            rows.extend(play(pipeline, held, pace))
            spans.append((before, read_cpu_times()))
            seen.append((len(rows), sample()))
            if len(rows) == enough and all(row is not None and row.total_ns <= deadline_ns for row in rows):
                break
    if not rows:
        raise SourceError(f"{trial.timing.name}: has no frames, expected at least 1; choose another recording")
    values = {"deadline_ms": package.profile.deadline_ms, "share_of_others": share_of_others(spans)}
    return Observation(len(rows), values, {**_stage_arrays(rows), **_state_arrays(seen)})


def _pace(cameras: CameraSet) -> Pace:
    return Pace(period_ns=round(1e9 / cameras.rate_hz), cameras=cameras.count)


def _stage_arrays(rows: Sequence[Timings | None]) -> dict[str, NDArray[np.generic]]:
    """Durations of the frames that were taken, and which of all were not."""
    taken = [row for row in rows if row is not None]
    stages = {f"{stage}_ns": np.array([getattr(row, f"{stage}_ns") for row in taken], np.int64) for stage in STAGES}
    return {**stages, "skipped": np.array([row is None for row in rows], np.bool_)}


def _state_arrays(seen: Sequence[tuple[int, Telemetry]]) -> dict[str, NDArray[np.generic]]:
    told = {name: [getattr(telemetry, name) for _, telemetry in seen] for name in STATES}
    columns = {
        f"state_{name}": np.array([math.nan if value is None else value for value in values], np.float64)
        for name, values in told.items()
    }
    return {**columns, "state_frame": np.array([frame for frame, _ in seen], np.int64)}


def _handfuls(frames: Iterator[Frame], enough: int | None) -> Iterator[list[Frame]]:
    """The frames of one recording, a handful at a time, each decoded before the first of its handful is timed.

    The pipeline is warmed up on the first of a handful, so a handful may not mix recordings: their pictures differ in
    size, and the first frames of the second would be timed cold. One ends where there are `enough`.
    """
    for part in (frames,) if enough is None else (islice(frames, enough), frames):
        for first in part:
            yield [first, *islice(part, max(LEAST_HELD, HELD_BYTES // first.pixels.nbytes) - 1)]


def _percentile(samples_ms: NDArray[np.float64], quantile: float, evidence: KeptEvidence) -> Measured:
    needed, count = samples_for_percentile(quantile), len(samples_ms)
    remedy = f"give at least {needed}, as --timing-recording if they have no labels" if count < needed else ""
    interval = percentile_interval(samples_ms, quantile, _confidence(evidence))
    got = percentile(samples_ms, quantile)
    return Measured(got, count, "frames", interval, _note(evidence), remedy, evidence.sha256)


def _longest(total_ms: NDArray[np.float64], evidence: KeptEvidence) -> Measured:
    """A fact about the frames that were seen; of those to come nobody can say the longest."""
    return Measured(float(total_ms.max()), len(total_ms), "frames", note=_note(evidence), evidence=evidence.sha256)


def _missed(total_ms: NDArray[np.float64], evidence: KeptEvidence) -> Measured:
    missed = int(np.sum(total_ms > deadline_ms(evidence)))
    interval = proportion_interval(missed, len(total_ms), _confidence(evidence))
    return Measured(
        missed / len(total_ms), len(total_ms), "frames", interval, _note(evidence), evidence=evidence.sha256
    )


def _note(evidence: KeptEvidence) -> str:
    skipped = int(np.sum(evidence.arrays["skipped"]))
    return f"{skipped} of {evidence.evidence.samples} frames were overtaken by newer ones" if skipped else ""


def _share_of_others(evidence: KeptEvidence) -> float | None:
    """The processors' time that other programs took, where it was enough to matter."""
    share = evidence.evidence.values.get("share_of_others")
    return share if isinstance(share, float) and share > CROWDED else None


def _unfit(evidence: KeptEvidence) -> str | None:
    """Why a measurement that lies here is worth making again: the machine was not the engine's own."""
    crowd = _share_of_others(evidence)
    return _unstable(evidence) if crowd is None else f"other programs took {crowd:.0%} of the processors then"


def _upper_bound(measured: Measured, crowd: float) -> Measured:
    """What was timed among other programs is no slower alone: it can pass, but it cannot fail."""
    known = measured.interval or Interval(-math.inf, math.inf)
    note = "; ".join(filter(None, (measured.note, f"other programs took {crowd:.0%} of the processors meanwhile")))
    remedy = f"end them and measure again; {measured.remedy}" if measured.remedy else "end them and measure again"
    return replace(measured, interval=replace(known, low=-math.inf), note=note, remedy=remedy)


def _unstable(evidence: KeptEvidence) -> str | None:
    """Why the machine was not itself, or None."""
    return _throttled(evidence) or next(filter(None, (_moved(evidence, name) for name in STATES[:2])), None)


def _moved(evidence: KeptEvidence, name: str) -> str | None:
    clocks = states(evidence)[name]
    clocks = clocks[~np.isnan(clocks)]
    if len(clocks) < 2 or clocks.min() >= (1 - CLOCK_MOVED) * clocks.max():
        return None
    return (
        f"{name.removesuffix('_mhz').replace('_', ' ')} moved between {clocks.min():.0f} and {clocks.max():.0f} MHz "
        "meanwhile; fix it (governor performance, jetson_clocks, nvidia-smi -lgc) and measure again"
    )


def _throttled(evidence: KeptEvidence) -> str | None:
    before, after = evidence.evidence.before, evidence.evidence.after
    events = [state.get("throttle_events") for state in (before, after)]
    if events[0] != events[1]:
        return (
            f"the machine throttled meanwhile (events since boot {events[0]}, then {events[1]}); cool it, measure again"
        )
    if before.get("gpu_slowed_down") or after.get("gpu_slowed_down"):
        return "the GPU was slowed down by heat or its power limit; cool it and measure again"
    return None


def deadline_ms(evidence: KeptEvidence) -> float:
    """The profile's deadline when it was measured."""
    return float(str(evidence.evidence.values["deadline_ms"]))
