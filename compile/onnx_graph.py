"""Looking into an ONNX graph: nodes with their subgraphs, who makes and who reads a tensor, shapes, constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

UNKNOWN_SIDE = -1


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan; empty for every other operator."""
    bodies: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            bodies.append(attribute.g)
        bodies.extend(attribute.graphs)
    return bodies


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and, depth first, every body inside it."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from all_graphs(body)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those in bodies included."""
    for inner in all_graphs(graph):
        yield from inner.node


def tensors_read(node: onnx.NodeProto) -> set[str]:
    """Names a node depends on: its inputs, and what its bodies capture from outside."""
    read = {name for name in node.input if name}
    for body in subgraphs(node):
        inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        wanted = {value.name for value in body.output}
        for child in body.node:
            wanted |= tensors_read(child)
            inside |= set(child.output)
        read |= wanted - inside
    return read


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Tensor name → the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensor name → the nodes that read it, captures of bodies included. Unknown names give an empty list."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in tensors_read(node):
            readers[name].append(node)
    return readers


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[np.generic]]:
    """Initializers as arrays, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:  # noqa: ANN401  (attributes are of any type)
    """An attribute's value, or `default` where the node does not set it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Sides of a tensor, -1 where a side is not fixed; None where not even the rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else UNKNOWN_SIDE for side in tensor.shape.dim)


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of known rank, initializers included, by name."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = shape_of(value)
        if shape is not None:
            shapes[value.name] = shape
    return shapes


def element_types_of(graph: onnx.GraphProto) -> dict[str, int]:
    """ONNX element types of all typed tensors, initializers included, by name."""
    types = {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.HasField("tensor_type"):
            types[value.name] = int(value.type.tensor_type.elem_type)
    return types


def dtype_name(element_type: int) -> str:
    """NumPy's name of an ONNX element type, such as `float32`; the ONNX name where NumPy has none."""
    try:
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element_type)).name)
    except (KeyError, ValueError, TypeError):
        return f"type {element_type}"


def label(node: onnx.NodeProto) -> str:
    """How a node is named in messages."""
    return f"node {node.name or '(unnamed)'} ({node.op_type})"
