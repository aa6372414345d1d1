from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from compile.backends.onnxrt import build, node_times, opened
from compile.graph import GraphView
from compile.observation import Watch, observe
from compile.placement import place
from compile.quantize import activation_grid, quantize, quantized_weight, weight_grid
from compile.ranges import Range, min_max
from compile.rules import RULES
from tests.compile.builders import HEIGHT_PX, WIDTH_PX, imported_graph, segmenter
from tests.compile.graphs import Sketch

OPEN = ["n", "c", "h", "w"]


def random_feed(shape=(1, 3, HEIGHT_PX, WIDTH_PX), seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def quantized(graph: GraphView, feed: dict, *, kind="onnxrt", scope="weighted", keep_float=(), bits=8) -> bytes:
    placement = place(graph, RULES[kind], scope=scope, keep_float=dict.fromkeys(keep_float, "asked for"))
    histograms = observe(Watch(graph, placement.ranged_tensors, (), 1), lambda: [feed], threads=1).histograms
    ranges = {name: min_max(histogram) for name, histogram in histograms.items()}
    return build(quantize(graph, placement, ranges, weight_bits=bits))


def answer(content: bytes, feed: dict) -> np.ndarray:
    with opened(content, threads=1) as engine:
        return next(iter(engine.infer(feed).values())).copy()


def operators(content: bytes, feed: dict) -> Counter:
    """Operators as ONNX Runtime executes them, after its own fusions."""
    return Counter(node.op_type for node in node_times(content, feed, threads=1, runs=1))


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).mean() / np.abs(wanted).mean())


def test_every_convolution_is_fused_into_integers_and_the_relus_are_gone(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    executed = operators(quantized(graph, feed), feed)
    assert executed["QLinearConv"] == 3
    assert executed["Conv"] + executed["FusedConv"] + executed["Relu"] == 0


def test_the_quantized_network_says_nearly_the_same(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    wanted = answer(build(graph.model), feed)
    assert relative_error(answer(quantized(graph, feed), feed), wanted) < 0.03
    assert relative_error(answer(quantized(graph, feed, bits=7), feed), wanted) < 0.05


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("scope", ["weighted", "chains"])
def test_the_same_inputs_give_the_same_bytes(tmp_path, kind, scope):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    first, second = (quantized(graph, feed, kind=kind, scope=scope) for _ in range(2))
    assert first == second
    onnx.checker.check_model(onnx.load_from_string(first), full_check=True)


def test_the_names_of_inputs_and_outputs_stay(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    with opened(quantized(graph, feed), threads=1) as engine:
        assert [tensor.name for tensor in engine.inputs] == ["images"]
        assert [(tensor.name, tensor.dtype) for tensor in engine.outputs] == [("mask", "float32")]


def test_layers_kept_float_stay_float(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    content = quantized(graph, feed, keep_float=("second",))
    executed = operators(content, feed)
    assert executed["QLinearConv"] == 2
    assert executed["Conv"] + executed["FusedConv"] == 1
    second = next(node for node in onnx.load_from_string(content).graph.node if node.name == "second")
    assert second.input[1] in graph.constants


def test_onnx_runtime_does_not_quantize_a_layer_kept_float_behind_our_back(tmp_path):
    """Between two pairs it would, with one scale for all channels: here three channels in four would be lost."""
    random = np.random.default_rng(0)
    weights = [random.normal(0.1, 0.3, (8, 8, 3, 3)).astype(np.float32) for _ in range(3)]
    weights[1][3] *= 100
    sketch = Sketch(x=[1, 8, 16, 16])
    tensor = "x"
    for name, weight in zip("abc", weights, strict=True):
        tensor = sketch.node("Relu", sketch.node("Conv", tensor, sketch.weight(weight), name=name, pads=[1, 1, 1, 1]))
    sketch.output(tensor, "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random_feed((1, 8, 16, 16))}
    content = quantized(graph, feed, keep_float=("b",))
    assert operators(content, feed)["QLinearConv"] == 2
    with opened(content, threads=1, optimise=False) as literal:
        wanted = literal.infer(feed)["y"].copy()
    assert relative_error(answer(content, feed), wanted) < 0.005


def test_keeping_everything_float_gives_the_network_back(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    content = quantized(graph, {"images": random_feed()}, keep_float=("first", "second", "third"))
    assert content == build(onnx.load_from_string(content))
    assert Counter(node.op_type for node in onnx.load_from_string(content).graph.node) == Counter(
        node.op_type for node in graph.nodes
    )


def test_weights_are_stored_in_eight_bits(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    model = onnx.load_from_string(quantized(graph, {"images": random_feed()}))
    kinds = Counter(tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1)
    assert kinds == {onnx.TensorProto.INT8: 3}


def test_a_chain_of_sigmoid_and_product_runs_in_integers_end_to_end(tmp_path):
    sketch = Sketch(x=[1, 16, 16, 16])
    features = sketch.conv("x", 16, 16, side=3, name="before")
    gate = sketch.node("Sigmoid", features, name="sigmoid")
    sketch.output(sketch.conv(sketch.node("Mul", features, gate, name="product"), 16, 16, name="after"), "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random_feed((1, 16, 16, 16))}
    content = quantized(graph, feed, scope="chains")
    executed = operators(content, feed)
    assert (executed["QLinearConv"], executed["QLinearSigmoid"], executed["QLinearMul"]) == (2, 1, 1)
    assert relative_error(answer(content, feed), answer(build(graph.model), feed)) < 0.02


@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_products_are_quantized_by_output_channel(tmp_path, transposed):
    random = np.random.default_rng(0)
    weight = random.normal(0, 1, (20, 12)).astype(np.float32) * np.geomspace(0.01, 10, 12).astype(np.float32)
    sketch = Sketch(x=[4, 20])
    read = [sketch.weight(weight.T.copy() if transposed else weight), sketch.weight(np.ones(12, np.float32))]
    sketch.output(sketch.node("Gemm", "x", *read, name="gemm", transB=transposed), "y", ["n", "c"])
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random.normal(0, 1, (4, 20)).astype(np.float32)}
    content = quantized(graph, feed)
    assert operators(content, feed)["QGemm"] == 1
    wanted, got = answer(build(graph.model), feed), answer(content, feed)
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_tensorrt_pairs_compute_nearly_the_same_in_onnx_runtime(tmp_path):
    sketch = Sketch(x=[1, 16, 16, 16])
    features = sketch.conv("x", 16, 32, side=3, name="first")
    features = sketch.node("Add", sketch.conv(features, 32, 16, name="second"), "x", name="sum")
    sketch.output(sketch.conv(features, 16, 16, name="head"), "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random_feed((1, 16, 16, 16))}
    content = quantized(graph, feed, kind="tensorrt")
    assert relative_error(answer(content, feed), answer(build(graph.model), feed)) < 0.02
    model = onnx.load_from_string(content)
    assert {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.UINT8} == set()
    assert "head" not in {node.name.split("::")[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}


def test_a_large_bias_beside_almost_no_weight_fits_into_32_bits(tmp_path):
    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 1, 1)).astype(np.float32)
    weight[1] *= 1e-12
    sketch = Sketch(x=[1, 3, 4, 4])
    read = [sketch.weight(weight), sketch.weight(np.array([0.5, 100.0], np.float32))]
    sketch.output(sketch.node("Conv", "x", *read, name="conv"), "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random_feed((1, 3, 4, 4))}
    got = answer(quantized(graph, feed), feed)
    assert got[0, 1] == pytest.approx(100.0, rel=0.01)


def test_a_channel_without_weights_and_a_tensor_that_is_always_zero_stay_zero(tmp_path):
    sketch = Sketch(x=[1, 3, 4, 4])
    read = [sketch.weight(np.zeros((2, 3, 1, 1), np.float32)), sketch.weight(np.zeros(2, np.float32))]
    sketch.output(sketch.node("Conv", "x", *read, name="conv"), "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    feed = {"x": random_feed((1, 3, 4, 4))}
    assert (answer(quantized(graph, feed), feed) == 0).all()


@pytest.mark.parametrize(
    ("low", "high", "signed", "zero_point"),
    [(0, 2.55, False, 0), (-2.55, 0, False, 255), (-1, 1, False, 127), (-1, 4, False, 51), (-1, 4, True, 0)],
)
def test_activation_grids_hold_zero_and_both_ends(low, high, signed, zero_point):
    grid = activation_grid(Range(low, high), signed=signed)
    assert grid.zero_point == zero_point
    ends = np.array([low, 0, high]) / grid.scale + int(grid.zero_point)
    assert ends.min() >= (-128 if signed else 0) - 0.51
    assert ends.max() <= (127 if signed else 255) + 0.51


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
def test_weights_use_the_whole_grid_of_their_channel(bits, largest):
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    weight *= np.geomspace(1e-3, 1e3, 4, dtype=np.float32)[:, None, None, None]
    codes = quantized_weight(weight, weight_grid(weight, 0, bits=bits), 0)
    assert (np.abs(codes.astype(int)).max(axis=(1, 2, 3)) == largest).all()
