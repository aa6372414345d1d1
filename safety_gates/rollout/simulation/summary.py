"""What a campaign of simulated rollouts showed, as rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safety_gates.rollout.simulation.campaign import Run
from safety_gates.statistics import Interval, proportion_interval

CAUGHT_BELOW = 0.05


@dataclass(frozen=True, slots=True)
class Summary:
    """One case at one size of fleet. Shares are of the runs.

    Attributes:
        stopped: rolled back or still held at the horizon, with at most `CAUGHT_BELOW` of the fleet ever exposed.
        caught: rolled back by itself with at most `CAUGHT_BELOW` exposed.
        exposure: (median, 95 %) share of the fleet with the candidate when it was rolled back or held.
        days: (median, 95 %) until the end.
        ends: how many runs ended how and where.
    """

    case: str
    vehicles: int
    runs: int
    complete: float
    rolled_back: float
    held: float
    stopped: float
    caught: float
    rolled_back_interval: Interval
    stopped_interval: Interval
    exposure: tuple[float, float]
    days: tuple[float, float]
    ends: dict[str, int]


def summarize(case: str, vehicles: int, runs: Sequence[Run]) -> Summary:
    """Figures of all runs of one case.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("runs: got none, expected at least 1")
    ended = Counter(run.ended for run in runs)
    low = [run for run in runs if run.ended != "complete" and run.exposure <= CAUGHT_BELOW]
    caught = sum(run.ended == "rolled_back" for run in low)
    open_or_back = [run.exposure for run in runs if run.ended != "complete"]
    return Summary(
        case=case,
        vehicles=vehicles,
        runs=len(runs),
        complete=ended["complete"] / len(runs),
        rolled_back=ended["rolled_back"] / len(runs),
        held=ended["held"] / len(runs),
        stopped=len(low) / len(runs),
        caught=caught / len(runs),
        rolled_back_interval=proportion_interval(ended["rolled_back"], len(runs)),
        stopped_interval=proportion_interval(len(low), len(runs)),
        exposure=_middle_and_most(open_or_back),
        days=_middle_and_most([run.hours / 24 for run in runs]),
        ends=dict(Counter(_words(run) for run in runs).most_common()),
    )


def _words(run: Run) -> str:
    return run.ended if run.ended == "complete" else f"{run.ended} in {run.stage} by {run.quantity or 'soak'}"


def _middle_and_most(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return (0.0, 0.0)
    return float(np.quantile(values, 0.5)), float(np.quantile(values, 0.95))
