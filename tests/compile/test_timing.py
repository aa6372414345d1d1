from __future__ import annotations

from math import comb

import pytest

from compile.timing import FEWEST_ROUNDS, RUNS_A_ROUND, median_interval, time_side_by_side


def coverage(count: int, rank: int) -> float:
    """Chance that the true median lies between the order statistics of this rank from both ends, from 0."""
    return 1 - 2 * sum(comb(count, below) for below in range(rank + 1)) / 2**count


@pytest.mark.parametrize("count", [6, 10, 25, 40, 101])
def test_the_interval_is_the_narrowest_pair_of_order_statistics_with_95_percent(count):
    interval = median_interval([float(value) for value in range(count)])
    rank = int(interval.low)
    assert interval.high == count - 1 - rank
    assert coverage(count, rank) >= 0.95
    assert coverage(count, rank + 1) < 0.95


def test_few_values_give_their_extremes():
    interval = median_interval([3.0, 1.0, 2.0])
    assert (interval.low, interval.middle, interval.high) == (1.0, 2.0, 3.0)


def test_every_job_runs_equally_often_and_turns_alternate():
    log: list[str] = []
    jobs = {name: (lambda name=name: log.append(name)) for name in "abc"}
    rounds: list[None] = []
    timed = time_side_by_side(jobs, reference="a", budget_s=0.0, advance=lambda: rounds.append(None))
    assert len(rounds) == FEWEST_ROUNDS
    assert {name: latency.recorder.samples for name, latency in timed.items()} == dict.fromkeys(
        "abc", FEWEST_ROUNDS * RUNS_A_ROUND
    )
    turns = [log[position] for position in range(12, len(log), RUNS_A_ROUND + 1)]
    assert turns[:9] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_the_reference_is_one_and_a_document_carries_the_sample_count():
    timed = time_side_by_side({"a": lambda: sum(range(2000))}, reference="a", budget_s=0.0, advance=lambda: None)
    assert timed["a"].ratio.low == timed["a"].ratio.high == 1.0
    assert timed["a"].document()["samples"] == FEWEST_ROUNDS * RUNS_A_ROUND
    assert timed["a"].p99_ms is None
