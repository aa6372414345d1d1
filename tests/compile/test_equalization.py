"""Equalizing must not change what a network computes, and must save what 8 bits would lose."""

from __future__ import annotations

import numpy as np
import pytest

from compile.backends.onnxrt import build, opened
from compile.equalization import Equalizer, admits_shift, equalize, equalized_name
from compile.fitting import Fitting, equalized_readers, fit_tensors, integer_readers, on_grid
from compile.graph import GraphView
from compile.observation import Watch, observe, sampled_layers
from compile.placement import place
from compile.quantize import activation_grid
from compile.quantizer import Quantizer
from compile.ranges import Range
from compile.recipes import FITTED, Recipe
from compile.rules import RULES
from tests.compile.builders import imported_graph, road_picture, segmenter
from tests.compile.graphs import Sketch

TENSORRT = RULES["tensorrt"]
PADDED = {"kernel": (3, 3), "pads": [1, 1, 1, 1]}


def feeds(count: int = 8) -> list[dict[str, np.ndarray]]:
    pictures = (road_picture(seed).transpose(2, 0, 1)[None] / np.float32(255) for seed in range(count))
    return [{"images": np.ascontiguousarray(picture - np.float32(0.4))} for picture in pictures]


def answers(model, *, integers: bool = True) -> np.ndarray:
    with opened(build(model), threads=1, integers=integers) as engine:
        return np.concatenate([engine.infer(feed)[engine.outputs[0].name].copy() for feed in feeds(3)])


def two_layers(**second) -> Sketch:
    """A convolution, a SiLU that leaves the channels uneven, and another convolution."""
    random = np.random.default_rng(5)
    sketch = Sketch(images=[1, 3, 64, 96])
    first = random.normal(0, 0.5, (8, 3, 1, 1)).astype(np.float32) * np.geomspace(0.3, 60, 8)[:, None, None, None]
    grown = sketch.node("Conv", "images", sketch.weight(first.astype(np.float32)), name="first")
    silu = sketch.node("Mul", grown, sketch.node("Sigmoid", grown))
    per_group = 8 // second.get("group", 1)
    weight = sketch.weight(random.normal(0, 0.3, (8, per_group, *second.pop("kernel", (1, 1)))).astype(np.float32))
    deep = sketch.node("Conv", silu, weight, sketch.weight(np.ones(8, np.float32)), name="second", **second)
    last = sketch.weight(random.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32))
    sketch.output(sketch.node("Conv", deep, last, name="third"), "out", [1, 4, 64, 96])
    return sketch


@pytest.mark.parametrize(
    "second",
    [{}, {"kernel": (3, 3), "pads": [1, 1, 1, 1]}, {"kernel": (3, 3), "pads": [1, 1, 1, 1], "group": 8}],
    ids=str,
)
def test_an_equalized_network_computes_what_it_did(tmp_path, second):
    graph = imported_graph(two_layers(**dict(second)), tmp_path)
    conv = next(node for node in graph.nodes if node.name == "second")
    tensor = conv.input[0]
    shift = np.linspace(-1, 4, 8, dtype=np.float32) if admits_shift(graph, conv) else np.zeros(8, np.float32)
    equalizer = Equalizer(shift, np.geomspace(0.1, 20, 8).astype(np.float32))
    model = equalize(graph, {tensor: equalizer}, {tensor: ("second",)})
    assert equalized_name(tensor) in {name for node in model.graph.node for name in node.input}
    np.testing.assert_allclose(answers(model), answers(graph.model), rtol=1e-4, atol=1e-4)


def test_a_shift_is_refused_where_zeros_are_padded(tmp_path):
    padded = imported_graph(two_layers(**PADDED), tmp_path)
    bare = imported_graph(two_layers(), tmp_path)
    assert not admits_shift(padded, next(node for node in padded.nodes if node.name == "second"))
    assert admits_shift(bare, next(node for node in bare.nodes if node.name == "second"))


def test_uneven_channels_are_equalized_and_lose_less(tmp_path):
    graph = imported_graph(two_layers(), tmp_path)
    placement = place(graph, TENSORRT, scope="weighted", keep_float={})
    layers = sampled_layers(graph, placement.integer_nodes)
    seen = observe(Watch(graph, placement.ranged_tensors, layers, 8), feeds, threads=1)
    fits = fit_tensors(Fitting(graph, placement, seen, feeds(), weight_bits=8, threads=1, equalizing=True))
    readers = integer_readers(graph, placement)
    uneven = readers_tensor(graph)
    assert fits[uneven].equalizer is not None
    assert fits[uneven].equalized_error < fits[uneven].error / 2
    assert equalized_readers(fits, readers)[uneven] == ("second",)


def readers_tensor(graph: GraphView) -> str:
    return str(next(node for node in graph.nodes if node.name == "second").input[0])


def test_without_leave_nothing_is_equalized(tmp_path):
    graph = imported_graph(two_layers(), tmp_path)
    placement = place(graph, TENSORRT, scope="weighted", keep_float={})
    layers = sampled_layers(graph, placement.integer_nodes)
    seen = observe(Watch(graph, placement.ranged_tensors, layers, 8), feeds, threads=1)
    fits = fit_tensors(Fitting(graph, placement, seen, feeds(), weight_bits=8, threads=1, equalizing=False))
    assert all(fit.equalizer is None for fit in fits.values())


@pytest.mark.parametrize("sketch", [two_layers(), segmenter(outlier=40.0)], ids=["silu", "outlier"])
def test_a_fitted_network_is_nearer_to_float_than_minmax(tmp_path, sketch):
    graph = imported_graph(sketch, tmp_path)
    quantizer = Quantizer(
        graph=graph,
        rules=TENSORRT,
        feeds=feeds,
        some_feeds=feeds,
        keep_float={},
        weight_bits=8,
        threads=1,
    )
    recipes = [
        Recipe("minmax", "minmax", "weighted", ""),
        Recipe("fitted", FITTED, "weighted", ""),
        Recipe("corrected", FITTED, "weighted", "", "nearest"),
        Recipe("chosen", FITTED, "weighted", "", "gptq"),
    ]
    quantizer.observe(recipes)
    truth = answers(graph.model)
    errors = [
        float(((answers(quantizer.candidate(recipe).model, integers=False) - truth) ** 2).mean()) for recipe in recipes
    ]
    assert errors[0] > 2 * max(errors[1:])


@pytest.mark.parametrize("signed", [True, False])
def test_what_is_left_on_a_grid_is_what_onnx_says(signed):
    values = np.linspace(-3, 9, 1001, dtype=np.float32)
    grid = activation_grid(Range(-2.0, 7.0), signed=signed)
    low, high = (-128, 127) if signed else (0, 255)
    codes = np.clip(np.rint(values / grid.scale) + int(grid.zero_point), low, high)
    np.testing.assert_allclose(on_grid(values, grid), (codes - int(grid.zero_point)) * grid.scale, atol=1e-6)


def relu_layers() -> Sketch:
    """As `two_layers`, with an activation that commutes with scaling."""
    random = np.random.default_rng(5)
    sketch = Sketch(images=[1, 3, 64, 96])
    first = random.normal(0, 0.5, (8, 3, 1, 1)).astype(np.float32) * np.geomspace(0.3, 60, 8)[:, None, None, None]
    bias = sketch.weight(random.normal(0, 1, 8).astype(np.float32))
    grown = sketch.node("Conv", "images", sketch.weight(first.astype(np.float32)), bias, name="first")
    active = sketch.node("Relu", grown, name="active")
    weight = sketch.weight(random.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32))
    deep = sketch.node("Conv", active, weight, name="second", pads=[1, 1, 1, 1])
    last = sketch.weight(random.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32))
    sketch.output(sketch.node("Conv", deep, last, name="third"), "out", [1, 4, 64, 96])
    return sketch


def test_a_plain_recipe_spreads_channels_without_an_operator_and_is_nearer_to_float_for_it(tmp_path):
    graph = imported_graph(relu_layers(), tmp_path)
    quantizer = Quantizer(graph, TENSORRT, feeds, lambda count: feeds(count), {}, weight_bits=8, threads=1)
    recipes = [
        Recipe("minmax", "minmax", "weighted", ""),
        Recipe("plain", FITTED, "weighted", "", equalizes=False),
    ]
    quantizer.observe(recipes)
    models = [quantizer.candidate(recipe).model for recipe in recipes]
    assert [node.op_type for node in models[1].graph.node] == [node.op_type for node in models[0].graph.node]
    truth = answers(graph.model)
    errors = [float(((answers(model, integers=False) - truth) ** 2).mean()) for model in models]
    assert errors[1] < 0.8 * errors[0]


def test_a_plain_recipe_adds_no_operator_to_a_network_of_other_activations(tmp_path):
    graph = imported_graph(two_layers(), tmp_path)
    quantizer = Quantizer(graph, TENSORRT, feeds, lambda count: feeds(count), {}, weight_bits=8, threads=1)
    recipe = Recipe("plain", FITTED, "weighted", "", "nearest", equalizes=False)
    quantizer.observe([recipe])
    model = quantizer.candidate(recipe).model
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)
