"""Makes integer layers answer like the float ones: weights refitted and rounded together, biases corrected.

Layer by layer, in the order of the graph, each sees what the integer layers before it give it and is fitted to what
the float layer gives; a correction made earlier is thus never made twice. No labels are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.fitting import on_grid
from compile.frontier import Frontier, levels_of
from compile.graph import GraphView
from compile.observation import SAMPLES, grouped_weight, output_count, sampled_layers, ungrouped_weight, vectors_read
from compile.placement import Placement
from compile.quantize import (
    Grid,
    IntegerWeights,
    activation_grids,
    output_channels,
    quantize,
    rounded_to_nearest,
)
from compile.ranges import Range
from compile.recordings import no_progress
from compile.rounding import refitted, rounded_together
from perception.engines.engine import Tensors

Rounding = Literal["nearest", "gptq"]

TRIMMED = 0.05
"""Share of the errors at either end that a correction does not follow."""
ERRORS_A_FRAME = 512


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What to reconstruct.

    Attributes:
        graph: the float network.
        placement: where pairs stand.
        ranges: interval of every tensor in `placement.ranged_tensors`.
        rounding: `nearest`, or `gptq` for weights that are refitted and then rounded one input after the other, each
            taking up the error so far; see `compile.rounding`.
        weight_bits: see `compile.quantize.weight_grid`.
        threads: CPU threads.
    """

    graph: GraphView
    placement: Placement
    ranges: Mapping[str, Range]
    rounding: Rounding
    weight_bits: int
    threads: int


def reconstruct(
    job: Reconstruction, feeds: Iterable[Tensors], *, advance: Callable[[], None] = no_progress
) -> dict[str, IntegerWeights]:
    """Weights and biases of every integer layer that has a channel axis to correct.

    Args:
        job: what to reconstruct.
        feeds: a few calibration frames; all are held in memory with what they become at one depth of the network.
        advance: called after each group of layers.

    Raises:
        EngineError: ONNX Runtime refuses a part of the network.
    """
    return _Reconstructor(job, list(feeds)).run(advance)


class _Reconstructor:
    """Walks the float and the integer network side by side."""

    def __init__(self, job: Reconstruction, feeds: list[Tensors]) -> None:
        self._job = job
        graph, integer = job.graph, frozenset(job.placement.integer_nodes)
        nodes = [
            node for node in graph.nodes if node.name in integer and node.op_type in job.placement.rules.weighted_ops
        ]
        self._weights = {node.name: self._starting(node) for node in nodes}
        self._sampled = {node.name for node in sampled_layers(graph, integer)}
        # The bias stays float while it moves; the finished model gives it its integer grid.
        walked = replace(job.placement, rules=replace(job.placement.rules, int32_bias=False))
        model = quantize(graph, walked, job.ranges, weights=self._weights, weight_bits=job.weight_bits)
        self._outputs = {node.name: str(node.output[0]) for node in model.graph.node}
        self._inputs = {
            node.name: _before_pair(str(node.input[0])) for node in model.graph.node if node.name in self._weights
        }
        self._grids = activation_grids(job.placement, job.ranges)
        self._float = Frontier(graph.model, feeds, threads=job.threads)
        self._integer = Frontier(model, feeds, threads=job.threads)
        self._frames = len(feeds)

    def run(self, advance: Callable[[], None]) -> dict[str, IntegerWeights]:
        groups = levels_of(self._job.graph.nodes, self._weights)
        for number, group in enumerate(groups):
            if self._job.rounding == "gptq":
                self._round(group)
            self._correct(group)
            later = [node for rest in groups[number + 1 :] for node in rest]
            self._float.forget_all_but([name for node in later for name in (node.input[0], node.output[0])])
            self._integer.forget_all_but([self._outputs[node.name] for node in later])
            advance()
        return self._weights

    def _starting(self, node: onnx.NodeProto) -> IntegerWeights:
        nearest = rounded_to_nearest(self._job.graph, node, bits=self._job.weight_bits)
        if nearest.bias is None and len(node.input) < 3 and node.op_type != "MatMul":
            return replace(nearest, bias=np.zeros(output_channels(node, nearest.codes.shape), np.float32))
        return nearest

    def _round(self, group: list[onnx.NodeProto]) -> None:
        chosen = [node for node in group if node.name in self._sampled]
        self._float.reach([node.input[0] for node in chosen])
        self._integer.reach([self._inputs[node.name] for node in chosen])
        for node in chosen:
            weight = self._job.graph.constants[node.input[1]].astype(np.float32)
            real = self._vectors(node, self._float.values(node.input[0]))
            ours = on_grid(
                self._vectors(node, self._integer.values(self._inputs[node.name])), self._grids[node.input[0]]
            )
            moved = refitted(grouped_weight(node, weight), real, ours)
            codes, scale = rounded_together(moved, ours, self._job.weight_bits)
            start = self._weights[node.name]
            grid = Grid(scale.ravel(), np.zeros(scale.size, np.int8))
            weights = IntegerWeights(ungrouped_weight(node, codes, weight.shape).astype(np.int8), grid, start.bias)
            self._weights[node.name] = weights
            self._integer.set_constant(f"{node.name}::weight", weights.codes)
            self._integer.set_constant(f"{node.name}::weight::scale", grid.scale)

    def _vectors(self, node: onnx.NodeProto, frames: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """What a layer reads, on samples of all frames: at the same places whichever network the frames are of."""
        shape = self._job.graph.constants[node.input[1]].shape
        taken = []
        for number, values in enumerate(frames):
            outputs = output_count(node, shape, values.shape)
            picks = np.random.default_rng(number).choice(outputs, min(outputs, -(-SAMPLES // self._frames)), False)
            taken.append(vectors_read(node, shape, values.astype(np.float32, copy=False), np.sort(picks)))
        return np.concatenate(taken)

    def _correct(self, group: list[onnx.NodeProto]) -> None:
        """Take the typical error of each channel out of the bias."""
        chosen = [node for node in group if self._weights[node.name].bias is not None]
        self._float.reach([node.output[0] for node in chosen])
        self._integer.reach([self._outputs[node.name] for node in chosen])
        for node in chosen:
            channel = 1 if node.op_type.startswith("Conv") else -1
            final = self._outputs[node.name]
            pairs = zip(self._float.values(node.output[0]), self._integer.values(final), strict=True)
            error = _typical([real - ours for real, ours in pairs], channel)
            start = self._weights[node.name]
            if start.bias is None or error.shape != start.bias.shape:
                continue
            self._weights[node.name] = replace(start, bias=start.bias + error)
            self._integer.set_constant(f"{node.name}::bias", start.bias + error)
            rank = self._integer.values(final)[0].ndim
            self._integer.add(final, error.reshape(-1, *[1] * (rank - 2)) if channel == 1 else error)


def _before_pair(name: str) -> str:
    """A tensor's name before its Q/DQ pair, from the name a quantized node reads it by."""
    return name.removesuffix("::dequantized")


def _typical(errors: Sequence[NDArray[np.float32]], channel: int) -> NDArray[np.float32]:
    """(C,): mean error by channel over frames, the outermost at both ends left out.

    A few strong features that are clipped have errors a hundred times the others'. A mean over all of them would lift
    everything else by what they lost.
    """
    taken = []
    for error in errors:
        by_channel = np.moveaxis(error, channel, 0).reshape(error.shape[channel], -1)
        taken.append(by_channel[:, :: by_channel.shape[1] // ERRORS_A_FRAME | 1])
    ordered = np.sort(np.concatenate(taken, axis=1), axis=1)
    cut = int(TRIMMED * ordered.shape[1])
    means: NDArray[np.float32] = (
        ordered[:, cut : ordered.shape[1] - cut].mean(axis=1, dtype=np.float64).astype(np.float32)
    )
    return means
