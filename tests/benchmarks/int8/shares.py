"""Which share of a network's multiply-adds computes in INT8, read off the quantized graph itself."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import onnx

from compile.cost import cost_of
from compile.onnx_graph import producers

if TYPE_CHECKING:
    import openvino

OPENVINO_MACS = {
    "Convolution": lambda out, weight: prod(out) * prod(weight[1:]),
    "GroupConvolution": lambda out, weight: prod(out) * prod(weight[2:]),
    "MatMul": lambda out, weight: prod(out) * weight[-2 if len(weight) > 1 else -1],
}
OPENVINO_MOVES = frozenset(
    {"Concat", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "StridedSlice"}
)
"""Operators that OpenVINO runs in 8 bits where their inputs are, so that a FakeQuantize reaches through them."""


def onnx_share(model: onnx.ModelProto) -> float:
    """Share of the multiply-adds whose two factors both come dequantized from 8 bits, nothing in between."""
    inferred = onnx.shape_inference.infer_shapes(model)
    made_by = producers(inferred.graph)
    nodes = {node.name: node for node in inferred.graph.node}
    whole = integer = 0
    for cost in cost_of(inferred).nodes:
        whole += cost.macs
        if cost.macs and all(_is_dequantized(name, made_by) for name in nodes[cost.node].input[:2]):
            integer += cost.macs
    return integer / whole


def openvino_share(model: openvino.Model) -> float:
    """The same for OpenVINO, where a FakeQuantize in front of an operator makes it compute in 8 bits."""
    whole = integer = 0
    for node in model.get_ordered_ops():
        count = OPENVINO_MACS.get(node.get_type_name())
        if count is None:
            continue
        weight = list(node.input_value(1).get_shape())
        if node.get_type_name() == "MatMul" and node.get_attributes()["transpose_b"]:
            weight[-2:] = weight[:-3:-1]
        macs = count(list(node.get_output_shape(0)), weight)
        whole += macs
        if _is_in_8_bits(node.input_value(0).get_node()):
            integer += macs
    return integer / whole


def _is_in_8_bits(node: openvino.Node) -> bool:
    if node.get_type_name() in OPENVINO_MOVES:
        sources = node.inputs() if node.get_type_name() == "Concat" else node.inputs()[:1]
        return all(_is_in_8_bits(source.get_source_output().get_node()) for source in sources)
    return node.get_type_name() == "FakeQuantize"


def _is_dequantized(name: str, made_by: dict[str, onnx.NodeProto]) -> bool:
    return name in made_by and made_by[name].op_type == "DequantizeLinear"
