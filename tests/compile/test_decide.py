from __future__ import annotations

import re
from dataclasses import replace

import pytest

from compile.decide import Decision, Limits, Row, decide
from compile.timing import Interval, Latency
from perception.latency import LatencyRecorder

LIMITS = Limits(metric="AP50", max_loss=0.005, min_agreement=0.95, noise=0.02)


def latency(ratio: float, spread: float = 0.01) -> Latency:
    recorder = LatencyRecorder()
    recorder.record(int(10e6 * ratio))
    return Latency(recorder, Interval(ratio - spread, ratio, ratio + spread))


def row(name: str, *, loss: float, ratio: float | None, spread: float = 0.01, agreement: float = 0.97) -> Row:
    measured = None if ratio is None else latency(ratio, spread)
    return Row(name, "int8", "by a test", loss, agreement, {"AP50": 0.7 * (1 - loss)}, measured, 1000, 0, 10)


FLOAT = Row("fp32", "fp32", "as trained", 0.0, 1.0, {"AP50": 0.7}, latency(1.0, 0.0), 4000, 10, 10)


def decided(*rows: Row, wish="auto", limits=LIMITS) -> Decision:
    return decide([FLOAT, *rows], limits, wish=wish)


@pytest.mark.parametrize(
    ("loss", "ratio", "spread", "ships"),
    [
        (0.005, 0.90, 0.01, "int8"),  # a loss equal to the limit passes
        (0.0050001, 0.90, 0.01, "fp32"),
        (-0.01, 0.90, 0.01, "int8"),  # better than float
        (0.0, 0.979, 0.01, "int8"),  # just beyond noise
        (0.0, 0.98, 0.01, "fp32"),  # a gain equal to the noise is none
        (0.0, 0.99, 0.005, "fp32"),
        (0.0, 1.0, 0.0, "fp32"),
        (0.0, 1.3, 0.01, "fp32"),
        (0.0, 0.90, 0.0999, "int8"),
        (0.0, 0.90, 0.1, "fp32"),  # the far end of the interval reaches float
        (0.0, None, 0.0, "fp32"),  # never timed
        (1.0, 0.1, 0.0, "fp32"),  # fast and blind
    ],
)
def test_int8_ships_only_within_the_limit_and_beyond_noise(loss, ratio, spread, ships):
    candidate = row("int8", loss=loss, ratio=ratio, spread=spread)
    assert decided(candidate).chosen.name == ships


@pytest.mark.parametrize(("agreement", "ships"), [(1.0, "int8"), (0.95, "int8"), (0.9499, "fp32"), (0.0, "fp32")])
def test_a_better_score_does_not_excuse_other_objects(agreement, ships):
    decision = decided(row("int8", loss=-0.05, ratio=0.5, agreement=agreement))
    assert decision.chosen.name == ships
    assert f"agreeing with float by {agreement:.1%} (at least 95.0%)" in decision.why


def test_the_fastest_of_the_good_ones_ships():
    decision = decided(
        row("blind", loss=0.9, ratio=0.3), row("good", loss=0.0, ratio=0.8), row("fast", loss=0.004, ratio=0.6)
    )
    assert decision.chosen.name == "fast"


def test_of_equally_fast_ones_the_better_ships():
    decision = decided(row("worse", loss=0.004, ratio=0.6), row("better", loss=0.001, ratio=0.6))
    assert decision.chosen.name == "better"


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (row("a", loss=0.3, ratio=0.5), r"no INT8 candidate keeps the accuracy; the best of 1, a, loses 30.0% of AP50"),
        (
            row("a", loss=0.0, ratio=1.33),
            r"is not faster beyond noise, it takes 13.3\d ms, 1.33 times as long as float",
        ),
        (
            row("a", loss=0.001, ratio=0.7),
            r"a ships: it takes 7.0\d ms, 0.70 times .* and loses 0.1% of AP50 \(limit 0.5%",
        ),
    ],
)
def test_the_reason_carries_the_figures(candidate, why):
    assert re.search(why, decided(candidate).why)


def test_what_naive_int8_would_have_done_is_said_even_if_another_ships():
    decision = decided(row("int8-minmax", loss=1.0, ratio=1.33), row("good", loss=0.0, ratio=0.7))
    assert decision.naive == (
        "plain MinMax INT8 loses 100.0% of AP50 (limit 0.5% lost), agreeing with float by 97.0% (at least 95.0%) "
        "and takes 1.33 times as long as float"
    )


@pytest.mark.parametrize(("loss", "ratio", "ships"), [(0.0, 0.7, "int8"), (0.0, 1.3, "int8"), (0.3, 0.7, None)])
def test_demanded_int8_ships_within_the_limit_even_if_slow_and_never_silently(loss, ratio, ships):
    decision = decided(row("int8", loss=loss, ratio=ratio), wish="int8")
    assert (decision.chosen and decision.chosen.name) == ships
    if ratio > 1:
        assert "although it does not beat float, because INT8 was demanded" in decision.why
    if ships is None:
        assert decision.why.startswith("nothing ships: no INT8 candidate keeps the accuracy")


def test_demanded_float_ships_whatever_else_was_measured():
    decision = decided(row("int8", loss=0.0, ratio=0.1), wish="fp32")
    assert decision.chosen is FLOAT
    assert decision.why == "float ships: --precision fp32 was asked for"


def test_a_network_nothing_of_which_can_be_quantized_ships_float_and_says_so():
    assert decided().why.startswith(
        "float ships: there is no INT8 candidate, no layer of this network can be quantized"
    )
    assert decided(wish="int8").chosen is None


def test_float_must_come_first():
    with pytest.raises(ValueError, match="expected the float engine first"):
        decide([row("int8", loss=0.0, ratio=0.5)], LIMITS, wish="auto")


BUDGET = Limits(metric="AP50", max_loss=0.005, min_agreement=0.95, noise=0.02, budget_ms=9.0)


def test_within_a_budget_the_most_accurate_engine_ships():
    fast, better = row("fast", loss=0.004, ratio=0.5), row("better", loss=0.001, ratio=0.8)
    decision = decided(fast, better, limits=BUDGET)
    assert decision.chosen.name == "better"
    assert decision.why.startswith("better ships, the most accurate within the budget of 9 ms")


def test_float_that_keeps_the_budget_ships():
    assert decided(row("fast", loss=0.001, ratio=0.5), limits=replace(BUDGET, budget_ms=10.0)).chosen.name == "fp32"


def test_a_fast_engine_that_is_not_accurate_does_not_answer_a_budget():
    decision = decided(row("fast", loss=0.4, ratio=0.5), row("good", loss=0.0, ratio=0.95), limits=BUDGET)
    assert decision.chosen is None
    assert "the fastest of them, good, takes 9.50 ms" in decision.why


@pytest.mark.parametrize(("wish", "ships"), [("int8", "int8"), ("fp32", None)])
def test_a_budget_keeps_the_precision_that_was_asked_for(wish, ships):
    chosen = decided(row("int8", loss=0.0, ratio=0.5), wish=wish, limits=BUDGET).chosen
    assert (chosen and chosen.name) == ships
