"""ONNX models harmed in one place: what goes wrong on the way from a trained model to an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

Change = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def harmed(model: bytes, changes: Mapping[str, Change]) -> bytes:
    """The model with initializers replaced, by name."""
    graph = onnx.load_from_string(model)
    found = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, change in changes.items():
        array = change(numpy_helper.to_array(found[name]).copy())
        found[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return graph.SerializeToString()


def convolution_weights(model: bytes) -> list[str]:
    """Names of the weights of all convolutions, from input to output."""
    graph = onnx.load_from_string(model).graph
    known = {tensor.name for tensor in graph.initializer}
    return [node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in known]


def convolution_biases(model: bytes) -> list[str]:
    """Names of the biases of all convolutions that have one, from input to output."""
    graph = onnx.load_from_string(model).graph
    return [node.input[2] for node in graph.node if node.op_type == "Conv" and len(node.input) > 2]


def slowed(model: bytes, *, products: int, side: int = 768) -> bytes:
    """The same model, bit for bit in what it says, that multiplies large matrices for nothing on every frame."""
    graph = onnx.load_from_string(model)
    inputs, output = graph.graph.input[0].name, graph.graph.output[0].name
    _rename_output(graph.graph, output, "quick")
    weights = np.eye(side, dtype=np.float32)[:, ::-1]
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(weights), "idle_weights"),
            numpy_helper.from_array(np.array([side, side], np.int64), "idle_shape"),
            numpy_helper.from_array(np.float32(0), "nothing"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ]
    )
    nodes = [
        helper.make_node("ReduceMax", [inputs], ["idle_seed"], keepdims=0),
        helper.make_node("Expand", ["idle_seed", "idle_shape"], ["idle_0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"idle_{step}", "idle_weights"], [f"idle_{step + 1}"]) for step in range(products)
    ]
    nodes += [
        helper.make_node("ReduceMax", [f"idle_{products}"], ["idle_end"], keepdims=0),
        helper.make_node("Mul", ["idle_end", "nothing"], ["idle_nothing"]),
        helper.make_node("Add", ["quick", "idle_nothing"], [output]),
    ]
    graph.graph.node.extend(nodes)
    return graph.SerializeToString()


def _rename_output(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterable[Mapping[str, NDArray[np.generic]]]) -> None:
        self._rest = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[np.generic]] | None:
        """The next frame's tensors; None at the end."""
        return next(self._rest, None)


def naive_int8(model: bytes, feeds: Iterable[Mapping[str, NDArray[np.generic]]], folder: Path) -> bytes:
    """ONNX Runtime's quantization with its defaults: MinMax ranges, whole tensors, every layer in 8 bits."""
    source, target = folder / "float.onnx", folder / "naive.onnx"
    source.write_bytes(model)
    quantize_static(source, target, _Feeds(feeds), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return target.read_bytes()



