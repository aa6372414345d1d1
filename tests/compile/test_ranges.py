from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile import ranges
from compile.fitting import on_grid
from compile.observation import Watch, observe
from compile.quantize import activation_grid
from compile.ranges import RANGE_RULES, Histogram, Range, groups_within
from perception.errors import ModelError
from tests.compile.builders import HEIGHT_PX, WIDTH_PX, imported_graph, segmenter


def counted(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.astype(np.float32))
    return histogram


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), min_size=1, max_size=6))
@settings(max_examples=60)
def test_extremes_are_exact_and_every_value_is_counted(batches):
    histogram = counted(*(np.array(batch) for batch in batches))
    values = np.concatenate(batches).astype(np.float32)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert histogram.counts.sum() == len(values)


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.5, 0.9, 0.9995])
def test_quantiles_are_right_to_a_bin_even_after_the_limit_has_doubled(share):
    random = np.random.default_rng(0)
    batches = [random.normal(0, scale, 20_000) for scale in (0.1, 1, 4, 30)]
    histogram = counted(*batches)
    width = 2 * histogram.limit / ranges.BINS
    assert histogram.quantile(share) == pytest.approx(np.quantile(np.concatenate(batches), share), abs=2 * width)


def test_memory_does_not_grow_with_the_values():
    histogram = counted(*(np.array([10.0**power]) for power in range(-6, 7)))
    assert histogram.counts.shape == (ranges.BINS,)


def test_of_a_large_tensor_every_nth_value_is_counted_but_its_extremes_are_exact(monkeypatch):
    monkeypatch.setattr(ranges, "MOST_COUNTED", 100)
    values = np.arange(1, 1001)
    histogram = counted(values)
    assert (histogram.low, histogram.high) == (1, 1000)
    assert 80 <= histogram.counts.sum() <= 100
    assert histogram.quantile(0.5) == pytest.approx(500, abs=15)


@pytest.mark.parametrize(
    ("rule", "low", "high"),
    [("minmax", -5.0, 1000.0), ("percentile_99.99", -5.0, 1000.0), ("percentile_99.9", -5.0, 60.0)],
)
def test_range_rules_on_a_tensor_with_three_outliers_in_ten_thousand(rule, low, high):
    values = np.concatenate([np.linspace(-5, 50, 9_997), [1000.0] * 3])
    found = RANGE_RULES[rule](counted(values))
    assert found.low == pytest.approx(low, abs=1)
    assert found.high <= high + 1e-3


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_every_range_holds_zero(rule):
    above, below = counted(np.linspace(3, 9, 100)), counted(np.linspace(-9, -3, 100))
    assert RANGE_RULES[rule](above).low == 0.0
    assert RANGE_RULES[rule](below).high == 0.0


@pytest.mark.parametrize("rule", RANGE_RULES)
def test_a_tensor_that_is_always_zero_has_an_empty_range(rule):
    assert RANGE_RULES[rule](counted(np.zeros(10))) == Range(0.0, 0.0)


@pytest.mark.parametrize(
    ("limit", "groups"), [(10, [("a", "b"), ("c",), ("d",)]), (100, [("a", "b", "c", "d")]), (1, list("abcd"))]
)
def test_tensors_are_grouped_within_memory(limit, groups):
    assert groups_within({"a": 4, "b": 6, "c": 7, "d": 20}, limit) == [tuple(group) for group in groups]


def test_a_few_tensors_at_a_time_give_the_same_histograms(tmp_path, monkeypatch):
    graph = imported_graph(segmenter(), tmp_path)
    tensors = tuple(graph.shapes)
    random = np.random.default_rng(0)
    feeds = [{"images": random.random((1, 3, HEIGHT_PX, WIDTH_PX), np.float32)} for _ in range(3)]
    at_once = observe(Watch(graph, tensors, (), 1), lambda: feeds, threads=1).histograms
    monkeypatch.setattr(ranges, "TAP_MEMORY_BYTES", 1)
    one_by_one = observe(Watch(graph, tensors, (), 1), lambda: feeds, threads=1).histograms
    for name in tensors:
        assert (at_once[name].counts == one_by_one[name].counts).all()
        assert at_once[name].counts.sum() > 0


def test_a_tensor_that_is_not_finite_on_a_real_frame_is_named(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": np.full((1, 3, HEIGHT_PX, WIDTH_PX), np.inf, np.float32)}
    with pytest.raises(ModelError, match="tensor images, an input: holds NaN or infinity on a calibration frame"):
        observe(Watch(graph, ("images",), (), 1), lambda: [feed], threads=1)


@pytest.mark.parametrize("rule", ["mse", "entropy"])
def test_weighing_rules_cut_off_outliers_and_keep_what_is_even(rule):
    random = np.random.default_rng(0)
    heavy = counted(random.standard_t(3, 200_000))
    assert 4 < RANGE_RULES[rule](heavy).high < 0.8 * heavy.high
    even = RANGE_RULES[rule](counted(random.uniform(-3, 5, 100_000)))
    assert even.low == pytest.approx(-3, abs=0.2)
    assert even.high == pytest.approx(5, abs=0.2)
    assert RANGE_RULES[rule](counted(np.zeros(10))) == Range(0.0, 0.0)


def test_the_rule_of_least_squares_loses_less_than_any_percentile_when_rounded():
    random = np.random.default_rng(1)
    values = random.standard_t(3, 200_000).astype(np.float32)

    def lost(interval: Range) -> float:
        return float(((on_grid(values, activation_grid(interval, signed=False)) - values) ** 2).mean())

    errors = {name: lost(rule(counted(values))) for name, rule in RANGE_RULES.items()}
    assert errors["mse"] <= 1.1 * min(errors.values())
    assert errors["mse"] < 0.8 * errors["minmax"]
