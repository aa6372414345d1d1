"""What a network costs by its shapes: multiply-adds, parameters, bytes of activations.

Multiply-adds are counted for convolutions and matrix products; every other operator counts none, and its elements
say how much memory it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx

from compile.onnx_graph import UNKNOWN_SIDE, attribute_of, element_types_of, shapes_of

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class NodeCost:
    """What one node costs.

    Attributes:
        node: its name.
        operator: its operator type.
        macs: multiply-adds.
        parameters: elements of the weights it reads; weights that several nodes share count for the first.
        output_elements: elements of its outputs; 0 where a side is known only at run time.
        activation_bytes: bytes of its outputs.
    """

    node: str
    operator: str
    macs: int
    parameters: int
    output_elements: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """What all nodes of one operator type cost together."""

    operator: str
    nodes: int
    macs: int
    parameters: int
    activation_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network costs, node by node in graph order.

    Attributes:
        nodes: every node of the graph; bodies of control flow are not looked into.
        uncounted: names of nodes whose shapes are known only at run time, so that they count too little.
    """

    nodes: tuple[NodeCost, ...]
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of one inference."""
        return sum(node.macs for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Elements of all weights."""
        return sum(node.parameters for node in self.nodes)

    @property
    def activation_bytes(self) -> int:
        """Bytes that all nodes write in one inference."""
        return sum(node.activation_bytes for node in self.nodes)

    def by_operator(self) -> tuple[OperatorCost, ...]:
        """Totals by operator type, the most multiply-adds first, then the most activation bytes."""
        totals = []
        for operator in {node.operator for node in self.nodes}:
            mine = [node for node in self.nodes if node.operator == operator]
            totals.append(
                OperatorCost(
                    operator,
                    len(mine),
                    sum(node.macs for node in mine),
                    sum(node.parameters for node in mine),
                    sum(node.activation_bytes for node in mine),
                )
            )
        return tuple(sorted(totals, key=lambda total: (-total.macs, -total.activation_bytes, total.operator)))


def cost_of(model: onnx.ModelProto) -> Cost:
    """Count what a model of inferred shapes costs; see `compile.importer`."""
    graph = model.graph
    shapes = {name: shape for name, shape in shapes_of(graph).items() if UNKNOWN_SIDE not in shape}
    element_bytes = {name: _bytes_of(element_type) for name, element_type in element_types_of(graph).items()}
    weights = {tensor.name: prod(tensor.dims) for tensor in graph.initializer if _is_weight(tensor)}
    nodes, uncounted = [], []
    for node in graph.node:
        made = [name for name in node.output if name]
        counter = MACS.get(node.op_type)
        if not all(name in shapes for name in (*made, *(node.input[:2] if counter else ()))):
            uncounted.append(node.name)
            counter = None
        nodes.append(
            NodeCost(
                node=node.name,
                operator=node.op_type,
                macs=counter(node, shapes) if counter else 0,
                parameters=sum(weights.pop(name, 0) for name in node.input),
                output_elements=sum(prod(shapes.get(name, (0,))) for name in made),
                activation_bytes=sum(prod(shapes.get(name, (0,))) * element_bytes.get(name, 4) for name in made),
            )
        )
    return Cost(tuple(nodes), tuple(uncounted))


def _convolution_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Every output element sums over the input channels of its group and the kernel: weight [M, C/group, k…]."""
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _transposed_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Every input element is spread over the output channels of its group and the kernel: weight [C, M/group, k…]."""
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _gemm_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    summed = shapes[node.input[0]][0 if attribute_of(node, "transA", 0) else -1]
    return prod(shapes[node.output[0]]) * summed


def _matmul_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


MACS: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _convolution_macs,
    "ConvTranspose": _transposed_macs,
    "Gemm": _gemm_macs,
    "MatMul": _matmul_macs,
}
"""Operator → its multiply-adds. Source: the ONNX operator definitions."""


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """Integers of 64 bits and booleans are shapes, indices and switches."""
    return tensor.data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)


def _bytes_of(element_type: int) -> int:
    try:
        return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type)).itemsize)
    except (KeyError, ValueError, TypeError):
        return 4
