"""A grid on a layer's output is priced by what the next layers lose, whatever stands between."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from compile.downstream import Downstream, prices
from compile.fitting import Fitting, fit_tensors
from compile.graph import GraphView
from compile.observation import Watch, observe, sampled_layers
from compile.placement import place
from compile.quantize import activation_grid
from compile.ranges import RANGE_RULES, Range
from compile.rules import RULES
from tests.compile.builders import imported_graph
from tests.compile.graphs import Sketch

ONNXRT = RULES["onnxrt"]


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [{"x": random.normal(0, 4, (1, 8, 16, 16)).astype(np.float32)} for _ in range(count)]


def two_branches() -> Sketch:
    """A convolution whose SiLU is joined with another tensor in front of the next convolution."""
    sketch = Sketch(x=[1, 8, 16, 16])
    first = sketch.conv("x", 8, 8, name="first", bias=-2.0)
    silu = sketch.node("Mul", first, sketch.node("Sigmoid", first))
    joined = sketch.node("Concat", silu, sketch.node("Tanh", "x"), axis=1)
    second = sketch.conv(joined, 16, 8, name="second")
    sketch.output(sketch.conv(sketch.node("Relu", second), 8, 4, name="third"), "y", [1, 4, 16, 16])
    return sketch


@pytest.fixture
def graph(tmp_path) -> GraphView:
    return imported_graph(two_branches(), tmp_path)


def output_of(graph: GraphView, name: str) -> str:
    return str(next(node for node in graph.nodes if node.name == name).output[0])


def price_of(graph: GraphView, tensor: str, *ranges: Range) -> list[float]:
    with ExitStack() as stack:
        each = prices(graph, [tensor], feeds(), signed=False, threads=1)
        stack.callback(each.close)
        _, price = next(each)
        return [price(activation_grid(interval, signed=False)) for interval in ranges]


def test_an_error_is_followed_through_activation_and_join_to_the_next_layer(graph):
    ahead = Downstream.of(graph, output_of(graph, "first"))
    assert ahead is not None
    assert ahead.ends == (output_of(graph, "second"),)
    assert len(ahead.entries) == 2


def test_a_finer_grid_costs_less_and_clipping_costs_at_the_end_that_matters(graph):
    fine, coarse, low_cut, high_cut = price_of(
        graph, output_of(graph, "first"), Range(-15, 15), Range(-150, 150), Range(-5, 15), Range(-15, 5)
    )
    assert 0 < fine < coarse / 10
    assert low_cut < high_cut / 10
    assert high_cut > 10 * fine


def test_what_the_network_answers_is_not_priced_even_where_a_layer_reads_it_too(graph, tmp_path):
    assert Downstream.of(graph, output_of(graph, "third")) is None
    sketch = Sketch(x=[1, 8, 16, 16])
    scores = sketch.node("Sigmoid", sketch.conv("x", 8, 8, name="first"))
    sketch.output(scores, "scores", [1, 8, 16, 16])
    sketch.output(sketch.conv(scores, 8, 4, name="second"), "y", [1, 4, 16, 16])
    both = imported_graph(sketch, tmp_path)
    assert Downstream.of(both, output_of(both, "first")) is None


def test_ranges_on_outputs_are_fitted_to_the_layers_behind_and_answers_keep_everything_seen(graph):
    placement = place(graph, ONNXRT, scope="weighted", keep_float={})
    layers = sampled_layers(graph, placement.integer_nodes)
    seen = observe(Watch(graph, placement.ranged_tensors, layers, 4), feeds, threads=1)
    fits = fit_tensors(Fitting(graph, placement, seen, feeds(), weight_bits=8, threads=1, equalizing=False))
    first, third = output_of(graph, "first"), output_of(graph, "third")
    widest = RANGE_RULES["minmax"](seen.histograms[first])
    assert fits[first].range.low > 0.6 * widest.low
    assert fits[first].range.high > widest.high / 2
    assert fits[third].range == RANGE_RULES["minmax"](seen.histograms[third])
    assert set(fits) == set(placement.ranged_tensors)
