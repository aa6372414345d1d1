"""A graph as a release of TensorRT wants it. Imports no TensorRT."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.onnx_graph import attribute_of, producers

_CHANNEL_AXIS = {"Conv": 1, "Gemm": 0, "MatMul": -2}


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its integer weights as float ones behind a QuantizeLinear.

    Before release 10, TensorRT reads weights in float and quantizes them itself; the integers come out as they were,
    since each is a whole multiple of its scale.

    Source: NVIDIA, TensorRT 8.6 Developer Guide, "Explicit Quantization".
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight is not None and weight.data_type == onnx.TensorProto.INT8:
            nodes.append(_quantizer_of(node, constants, graph))
        nodes.append(node)
    read = {name for node in nodes for name in node.input}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copied)
    return changed


def has_sparse_weights(graph: onnx.GraphProto) -> bool:
    """Whether a layer's weights have two zeros in every four along its input channels, which GPUs from Ampere on skip.

    Source: NVIDIA, TensorRT Developer Guide, "Structured Sparsity".
    """
    makers, constants = producers(graph), {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _CHANNEL_AXIS:
            continue
        name = node.input[1]
        while name in makers and makers[name].op_type in ("DequantizeLinear", "QuantizeLinear"):
            name = makers[name].input[0]
        axis = 1 if attribute_of(node, "transB", 0) else _CHANNEL_AXIS[node.op_type]
        if name in constants and _two_of_four(numpy_helper.to_array(constants[name]), axis):
            return True
    return False


def _two_of_four(weights: NDArray[np.generic], axis: int) -> bool:
    if weights.ndim < 2 or weights.shape[axis] % 4:
        return False
    fours = np.moveaxis(weights, axis, -1).reshape(-1, 4)
    return bool(((fours == 0).sum(axis=1) >= 2).all())


def _quantizer_of(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], graph: onnx.GraphProto
) -> onnx.NodeProto:
    """A QuantizeLinear that gives a DequantizeLinear the integers it read; the node is rewired to it."""
    codes, scale, zero_point = node.input
    axis = int(attribute_of(node, "axis", 1))
    whole = numpy_helper.to_array(constants[codes]).astype(np.float32)
    sides = [-1 if side == axis else 1 for side in range(whole.ndim)]
    step: NDArray[np.float32] = numpy_helper.to_array(constants[scale])
    name = f"{codes}::float"
    if name not in constants:
        values = whole * (step.reshape(sides) if step.ndim else step)
        constants[name] = numpy_helper.from_array(values, name)
        graph.initializer.append(constants[name])
    node.input[0] = f"{node.name}::codes"
    return helper.make_node(
        "QuantizeLinear", [name, scale, zero_point], [node.input[0]], f"{node.name}::quantize", axis=axis
    )
