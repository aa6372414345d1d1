"""The latency gate: does a result come in time, shown on enough frames to say so.

The package runs alone on its own pass over the recording: frames are decoded a handful at a time, the pipeline is
warmed up, then these frames are timed one after another while nothing else is done. Time counts from the decoded frame
to the usable result. Percentiles are order statistics with order-statistic intervals; p99 cannot be bounded from fewer
than 368 frames, so on fewer it is INCONCLUSIVE, however good it looks. Other programs that took processor time
meanwhile can only have slowed it: then a claim can still pass, but instead of failing it is INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.frame import Frame
from perception.pipeline import Pipeline, open_pipeline
from perception.runtime import warm_up
from safety_gates.contention import CpuTimes, read_cpu_times, share_of_others
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.statistics import (
    Interval,
    percentile,
    percentile_interval,
    proportion_interval,
    samples_for_percentile,
)
from safety_gates.trial import TIMING_ALONE, Observation, Trial
from safety_gates.verdict import Measured

HELD_BYTES, LEAST_HELD = 96 << 20, 8
CROWDED = 0.05  # of the processors' time; the kernel's own housekeeping stays below
STAGES = ("preprocess", "infer", "decode")
PERCENTILES = {"p50": 0.5, "p99": 0.99}
QUANTITIES: Mapping[str, Quantity] = {
    "total_p50": Quantity("ms", "at_most", None, "median time from frame to usable result"),
    "total_p99": Quantity("ms", "at_most", None, "time from frame to usable result that 99 of 100 frames keep"),
    "infer_p50": Quantity("ms", "at_most", None, "median time of the network alone"),
    "infer_p99": Quantity("ms", "at_most", None, "time of the network alone that 99 of 100 frames keep"),
    "preprocess_p50": Quantity("ms", "at_most", None, "median time from pixels to input tensor"),
    "decode_p50": Quantity("ms", "at_most", None, "median time from output tensors to result"),
    "late": Quantity("ratio", "at_most", None, "share of frames that came after the profile's deadline"),
}


class LatencyGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Time every frame, after a warm-up that does not count."""
        return trial.obtain(trial.conditions("latency", looks_at=TIMING_ALONE), lambda: _observe(trial), unfit=_unfit)

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Percentiles by stage, and the share of late frames; nothing from a machine that throttled meanwhile."""
        if (note := _throttled(evidence)) is not None:
            unstable = Measured(None, evidence.evidence.samples, "frames", note=note, evidence=evidence.sha256)
            return dict.fromkeys(wanted, unstable)
        durations_ms = stages_ms(evidence)
        measured = {
            f"{stage}_{name}": _percentile(samples, quantile, evidence.sha256)
            for stage, samples in durations_ms.items()
            for name, quantile in PERCENTILES.items()
        }
        measured["late"] = _late(durations_ms["total"], evidence)
        crowd = _share_of_others(evidence)
        return {name: measured[name] if crowd is None else _upper_bound(measured[name], crowd) for name in wanted}


def stages_ms(evidence: KeptEvidence) -> dict[str, NDArray[np.float64]]:
    """Stage → (F,) milliseconds in order of capture, and `total`."""
    durations = {stage: np.asarray(evidence.arrays[f"{stage}_ns"], np.float64) / 1e6 for stage in STAGES}
    durations["total"] = np.sum(list(durations.values()), axis=0)
    return durations


def _observe(trial: Trial) -> Observation:
    package = trial.case.package
    rows: list[tuple[int, ...]] = []
    spans: list[tuple[CpuTimes, CpuTimes]] = []
    with (
        open_pipeline(package) as pipeline,
        trial.timed_recordings(f"latency of {package.manifest.name}") as recordings,
    ):
        for held in chain.from_iterable(map(_handfuls, recordings)):
            warm_up(pipeline, held[0])
            before = read_cpu_times()
            rows.extend(_timed(pipeline, frame) for frame in held)
            spans.append((before, read_cpu_times()))
    if not rows:
        raise SourceError(f"{trial.timing.name}: has no frames, expected at least 1; choose another recording")
    columns = np.array(rows, np.int64)
    return Observation(
        samples=len(rows),
        values={"deadline_ms": package.profile.deadline_ms, "share_of_others": share_of_others(spans)},
        arrays={f"{stage}_ns": columns[:, index] for index, stage in enumerate(STAGES)},
    )


def _handfuls(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """The frames of one recording, a handful at a time, each decoded before the first of its handful is timed.

    The pipeline is warmed up on the first of a handful, so a handful may not mix recordings: their pictures differ in
    size, and the first frames of the second would be timed cold.
    """
    for first in frames:
        yield [first, *islice(frames, max(LEAST_HELD, HELD_BYTES // first.pixels.nbytes) - 1)]


def _timed(pipeline: Pipeline, frame: Frame) -> tuple[int, ...]:
    timings = pipeline.step(frame).timings
    return tuple(getattr(timings, f"{stage}_ns") for stage in STAGES)


def _percentile(samples_ms: NDArray[np.float64], quantile: float, sha256: str) -> Measured:
    needed, count = samples_for_percentile(quantile), len(samples_ms)
    remedy = f"give at least {needed}, as --timing-recording if they have no labels" if count < needed else ""
    interval = percentile_interval(samples_ms, quantile)
    return Measured(percentile(samples_ms, quantile), count, "frames", interval, remedy=remedy, evidence=sha256)


def _late(total: NDArray[np.float64], evidence: KeptEvidence) -> Measured:
    late = int(np.sum(total > _deadline_ms(evidence)))
    interval = proportion_interval(late, len(total))
    return Measured(late / len(total), len(total), "frames", interval, evidence=evidence.sha256)


def _share_of_others(evidence: KeptEvidence) -> float | None:
    """The processors' time that other programs took, where it was enough to matter."""
    share = evidence.evidence.values.get("share_of_others")
    return share if isinstance(share, float) and share > CROWDED else None


def _unfit(evidence: KeptEvidence) -> str | None:
    """Why a measurement that lies here is worth making again: the machine was not the engine's own."""
    crowd = _share_of_others(evidence)
    return _throttled(evidence) if crowd is None else f"other programs took {crowd:.0%} of the processors then"


def _upper_bound(measured: Measured, crowd: float) -> Measured:
    """What was timed among other programs is no slower alone: it can pass, but it cannot fail."""
    high = math.inf if measured.interval is None else measured.interval.high
    note = f"other programs took {crowd:.0%} of the processors meanwhile"
    remedy = f"end them and measure again; {measured.remedy}" if measured.remedy else "end them and measure again"
    return replace(measured, interval=Interval(-math.inf, high), note=note, remedy=remedy)


def _throttled(evidence: KeptEvidence) -> str | None:
    """Why the machine was not itself, or None."""
    before, after = evidence.evidence.before, evidence.evidence.after
    events = [state.get("throttle_events") for state in (before, after)]
    if events[0] != events[1]:
        return (
            f"the machine throttled meanwhile (events since boot {events[0]}, then {events[1]}); cool it, measure again"
        )
    if before.get("gpu_slowed_down") or after.get("gpu_slowed_down"):
        return "the GPU was slowed down by heat or its power limit; cool it and measure again"
    return None


def _deadline_ms(evidence: KeptEvidence) -> float:
    return float(str(evidence.evidence.values["deadline_ms"]))
