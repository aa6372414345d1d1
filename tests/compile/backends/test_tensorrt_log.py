"""Lines as TensorRT's builder and parser wrote them, gathered from public issue threads; the node names are ours."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from compile.backends.tensorrt_log import error_of, nodes_named
from perception.engines.cuda_faults import DeviceMemoryError
from perception.engines.tensorrt_process import BuildEvents, plain
from perception.errors import EngineError, ModelError

NAMES = {
    "/pe/conv/Conv": "Conv", "/attn/Add": "Add", "conv": "Conv", "conv.1": "Conv", "conv.1.weight::quantize":
    "QuantizeLinear", "MatMul_46": "MatMul", "/mlp/Add": "Add", "Range_271": "Range", "Softmax (last)": "Softmax",
}  # fmt: skip


@pytest.fixture
def graph():
    nodes = [helper.make_node(kind, ["x"], [f"{name}_out"], name=name) for name, kind in NAMES.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_graph(nodes, "recorded", [value], [])


def logged(*lines: str, severity: str = "ERROR") -> BuildEvents:
    return BuildEvents.of([{"event": "log", "severity": severity, "message": line} for line in lines])


def refusal(node: int, message: str) -> BuildEvents:
    return BuildEvents.of(
        [{"event": "refused", "node": node, "message": message, "code": "ErrorCode.UNSUPPORTED_NODE"}]
    )


# Source: NVIDIA/Model-Optimizer#50, NVIDIA/TensorRT#3930, #1766, jkjung-avt/tensorrt_demos#603.
FUSED = (
    "[optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any implementation for node "
    "conv.1.weight + conv.1.weight::quantize + /pe/conv/Conv + /attn/Add.)"
)
FOREIGN = (
    "[optimizer.cpp::computeCosts::3869] Error Code 10: Internal Error (Could not find any implementation for node "
    "{ForeignNode[MatMul_46 + (Unnamed Layer* 1) [Shuffle].../mlp/Add]}.)"
)
AFTERMATH = (
    "[builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (Assertion engine != nullptr failed. )"
)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (FUSED, ["conv.1.weight::quantize", "/pe/conv/Conv", "/attn/Add"]),
        (FOREIGN, ["MatMul_46", "/mlp/Add"]),
        ("Could not find any implementation for node conv.", ["conv"]),
        ("Could not find any implementation for node conv.1.", ["conv.1"]),
        ("node conv.1.weight: unsupported", []),
        ("layer other/conv and MatMul_462 and my-conv", []),
        ("Softmax (last): no tactic", ["Softmax (last)"]),
        (AFTERMATH, []),
    ],
)
def test_nodes_are_found_whole_and_in_order(graph, line, named):
    assert nodes_named(line, graph) == named


def test_a_layer_that_cannot_be_built_is_told_by_its_nodes(graph):
    told = error_of(logged(FUSED, AFTERMATH), graph, exit_status=1)
    assert isinstance(told, ModelError)
    assert str(told) == (
        "node conv.1.weight::quantize (QuantizeLinear), /pe/conv/Conv (Conv), /attn/Add (Add): TensorRT cannot build "
        "it: Could not find any implementation for node conv.1.weight + conv.1.weight::quantize + /pe/conv/Conv + "
        "/attn/Add; keep it in float, or change the model"
    )


def test_a_line_that_names_a_node_counts_before_one_that_does_not(graph):
    told = error_of(logged(AFTERMATH, FOREIGN), graph, exit_status=1)
    assert str(told).startswith("node MatMul_46 (MatMul), /mlp/Add (Add): TensorRT cannot build it")


# Source: NVIDIA/TensorRT#1997 (the parser's words), onnx/onnx-tensorrt#465.
@pytest.mark.parametrize(
    ("node", "start"),
    [
        (7, "node Range_271 (Range): TensorRT's parser refuses it: "),
        (-1, "model: TensorRT's parser refuses it: "),
        (99, "model: TensorRT's parser refuses it: "),
    ],
)
def test_what_the_parser_refuses_is_told_by_its_node(graph, node, start):
    told = error_of(refusal(node, "All inputs to range\nshould be initializers."), graph, exit_status=1)
    assert isinstance(told, ModelError)
    assert str(told) == f"{start}All inputs to range should be initializers"


def test_full_memory_is_a_fault_of_the_device_and_no_nodes(graph):
    line = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
    told = error_of(logged(line, FUSED), graph, exit_status=1)
    assert isinstance(told, DeviceMemoryError)
    assert str(told).startswith("building a TensorRT engine: the GPU's memory is full")


def test_a_failure_of_the_worker_itself_is_told(graph):
    events = BuildEvents.of([{"event": "failed", "message": "ModuleNotFoundError: No module named 'tensorrt'"}])
    told = error_of(events, graph, exit_status=1)
    assert type(told) is EngineError
    assert str(told) == "TensorRT gave no engine: ModuleNotFoundError: No module named 'tensorrt'"


@pytest.mark.parametrize(("status", "ended"), [(-9, "signal 9"), (-11, "signal 11"), (1, "status 1")])
def test_a_builder_that_dies_without_a_word_is_told_by_how_it_ended(graph, status, ended):
    told = error_of(logged("building", severity="INFO"), graph, exit_status=status)
    assert type(told) is EngineError
    assert f"ended without a word ({ended}); run again with a lower builder level" in str(told)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (AFTERMATH, "Assertion engine != nullptr failed"),
        ("  a\n b  ", "a b"),
        ("[graphOptimizer.cpp::fuse::12] Error Code 2: Internal Error (Assertion x failed. )", "Assertion x failed"),
    ],
)
def test_a_line_loses_source_places_and_codes(line, words):
    assert plain(line) == words
