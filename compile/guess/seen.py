"""What a guess may look at: tensors, metadata, and the graph near its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.importer import ImportedModel
from compile.onnx_graph import constants, consumers, producers, shapes_of
from perception.engines.engine import TensorInfo

MOVES = {
    "Transpose",
    "Reshape",
    "Concat",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Cast",
    "Identity",
    "Slice",
    "Split",
    "Gather",
}
"""Operators that move numbers about without computing."""

ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Exp", "Pow", "ScatterND"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The input that takes the picture."""

    tensor: str
    layout: str
    width_px: int
    height_px: int
    dtype: str

    def cells(self, stride_px: int) -> int:
        """Grid cells at a stride."""
        return -(-self.width_px // stride_px) * -(-self.height_px // stride_px)


@dataclass(frozen=True, slots=True)
class Seen:
    """An imported model, indexed.

    Attributes:
        inputs: what must be fed.
        outputs: what comes back.
        metadata: what the exporter noted, key → text.
        producer: the exporter's name, such as `pytorch`.
        shapes: tensor → shape; -1 for a side known only at run time.
        makers: tensor → the node that makes it.
        readers: tensor → the nodes that read it.
        weights: initializers.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    producer: str
    shapes: Mapping[str, tuple[int, ...]]
    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]
    weights: Mapping[str, NDArray[np.generic]]

    @classmethod
    def of(cls, imported: ImportedModel) -> Seen:
        """Index an imported model."""
        model = imported.model
        return cls(
            imported.inputs,
            imported.outputs,
            {entry.key: entry.value for entry in model.metadata_props},
            model.producer_name,
            shapes_of(model.graph),
            producers(model.graph),
            consumers(model.graph),
            constants(model.graph),
        )

    def last_computed(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that compute a tensor, seen through those that only move numbers about."""
        found: list[onnx.NodeProto] = []
        waiting: list[str] = [tensor]
        visited: set[str] = set()
        while waiting:
            name = waiting.pop()
            node = self.makers.get(name)
            if node is None or node.name in visited:
                continue
            visited.add(node.name)
            if node.op_type not in MOVES:
                found.append(node)
            elif node.op_type == "Concat":
                waiting.extend(node.input)
            else:
                waiting.append(node.input[0])
        return found

    def last_operators(self, tensor: str) -> set[str]:
        """Operator types of `last_computed`."""
        return {node.op_type for node in self.last_computed(tensor)}

    def widths(self, tensor: str, operator: str) -> set[int]:
        """Channels (side 1) of what nodes of one operator type contribute to a tensor."""
        shapes = [self.shapes.get(n.output[0], ()) for n in self.last_computed(tensor) if n.op_type == operator]
        return {shape[1] for shape in shapes if len(shape) > 1}

    def is_computed_further(self, tensor: str) -> bool:
        """Whether arithmetic stands at the tensor's end, as where boxes are decoded inside the graph."""
        return bool(self.last_operators(tensor) & ARITHMETIC)

    def upstream(self, tensor: str, *, most_nodes: int) -> Iterator[onnx.NodeProto]:
        """The nodes behind a tensor, nearest first."""
        waiting: list[str] = [tensor]
        visited: set[str] = set()
        while waiting and len(visited) < most_nodes:
            node = self.makers.get(waiting.pop(0))
            if node is not None and node.name not in visited:
                visited.add(node.name)
                yield node
                waiting.extend(node.input)


def find_picture(seen: Seen) -> Picture | None:
    """The first input that can take a colour picture: [1, 3, H, W] or [1, H, W, 3]."""
    for tensor in seen.inputs:
        if len(tensor.shape) != 4 or tensor.dtype not in ("float32", "float16", "uint8"):
            continue
        _, second, third, fourth = tensor.shape
        if second == 3:
            return Picture(tensor.name, "NCHW", fourth, third, tensor.dtype)
        if fourth == 3:
            return Picture(tensor.name, "NHWC", third, second, tensor.dtype)
    return None
