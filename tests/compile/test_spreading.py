"""Spread channels: the network gives the same bits, its grids lose less, and what may not be scaled is not."""

from __future__ import annotations

import numpy as np
import pytest

from compile.backends.onnxrt import build, opened
from compile.channel_ties import HELD, ChannelTies
from compile.graph import GraphView
from compile.observation import Watch, observe, sampled_layers
from compile.placement import place
from compile.quantize import quantize
from compile.quantizer import Quantizer
from compile.ranges import min_max
from compile.recipes import RECIPES
from compile.rules import RULES
from compile.spreading import spread
from tests.compile.builders import imported_graph
from tests.compile.graphs import Sketch
from tests.compile.test_equalization import feeds

UNEVEN = np.geomspace(0.05, 40, 8).astype(np.float32)[:, None, None, None]


def between(pieces) -> Sketch:
    """A convolution of uneven channels, what `pieces` puts behind it, and a convolution that reads that."""
    random = np.random.default_rng(3)
    sketch = Sketch(images=[1, 3, 64, 96])

    def conv(tensor, channels_in, channels_out, *, name, gains=1.0, group=1, side=1):
        weight = random.normal(0, 0.4, (channels_out, channels_in // group, side, side)) * gains
        weight[:, :8] /= UNEVEN.reshape(1, 8, 1, 1)[:, -weight.shape[1] :] if weight.shape[1] in (6, 8) else 1
        bias = random.normal(0, 0.2, channels_out) * np.ravel(gains)
        read = [tensor, sketch.weight(weight.astype(np.float32)), sketch.weight(bias.astype(np.float32))]
        return sketch.node("Conv", *read, name=name, group=group, pads=[side // 2] * 4)

    grown = conv("images", 3, 8, name="first", gains=UNEVEN)
    read, channels = pieces(sketch, grown, conv)
    sketch.output(conv(read, channels, 4, name="last", side=3), "out", [1, 4, None, None])
    return sketch


def rectified(sketch, grown, conv):
    return sketch.node("Relu", grown), 8


def leaky(sketch, grown, conv):
    return sketch.node("LeakyRelu", grown, alpha=0.1), 8


def depthwise(sketch, grown, conv):
    return sketch.node("Relu", conv(sketch.node("Relu", grown), 8, 8, name="depthwise", group=8, side=3)), 8


def pooled(sketch, grown, conv):
    small = sketch.node("MaxPool", grown, kernel_shape=[2, 2], strides=[2, 2])
    return sketch.node("Resize", small, "", sketch.weight(np.float32([1, 1, 2, 2])), mode="nearest"), 8


def shuffled(sketch, grown, conv):
    other = conv("images", 3, 8, name="other")
    joined = sketch.node("Concat", grown, other, axis=1)
    turned = sketch.node("Transpose", sketch.reshape(joined, 1, 2, 8, 64, 96), perm=[0, 2, 1, 3, 4])
    halves = sketch.node(
        "Split", sketch.reshape(turned, 1, 16, 64, 96), sketch.weight(np.int64([8, 8])), outputs=2, axis=1
    )
    return sketch.node("Concat", halves[1], conv(halves[0], 8, 8, name="branch"), axis=1), 16


def cut(sketch, grown, conv):
    ends = [sketch.weight(np.int64(values)) for values in ([2], [8], [1])]
    return sketch.node("Slice", grown, *ends), 6


def skipped(sketch, grown, conv):
    rectified = sketch.node("Relu", grown)
    return sketch.node("Add", rectified, conv(rectified, 8, 8, name="deep")), 8


def gated(sketch, grown, conv):
    gate = sketch.node("Sigmoid", conv(sketch.node("GlobalAveragePool", "images"), 3, 8, name="gate"))
    return sketch.node("Mul", sketch.node("Relu", grown), gate), 8


def silu(sketch, grown, conv):
    return sketch.node("Mul", grown, sketch.node("Sigmoid", grown)), 8


def capped(sketch, grown, conv):
    return sketch.node("Clip", grown, sketch.weight(np.float32(0)), sketch.weight(np.float32(6))), 8


def mixed(sketch, grown, conv):
    return sketch.reshape(grown, 1, 6, 64, 128), 6


SPREAD = (rectified, leaky, depthwise, pooled, shuffled, cut, skipped, gated)
LEFT = (silu, capped, mixed)


def spread_of(graph: GraphView) -> GraphView:
    tensors = place(graph, RULES["tensorrt"], scope="weighted", keep_float={}).ranged_tensors
    tensors = tuple(dict.fromkeys((*tensors, *(node.input[0] for node in graph.nodes if node.op_type == "Conv"))))
    layers = sampled_layers(graph, [node.name for node in graph.nodes if node.op_type == "Conv"])
    seen = observe(Watch(graph, tensors, layers, 4), lambda: feeds(4), threads=1)
    return spread(graph, tensors, seen, signed=False)


def answers(model, *, optimise: bool) -> list[np.ndarray]:
    with opened(build(model), threads=1, optimise=optimise, integers=False) as engine:
        return [engine.infer(feed)["out"].copy() for feed in feeds(3)]


def noise(graph: GraphView) -> float:
    """Of the whole network in 8 bits with MinMax ranges, over what it should say."""
    rules = RULES["onnxrt"]
    placement = place(graph, rules, scope="weighted", keep_float={})
    seen = observe(Watch(graph, placement.ranged_tensors, (), 4), lambda: feeds(4), threads=1)
    ranges = {name: min_max(histogram) for name, histogram in seen.histograms.items()}
    got = answers(quantize(graph, placement, ranges), optimise=False)
    wanted = answers(graph.model, optimise=False)
    return float(np.mean([((a - b) ** 2).mean() / b.var() for a, b in zip(got, wanted, strict=True)]))


@pytest.mark.parametrize("pieces", SPREAD, ids=lambda pieces: pieces.__name__)
def test_a_spread_network_gives_the_same_bits_and_less_noise_in_8(tmp_path, pieces):
    graph = imported_graph(between(pieces), tmp_path)
    even = spread_of(graph)
    assert even is not graph
    assert [node.op_type for node in even.nodes] == [node.op_type for node in graph.nodes]
    for got, wanted in zip(answers(even.model, optimise=False), answers(graph.model, optimise=False), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert noise(even) < 0.8 * noise(graph)


@pytest.mark.parametrize("pieces", LEFT, ids=lambda pieces: pieces.__name__)
def test_what_lets_no_factor_pass_is_left_as_it_is(tmp_path, pieces):
    graph = imported_graph(between(pieces), tmp_path)
    assert spread_of(graph) is graph


def test_an_output_of_the_network_keeps_its_scale(tmp_path):
    sketch = between(rectified)
    sketch.outputs.append(sketch._value("t1_0", ([1, 8, 64, 96], 1)))
    graph = imported_graph(sketch, tmp_path)
    assert spread_of(graph) is graph


def test_channels_of_a_sum_are_tied_to_those_they_are_added_to(tmp_path):
    graph = imported_graph(between(skipped), tmp_path)
    ties = ChannelTies.found_in(graph)
    made = {node.name: node.output[0] for node in graph.nodes}
    np.testing.assert_array_equal(ties.by_channel(made["first"]), ties.by_channel(made["deep"]))
    assert len(set(ties.by_channel(made["first"]).tolist()) - {HELD}) == 8
    assert (ties.by_channel(made["last"]) == HELD).all()


def test_a_layer_whose_weights_another_one_reads_too_leaves_those_alone(tmp_path):
    random = np.random.default_rng(3)
    sketch = Sketch(images=[1, 3, 64, 96])
    weight = sketch.weight((random.normal(0, 0.4, (8, 3, 1, 1)) * UNEVEN).astype(np.float32))
    near, far = (sketch.node("Conv", "images", weight, name=name) for name in ("near", "far"))
    first = sketch.node(
        "Conv", sketch.node("Relu", near), sketch.weight(random.normal(0, 1, (4, 8, 1, 1)).astype("f4"))
    )
    sketch.output(first, "out", [1, 4, 64, 96])
    sketch.output(far, "far", [1, 8, 64, 96])
    graph = imported_graph(sketch, tmp_path)
    even = spread_of(graph)
    assert even is not graph
    for got, wanted in zip(answers(even.model, optimise=False), answers(graph.model, optimise=False), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("kind", "name"), [("onnxrt", "int8-corrected"), ("tensorrt", "int8-plain-chosen")])
def test_a_recipe_alone_makes_the_bytes_that_it_made_among_others(tmp_path, kind, name):
    """As a replay does: it observes for one recipe what the search observed for all."""
    graph = imported_graph(between(shuffled), tmp_path)
    recipe = next(recipe for recipe in RECIPES[kind] if recipe.name == name)
    made, seen = [], []
    for observed in (RECIPES[kind], (recipe,)):
        quantizer = Quantizer(graph, RULES[kind], feeds, lambda count: feeds(count), {}, weight_bits=8, threads=1)
        quantizer.observe(observed)
        made.append(quantizer.candidate(recipe))
        seen.append(set(quantizer._seen.histograms))
    assert seen[0] == seen[1]
    assert made[0].content == made[1].content
    assert any(node.doc_string for node in made[0].model.graph.node)
