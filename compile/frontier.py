"""Runs a network over several frames a stretch at a time, keeping only what the rest still needs.

What is corrected layer by layer must see what the layers before it really do, errors included. Running the network
from its start for each layer costs the square of its depth; here every node runs once for all frames, and between two
stretches only the tensors that cross the cut are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.backends.onnxrt import build, opened
from compile.onnx_graph import tensors_read
from perception.engines.engine import Tensors


class Frontier:
    """The frames of one network, advanced tensor by tensor. Constants may change as long as nobody read them yet."""

    def __init__(self, model: onnx.ModelProto, feeds: Iterable[Tensors], *, threads: int) -> None:
        """Begin at the inputs.

        Args:
            model: the network.
            feeds: the frames; copied.
            threads: CPU threads.
        """
        self._nodes = list(model.graph.node)
        self._position = {name: at for at, node in enumerate(self._nodes) for name in node.output if name}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shell = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        self._threads = threads
        self._frames: list[dict[str, NDArray[Any]]] = [
            {name: value.copy() for name, value in feed.items()} for feed in feeds
        ]

    def set_constant(self, name: str, value: NDArray[np.generic]) -> None:
        """Replace a constant for the stretches to come."""
        self._constants[name] = numpy_helper.from_array(value, name)

    def reach(self, tensors: Sequence[str]) -> None:
        """Compute some tensors for all frames.

        Raises:
            EngineError: ONNX Runtime refuses the stretch, or it fails.
        """
        missing = [name for name in dict.fromkeys(tensors) if name not in self._frames[0]]
        if not missing:
            return
        nodes, entries = self._stretch(missing)
        with opened(build(self._model(nodes, entries, missing)), threads=self._threads, integers=False) as engine:
            for frame in self._frames:
                made = engine.infer({name: frame[name] for name in entries})
                frame.update({name: made[name].copy() for name in missing})

    def values(self, tensor: str) -> list[NDArray[Any]]:
        """A tensor that was reached, one array a frame."""
        return [frame[tensor] for frame in self._frames]

    def add(self, tensor: str, amount: NDArray[np.float32]) -> None:
        """Add to a tensor that was reached, in all frames."""
        for frame in self._frames:
            frame[tensor] = frame[tensor] + amount

    def forget_all_but(self, wanted: Iterable[str]) -> None:
        """Drop the tensors that are not needed to reach those wanted later."""
        _, entries = self._stretch(wanted)
        for frame in self._frames:
            for name in frame.keys() - entries:
                del frame[name]

    def _stretch(self, wanted: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
        """The nodes between what is held and what is wanted, and the held tensors they begin with."""
        positions: set[int] = set()
        entries: set[str] = set()
        open_names = list(wanted)
        while open_names:
            name = open_names.pop()
            if name in self._frames[0]:
                entries.add(name)
            elif name in self._position and self._position[name] not in positions:
                positions.add(self._position[name])
                open_names.extend(tensors_read(self._nodes[self._position[name]]))
        return [self._nodes[at] for at in sorted(positions)], entries

    def _model(
        self, nodes: Sequence[onnx.NodeProto], entries: Iterable[str], outputs: Sequence[str]
    ) -> onnx.ModelProto:
        read = {name for node in nodes for name in tensors_read(node)}
        graph = helper.make_graph(
            nodes,
            "stretch",
            [_value_info(name, self._frames[0][name]) for name in sorted(entries)],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
            [self._constants[name] for name in sorted(read & self._constants.keys())],
        )
        model = onnx.ModelProto()
        model.CopyFrom(self._shell)
        model.graph.CopyFrom(graph)
        return model


def _value_info(name: str, value: NDArray[np.generic]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def levels_of(nodes: Iterable[onnx.NodeProto], layers: Mapping[str, object]) -> list[list[onnx.NodeProto]]:
    """The layers in groups, none of which depends on another of its group; a group depends on earlier ones alone.

    Args:
        nodes: of a graph, in its order.
        layers: by node name.
    """
    depth: dict[str, int] = {}
    groups: dict[int, list[onnx.NodeProto]] = {}
    for node in nodes:
        level = max((depth.get(name, 0) for name in tensors_read(node)), default=0)
        if node.name in layers:
            groups.setdefault(level, []).append(node)
            level += 1
        depth.update(dict.fromkeys(node.output, level))
    return [groups[level] for level in sorted(groups)]
