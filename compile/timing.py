"""How long engines take, side by side in one run: rounds in turn, so that a busy moment hits all of them alike.

Speed is compared round by round. Whoever is "faster" must be so beyond what the float engine differs from itself: it
takes part twice, as two separately opened engines, and that difference is the noise of this machine at this moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any, cast

from pydantic import JsonValue

from perception.latency import LatencyRecorder

WARM_UP_RUNS = 3
RUNS_A_ROUND = 5
FEWEST_ROUNDS, MOST_ROUNDS = 10, 200
CONFIDENCE = 0.95

Job = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the interval that holds the true one with 95 % confidence."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What one engine took.

    Attributes:
        recorder: every single run.
        ratio: its time over the reference's, round by round.
    """

    recorder: LatencyRecorder
    ratio: Interval

    @property
    def p50_ms(self) -> float:
        """Median run."""
        return self.recorder.percentile_ns(50) / 1e6

    @property
    def p99_ms(self) -> float | None:
        """None where the runs are too few to carry it."""
        value_ns = self.recorder.percentile_or_none_ns(99)
        return None if value_ns is None else value_ns / 1e6

    @property
    def iqr_ms(self) -> float:
        """Distance between the quartiles."""
        return (self.recorder.percentile_ns(75) - self.recorder.percentile_ns(25)) / 1e6

    def state(self) -> dict[str, JsonValue]:
        """Everything, for a store; `of_state` is its inverse."""
        ratio = [self.ratio.low, self.ratio.middle, self.ratio.high]
        return {"recorder": cast("JsonValue", self.recorder.state()), "ratio": cast("JsonValue", ratio)}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Latency:
        """What `state` was asked of."""
        return cls(LatencyRecorder.of_state(state["recorder"]), Interval(*state["ratio"]))

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            **self.recorder.to_dict(),
            "iqr_ms": self.iqr_ms,
            "times_float": {"low": self.ratio.low, "median": self.ratio.middle, "high": self.ratio.high},
        }


def time_side_by_side(
    jobs: Mapping[str, Job], *, reference: str, budget_s: float, advance: Callable[[], None]
) -> dict[str, Latency]:
    """Time jobs in alternating rounds; the order rotates, and the first run of each turn does not count.

    Args:
        jobs: name → one run.
        reference: the job whose time the others are compared with.
        budget_s: how long to measure; at least 10 rounds are made whatever they take.
        advance: called after each round.
    """
    round_s = _warm_up(jobs)
    rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(budget_s / round_s)))
    recorders = {name: LatencyRecorder() for name in jobs}
    medians_ns: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            runs_ns = _turn(jobs[name])
            medians_ns[name].append(median(runs_ns))
            for run_ns in runs_ns:
                recorders[name].record(run_ns)
        advance()
    ratios = {
        name: median_interval([mine / theirs for mine, theirs in zip(own, medians_ns[reference], strict=True)])
        for name, own in medians_ns.items()
    }
    return {name: Latency(recorders[name], ratios[name]) for name in jobs}


def median_interval(values: Sequence[float]) -> Interval:
    """The median and its 95 % confidence interval from order statistics; with too few values, their extremes.

    Source: H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, rank = 0.0, 0
    while rank < count // 2:
        outside += 2 * comb(count, rank) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        rank += 1
    below = max(rank - 1, 0)
    return Interval(ordered[below], median(ordered), ordered[count - 1 - below])


def _warm_up(jobs: Mapping[str, Job]) -> float:
    """Run every job a few times; returns how long one round will take, in seconds."""
    seconds = 0.0
    for job in jobs.values():
        for _ in range(WARM_UP_RUNS):
            job()
        started_ns = time.perf_counter_ns()
        job()
        seconds += (time.perf_counter_ns() - started_ns) / 1e9
    return seconds * (RUNS_A_ROUND + 1)


def _turn(job: Job) -> list[int]:
    job()
    runs_ns = []
    for _ in range(RUNS_A_ROUND):
        started_ns = time.perf_counter_ns()
        job()
        runs_ns.append(time.perf_counter_ns() - started_ns)
    return runs_ns
