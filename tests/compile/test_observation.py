"""Samples of what a layer reads must give, times its weights, exactly what the layer answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from compile.backends.onnxrt import open_float_taps
from compile.observation import (
    Watch,
    grouped_weight,
    observe,
    output_count,
    sampled_layers,
    ungrouped_weight,
    vectors_read,
)
from tests.compile.builders import imported_graph
from tests.compile.graphs import Sketch

CONVOLUTIONS = [
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 1], "strides": [2, 1]},
    {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    {"auto_pad": "VALID"},
    {"group": 2, "pads": [1, 1, 1, 1]},
    {"group": 4, "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS, ids=str)
def test_vectors_of_a_convolution_times_its_weights_are_its_outputs(tmp_path, attributes):
    random = np.random.default_rng(3)
    sketch = Sketch(images=[1, 4, 11, 9])
    shape = (8, 4 // attributes.get("group", 1), 3, 3)
    made = sketch.node("Conv", "images", sketch.weight(random.normal(size=shape).astype(np.float32)), **attributes)
    sketch.output(made, "out", [None] * 4)
    graph = imported_graph(sketch, tmp_path)
    conv = next(node for node in graph.nodes if node.op_type == "Conv")
    check_layer(graph, conv, random.normal(size=(1, 4, 11, 9)).astype(np.float32), channel=1)


@pytest.mark.parametrize(("operator", "attributes"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})], ids=str)
def test_vectors_of_a_matrix_product_times_its_weights_are_its_outputs(tmp_path, operator, attributes):
    random = np.random.default_rng(3)
    sketch = Sketch(images=[7, 5])
    shape = (6, 5) if attributes else (5, 6)
    made = sketch.node(operator, "images", sketch.weight(random.normal(size=shape).astype(np.float32)), **attributes)
    sketch.output(made, "out", [None] * 2)
    graph = imported_graph(sketch, tmp_path)
    node = next(node for node in graph.nodes if node.op_type == operator)
    check_layer(graph, node, random.normal(size=(7, 5)).astype(np.float32), channel=-1)


def check_layer(graph, node: onnx.NodeProto, values: np.ndarray, *, channel: int) -> None:
    weight = graph.constants[node.input[1]]
    grouped = grouped_weight(node, weight)
    assert np.array_equal(ungrouped_weight(node, grouped, weight.shape), weight)
    count = output_count(node, weight.shape, values.shape)
    vectors = vectors_read(node, weight.shape, values, np.arange(count))
    ours = np.einsum("ngk,gok->ngo", vectors, grouped).reshape(count, -1)
    with open_float_taps(graph.model, [node.output[0]], threads=1) as engine:
        theirs = np.moveaxis(engine.infer({"images": values})[node.output[0]], channel, -1).reshape(count, -1)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_memory_of_samples_does_not_grow_with_the_frames(tmp_path):
    sketch = Sketch(images=[1, 4, 64, 64])
    sketch.output(sketch.conv("images", 4, 8, side=3, name="conv"), "out", [1, 8, 64, 64])
    graph = imported_graph(sketch, tmp_path)
    feed = {"images": np.random.default_rng(0).normal(size=(1, 4, 64, 64)).astype(np.float32)}
    sizes = []
    for frames in (8, 64):
        watch = Watch(graph, ("images",), sampled_layers(graph, ["conv"]), frames)
        seen = observe(watch, lambda frames=frames: [feed] * frames, threads=1)
        sizes.append(len(seen.samples["conv"]))
    assert sizes[0] == sizes[1]


def test_extremes_are_kept_channel_by_channel(tmp_path):
    sketch = Sketch(images=[1, 2, 4, 4])
    sketch.output(sketch.conv("images", 2, 2, name="conv"), "out", [1, 2, 4, 4])
    graph = imported_graph(sketch, tmp_path)
    picture = np.zeros((1, 2, 4, 4), np.float32)
    picture[0, 0, 1, 1], picture[0, 1, 2, 2] = 5, -3
    seen = observe(Watch(graph, ("images",), (), 2), lambda: [{"images": picture}, {"images": -picture / 2}], threads=1)
    assert seen.lows["images"].tolist() == [-2.5, -3]
    assert seen.highs["images"].tolist() == [5, 1.5]
