"""Limits as truth tables around the boundary; nothing that is no number ever passes."""

from __future__ import annotations

import math
from itertools import product

import pytest

from safety_gates.policy import Requirement
from safety_gates.statistics import Interval
from safety_gates.verdict import Measured, Outcome, all_of, judged

PASSED, FAILED, INCONCLUSIVE = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE
AT_LEAST, AT_MOST = 0.9, 30.0


def _requirement(comparison, limit, minimum_samples=0):
    return Requirement(
        claim="a.claim",
        gate="accuracy",
        quantity="ap50",
        comparison=comparison,
        limit=limit,
        unit="ratio",
        minimum_samples=minimum_samples,
        why="because",
        source="a test",
        owner="tests",
    )


def _outcome(comparison, limit, got, interval=None, *, samples=100, minimum_samples=0):
    measured = Measured(got, samples, "frames", None if interval is None else Interval(*interval))
    return judged(_requirement(comparison, limit, minimum_samples), measured).outcome


@pytest.mark.parametrize(
    ("comparison", "limit", "got", "outcome"),
    [
        ("at_least", AT_LEAST, 0.9, PASSED),
        ("at_least", AT_LEAST, math.nextafter(0.9, 0), FAILED),
        ("at_least", AT_LEAST, math.nextafter(0.9, 1), PASSED),
        ("at_most", AT_MOST, 30.0, PASSED),
        ("at_most", AT_MOST, math.nextafter(30.0, 31), FAILED),
        ("at_most", AT_MOST, math.inf, FAILED),
        ("at_most", AT_MOST, math.nan, INCONCLUSIVE),
        ("at_least", AT_LEAST, math.nan, INCONCLUSIVE),
        ("at_least", AT_LEAST, None, INCONCLUSIVE),
        ("at_most", AT_MOST, None, INCONCLUSIVE),
    ],
)
def test_a_plain_fact_is_held_against_its_limit(comparison, limit, got, outcome):
    assert _outcome(comparison, limit, got) is outcome


@pytest.mark.parametrize(
    ("comparison", "limit", "got", "interval", "outcome"),
    [
        ("at_least", AT_LEAST, 0.95, (0.9, 1.0), PASSED),
        ("at_least", AT_LEAST, 0.95, (0.899, 1.0), INCONCLUSIVE),
        ("at_least", AT_LEAST, 0.85, (0.8, 0.901), INCONCLUSIVE),
        ("at_least", AT_LEAST, 0.85, (0.8, 0.9), INCONCLUSIVE),
        ("at_least", AT_LEAST, 0.85, (0.8, 0.899), FAILED),
        ("at_most", AT_MOST, 25.0, (20.0, 30.0), PASSED),
        ("at_most", AT_MOST, 25.0, (20.0, math.inf), INCONCLUSIVE),
        ("at_most", AT_MOST, 35.0, (30.1, math.inf), FAILED),
        ("at_most", AT_MOST, 25.0, (math.nan, 28.0), INCONCLUSIVE),
        ("at_most", AT_MOST, math.nan, (20.0, 28.0), INCONCLUSIVE),
        ("at_most", AT_MOST, None, (20.0, 28.0), INCONCLUSIVE),
    ],
)
def test_the_whole_interval_decides(comparison, limit, got, interval, outcome):
    assert _outcome(comparison, limit, got, interval) is outcome


def test_too_few_samples_never_pass_but_may_fail():
    assert _outcome("at_least", 0.9, 1.0, (0.95, 1.0), samples=99, minimum_samples=100) is INCONCLUSIVE
    assert _outcome("at_least", 0.9, 1.0, (0.95, 1.0), samples=100, minimum_samples=100) is PASSED
    assert _outcome("at_least", 0.9, 0.1, (0.05, 0.2), samples=99, minimum_samples=100) is FAILED


def test_an_inconclusive_verdict_says_how_much_to_collect():
    few = judged(_requirement("at_least", 0.9, 100), Measured(1.0, 60, "objects", Interval(0.95, 1.0)))
    assert few.why == "60 objects, required 100: record 40 more"
    astride = judged(_requirement("at_least", 0.9), Measured(0.92, 100, "frames", Interval(0.88, 0.96)))
    assert "about 400 frames would decide" in astride.why
    close = judged(_requirement("at_least", 0.9), Measured(0.9001, 100, "frames", Interval(0.88, 0.92)))
    assert "more samples will hardly decide" in close.why


def test_what_to_collect_is_said_only_where_nothing_is_decided():
    for got, interval, said in ((0.95, (0.9, 1.0), False), (0.92, (0.88, 0.96), True), (0.5, (0.4, 0.6), False)):
        measured = Measured(got, 100, "frames", Interval(*interval), remedy="record more")
        assert ("record more" in judged(_requirement("at_least", 0.9), measured).why) is said


def test_what_the_gate_notes_is_part_of_the_reason():
    verdict = judged(_requirement("at_most", 30.0), Measured(None, 0, "frames", note="no labels; give --labels"))
    assert verdict.why == "not measured; no labels; give --labels"


@pytest.mark.parametrize("outcomes", list(product(Outcome, repeat=3)))
def test_failed_dominates_inconclusive_dominates_passed(outcomes):
    got = {PASSED: 0.95, FAILED: 0.5, INCONCLUSIVE: None}
    verdicts = [judged(_requirement("at_least", 0.9), Measured(got[outcome], 9, "frames")) for outcome in outcomes]
    expected = FAILED if FAILED in outcomes else INCONCLUSIVE if INCONCLUSIVE in outcomes else PASSED
    assert all_of(verdicts) is expected


def test_no_verdict_at_all_is_refused():
    with pytest.raises(ValueError, match="no verdict to combine"):
        all_of([])
