"""How much of a change in a layer's output the activation behind it lets through.

Most of what a SiLU reads lies where it gives next to nothing. An error there is none, and must not decide anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.graph import GraphView
from compile.onnx_graph import attribute_of

Values = NDArray[np.float32]

LEAST_PASSED = 1e-3
"""What an error counts for at least, however little of it the activation lets through."""
STEP = 0.05
"""Half the width over which a slope is taken, as a share of the values' spread: about what an error moves them."""


def _sigmoid(values: Values) -> Values:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)), values.dtype)


def _hard_sigmoid(values: Values, alpha: float, beta: float) -> Values:
    return np.asarray(np.clip(alpha * values + beta, 0, 1), values.dtype)


ACTIVATIONS: Mapping[str, Callable[[Values], Values]] = {
    "Relu": lambda values: np.maximum(values, 0),
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "HardSwish": lambda values: values * _hard_sigmoid(values, 1 / 6, 0.5),
}


def slopes(graph: GraphView, tensor: str, values: Values) -> Values:
    """At each value of a tensor the slope of the activation that alone reads it; 1 where there is none, or an unknown.

    Args:
        graph: the float network.
        tensor: a layer's output.
        values: of it, channels apart.
    """
    activation = _activation(graph, tensor)
    step = STEP * float(values.std())
    if activation is None or not step:
        return np.ones_like(values)
    return np.asarray(np.abs(activation(values + step) - activation(values - step)) / (2 * step), np.float32)


def _activation(graph: GraphView, tensor: str) -> Callable[[Values], Values] | None:
    readers = graph.readers.get(tensor, ())
    if tensor in graph.outputs:
        return None
    if len(readers) == 1:
        return _of_node(graph, readers[0])
    by_operator = {node.op_type: node for node in readers}
    if len(readers) == 2 and by_operator.keys() == {"Sigmoid", "Mul"}:
        gate, product = by_operator["Sigmoid"], by_operator["Mul"]
        if set(product.input) == {tensor, gate.output[0]} and graph.only_reader(gate.output[0]) is not None:
            return lambda values: values * _sigmoid(values)
    return None


def _of_node(graph: GraphView, node: onnx.NodeProto) -> Callable[[Values], Values] | None:
    if node.op_type == "LeakyRelu":
        alpha = float(attribute_of(node, "alpha", 0.01))
        return lambda values: np.where(values > 0, values, alpha * values)
    if node.op_type == "HardSigmoid":
        alpha, beta = float(attribute_of(node, "alpha", 0.2)), float(attribute_of(node, "beta", 0.5))
        return lambda values: _hard_sigmoid(values, alpha, beta)
    if node.op_type == "Clip":
        named = [node.input[place] if len(node.input) > place else "" for place in (1, 2)]
        low, high = (float(graph.constants.get(name, end)) for name, end in zip(named, (-np.inf, np.inf), strict=True))
        return lambda values: np.clip(values, low, high)
    return ACTIVATIONS.get(node.op_type)
