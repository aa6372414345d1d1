"""Which channels of a network can be scaled, and which only together: a positive factor passes through some operators.

A convolution may give a channel at any scale as long as every layer that reads it knows. Between them stand operators
that a factor passes (Relu, pooling), that move channels about (Concat, Split, the shuffle of ShuffleNet) and that tie
channels to each other (Add). Everything else, and what the network takes and gives, holds a channel at the scale it
has. Every element of a tensor carries the tie of its channel, and operators that move values move these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.graph import GraphView
from compile.onnx_graph import attribute_of, tensors_read

Ties = NDArray[np.int64]

HELD = 0
"""The tie of everything that keeps its scale."""
HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu", "Identity"})
POOLING = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample"})
RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def scalable(graph: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a layer can take a factor out of what it reads, and give its output at another scale."""
    weights = [graph.constants.get(name) for name in node.input[1:]]
    known = node.op_type == "Conv" and all(each is not None and each.dtype == np.float32 for each in weights)
    return known and len(graph.shapes.get(node.input[0], ())) == 4


@dataclass(slots=True)
class ChannelTies:
    """The ties of all tensors of one network.

    Attributes:
        graph: the network.
        of: tensor → the tie of each element, a side of 1 where it is the same all along.
    """

    graph: GraphView
    of: dict[str, Ties] = field(default_factory=dict)
    _tied_to: list[int] = field(default_factory=lambda: [HELD])

    @classmethod
    def found_in(cls, graph: GraphView) -> ChannelTies:
        """Walk a network once, in graph order."""
        ties = cls(graph)
        for node in graph.nodes:
            ties._pass(node)
        for name in graph.outputs:
            ties._hold(name)
        return ties

    def by_channel(self, tensor: str) -> Ties | None:
        """(C,): the tie of each channel of a picture-like tensor; None where channels do not lie along axis 1."""
        ties = self.of.get(tensor)
        if ties is None or ties.ndim != 4 or any(side != 1 for axis, side in enumerate(ties.shape) if axis != 1):
            return None
        channels = np.broadcast_to(ties.reshape(-1), (self.graph.shapes[tensor][1],))
        return np.array([self._root(tie) for tie in channels.tolist()], np.int64)

    def _pass(self, node: onnx.NodeProto) -> None:
        if scalable(self.graph, node):
            if self.by_channel(node.input[0]) is None:
                self._hold(node.input[0])
            self._give(node.output[0], self._fresh(len(self.graph.constants[node.input[1]])).reshape(1, -1, 1, 1))
            return
        moved = self._moved(node) if not any(name in self.graph.outputs for name in node.output) else None
        if moved is None or len(moved) != len(node.output):
            for name in (*tensors_read(node), *node.output):
                self._hold(name)
            return
        for name, ties in zip(node.output, moved, strict=True):
            self._give(name, ties)

    def _moved(self, node: onnx.NodeProto) -> list[Ties] | None:
        """The ties of a node's outputs; None where it lets no factor pass, or is not known to."""
        shapes = self.graph.shapes
        if any(name not in shapes for name in (*node.input[:1], *node.output)):
            return None
        ties = self._known(node.input[0])
        if node.op_type in HOMOGENEOUS and not any(name in shapes for name in node.input[1:]):
            return [ties]
        if node.op_type in POOLING:
            return [ties] if self.by_channel(node.input[0]) is not None else None
        if node.op_type in RESHAPING:
            return [_collapsed(self._whole(node.input[0]).reshape(shapes[node.output[0]]))]
        if node.op_type == "Transpose":
            return [ties.transpose(list(attribute_of(node, "perm", range(ties.ndim)[::-1])))]
        if node.op_type in ("Slice", "Split", "Concat"):
            return self._cut_or_joined(node)
        if node.op_type == "Add" and all(name in shapes for name in node.input):
            return [self._tied(node.input)]
        return self._scaled(node) if node.op_type == "Mul" else None

    def _cut_or_joined(self, node: onnx.NodeProto) -> list[Ties] | None:
        shapes, constants = self.graph.shapes, self.graph.constants
        if node.op_type == "Concat":
            if any(name not in shapes for name in node.input):
                return None
            return [
                _collapsed(np.concatenate([self._whole(name) for name in node.input], attribute_of(node, "axis", 0)))
            ]
        whole = self._whole(node.input[0])
        if node.op_type == "Split":
            axis = int(attribute_of(node, "axis", 0))
            ends = np.cumsum([shapes[name][axis] for name in node.output])[:-1]
            return [_collapsed(part) for part in np.split(whole, ends, axis)]
        if any(name not in constants for name in node.input[1:]):
            return None
        starts, stops, *more = (constants[name].tolist() for name in node.input[1:])
        axes = more[0] if more else range(len(starts))
        steps = more[1] if len(more) > 1 else [1] * len(starts)
        where = [slice(None)] * whole.ndim
        for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
            where[axis] = slice(start, stop, step)
        part = whole[tuple(where)]
        return [_collapsed(part)] if part.shape == shapes[node.output[0]] else None

    def _tied(self, tensors: Sequence[str]) -> Ties:
        """Of a sum: all its terms at one scale."""
        first, second = np.broadcast_arrays(*(self._known(name) for name in tensors))
        for one, other in np.unique(np.stack([first.ravel(), second.ravel()]), axis=1).T.tolist():
            self._tie(one, other)
        return np.ascontiguousarray(first)

    def _scaled(self, node: onnx.NodeProto) -> list[Ties] | None:
        """Of a product with a constant, or with something that keeps its scale: a gate."""
        for tensor, other in (node.input, node.input[::-1]):
            if tensor in self.graph.shapes and (other in self.graph.constants or self._is_held(other)):
                whole, _ = np.broadcast_arrays(
                    self._known(tensor), np.empty([1] * len(self.graph.shapes[node.output[0]]))
                )
                return [np.ascontiguousarray(whole)]
        return None

    def _known(self, tensor: str) -> Ties:
        """A tensor's ties; those of an input keep their scale."""
        if tensor not in self.of:
            self.of[tensor] = np.full([1] * len(self.graph.shapes[tensor]), HELD, np.int64)
        return self.of[tensor]

    def _whole(self, tensor: str) -> Ties:
        return np.broadcast_to(self._known(tensor), self.graph.shapes[tensor])

    def _give(self, tensor: str, ties: Ties) -> None:
        self.of[tensor] = ties

    def _fresh(self, count: int) -> Ties:
        first = len(self._tied_to)
        self._tied_to.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _hold(self, tensor: str) -> None:
        for tie in np.unique(self.of[tensor]).tolist() if tensor in self.of else ():
            self._tie(tie, HELD)

    def _is_held(self, tensor: str) -> bool:
        return tensor in self.graph.shapes and all(
            self._root(tie) == HELD for tie in np.unique(self._known(tensor)).tolist()
        )

    def _tie(self, one: int, other: int) -> None:
        """The smaller root wins, so that what is held stays held."""
        first, second = sorted((self._root(one), self._root(other)))
        self._tied_to[second] = first

    def _root(self, tie: int) -> int:
        while self._tied_to[tie] != tie:
            self._tied_to[tie] = self._tied_to[self._tied_to[tie]]
            tie = self._tied_to[tie]
        return tie


def _collapsed(ties: Ties) -> Ties:
    """The same with a side of 1 along every axis where nothing changes."""
    for axis in range(ties.ndim):
        first = ties.take([0], axis) if ties.shape[axis] else ties
        if (ties == first).all():
            ties = first
    return np.ascontiguousarray(ties)
