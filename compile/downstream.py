"""What rounding a tensor costs the layers behind it, through whatever stands between: activations, products, joins.

A grid on the output of a convolution is read by a Sigmoid or a product first, and most of its range may not matter
behind those. So the few nodes from the tensor to the outputs of the next weighted layers are run twice, with the tensor
as it is and rounded, everything else they read as float gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compile.backends.onnxrt import build, open_float_taps, opened
from compile.graph import GraphView
from compile.model_checks import WEIGHT_CARRIERS
from compile.onnx_graph import subgraphs, tensors_read
from compile.quantize import SMALLEST_SCALE, Grid
from compile.ranges import TAP_MEMORY_BYTES, groups_within
from perception.engines.engine import Engine, Tensors

MOST_NODES = 32
"""Nodes behind a tensor that are run; what they leave is compared where no weighted layer came before."""
FLOAT, CODES, SCALE, ZERO_POINT = "::float", "::codes", "::scale", "::zero_point"


@dataclass(frozen=True, slots=True)
class Downstream:
    """The nodes between a tensor and where its error is measured.

    Attributes:
        tensor: its name.
        nodes: in graph order.
        entries: what the nodes read from elsewhere, `tensor` among them.
        ends: tensors whose error is measured.
    """

    tensor: str
    nodes: tuple[onnx.NodeProto, ...]
    entries: tuple[str, ...]
    ends: tuple[str, ...]

    @classmethod
    def of(cls, graph: GraphView, tensor: str) -> Downstream | None:
        """From a tensor on; None where something on the way is no float32 of a fixed shape."""
        reached, made, ends = {tensor}, {tensor}, []
        nodes: list[onnx.NodeProto] = []
        for node in graph.nodes:
            if len(nodes) == MOST_NODES or subgraphs(node) or not reached.intersection(node.input):
                continue
            nodes.append(node)
            made.update(node.output)
            if node.op_type in WEIGHT_CARRIERS:
                ends.extend(node.output)
            else:
                reached.update(node.output)
        if reached.intersection(graph.outputs):
            return None
        inside = {node.name for node in nodes}
        ends += [name for name in reached if any(reader.name not in inside for reader in graph.readers.get(name, ()))]
        read = dict.fromkeys(name for node in nodes for name in sorted(tensors_read(node)))
        entries = dict.fromkeys((tensor, *(name for name in read if name not in made and name not in graph.constants)))
        known = [name for name in sorted(ends) if name in graph.shapes]
        if not known or not graph.shapes.keys() >= entries.keys():
            return None
        return cls(tensor, tuple(nodes), tuple(entries), tuple(known))

    def model(self, graph: GraphView, zero_point: np.dtype[np.generic]) -> onnx.ModelProto:
        """The nodes behind a pair on the tensor, whose scale and zero point are further inputs."""
        pair = [SCALE, ZERO_POINT]
        before = helper.make_node("QuantizeLinear", [FLOAT, *pair], [CODES])
        after = helper.make_node("DequantizeLinear", [CODES, *pair], [self.tensor])
        real = onnx.TensorProto.FLOAT
        values = {FLOAT if name == self.tensor else name: graph.shapes[name] for name in self.entries}
        read = {name for node in self.nodes for name in tensors_read(node)}
        body = helper.make_graph(
            [before, after, *self.nodes],
            "downstream",
            [
                *(helper.make_tensor_value_info(name, real, shape) for name, shape in values.items()),
                helper.make_tensor_value_info(SCALE, real, ()),
                helper.make_tensor_value_info(ZERO_POINT, helper.np_dtype_to_tensor_dtype(zero_point), ()),
            ],
            [helper.make_tensor_value_info(name, real, graph.shapes[name]) for name in self.ends],
            [tensor for tensor in graph.model.graph.initializer if tensor.name in read],
        )
        return helper.make_model(body, opset_imports=graph.model.opset_import, ir_version=graph.model.ir_version)


@dataclass(frozen=True, slots=True)
class Price:
    """What grids on one tensor cost.

    Attributes:
        ahead: the nodes behind the tensor.
        engine: runs them behind a pair.
        frames: everything they read and what they make of it in float.
    """

    ahead: Downstream
    engine: Engine
    frames: Sequence[Tensors]

    def __call__(self, grid: Grid) -> float:
        """Share of the variance lost where the error is measured, each channel capped at 1, mean over the ends."""
        fixed = {SCALE: grid.scale, ZERO_POINT: grid.zero_point}
        moments: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self.ahead.ends}
        for frame in self.frames:
            entries = {FLOAT if name == self.ahead.tensor else name: frame[name] for name in self.ahead.entries}
            made = self.engine.infer({**entries, **fixed})
            for name in self.ahead.ends:
                moments[name].append(_moments(frame[name], made[name]))
        return float(np.mean([_share_lost(np.mean(each, axis=0)) for each in moments.values()]))


def prices(
    graph: GraphView, tensors: Iterable[str], feeds: Sequence[Tensors], *, signed: bool, threads: int
) -> Iterator[tuple[str, Price]]:
    """For each tensor that can be priced its price, which holds until the next is asked for.

    Args:
        graph: the float network.
        tensors: whose grids are to be chosen.
        feeds: a few frames.
        signed: whether codes are int8, else uint8.
        threads: CPU threads.

    Raises:
        EngineError: ONNX Runtime refuses a part of the network.
    """
    found = {tensor: ahead for tensor in tensors if (ahead := Downstream.of(graph, tensor)) is not None}
    sizes = {
        tensor: len(feeds) * sum(map(graph.bytes_of, {*ahead.entries, *ahead.ends})) for tensor, ahead in found.items()
    }
    for group in groups_within(sizes, TAP_MEMORY_BYTES):
        wanted = sorted({name for tensor in group for name in (*found[tensor].entries, *found[tensor].ends)})
        with open_float_taps(graph.model, wanted, threads=threads) as tapped:
            frames = [{name: value.copy() for name, value in {**feed, **tapped.infer(feed)}.items()} for feed in feeds]
        for tensor in group:
            model = found[tensor].model(graph, np.dtype(np.int8 if signed else np.uint8))
            with opened(build(model), threads=threads, integers=False) as engine:
                yield tensor, Price(found[tensor], engine, frames)


def _moments(real: NDArray[Any], ours: NDArray[Any]) -> NDArray[np.float64]:
    """(4, C): mean square and mean of what is lost, then of what should be there, by channel."""
    axis = 1 if real.ndim == 4 else real.ndim - 1
    others = tuple(position for position in range(real.ndim) if position != axis)
    lost = real - ours
    return np.stack([each.mean(axis=others, dtype=np.float64) for each in (lost * lost, lost, real * real, real)])


def _share_lost(moments: NDArray[np.float64]) -> float:
    """A mean error is no loss: the bias takes it back."""
    lost, power = moments[0] - moments[1] ** 2, np.maximum(moments[2] - moments[3] ** 2, SMALLEST_SCALE)
    return float(np.minimum(lost / power, 1.0).mean())
