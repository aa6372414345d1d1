"""Makes integer layers answer like the float ones: weights refitted and rounded together, biases corrected.

Layer by layer, in the order of the graph, each sees what the integer layers before it give it and is fitted to what
the float layer gives; a correction made earlier is thus never made twice. No labels are needed. Nor does one way serve
all layers: each layer's is chosen, on frames that it was not fitted on, by the error behind its activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.fitting import on_grid, outputs_of
from compile.frontier import Frontier, levels_of
from compile.graph import GraphView
from compile.observation import SAMPLES, grouped_weight, output_count, sampled_layers, ungrouped_weight, vectors_read
from compile.placement import Placement
from compile.quantize import (
    SMALLEST_SCALE,
    Grid,
    IntegerWeights,
    activation_grids,
    output_channels,
    quantize,
    rounded_to_nearest,
)
from compile.ranges import Range
from compile.recordings import no_progress
from compile.rounding import Rounded, rounded_in_ways
from compile.slopes import LEAST_PASSED, slopes
from perception.engines.engine import Tensors

T = TypeVar("T")
Vectors: TypeAlias = NDArray[np.float32]
Rounding = Literal["nearest", "chosen"]

TRIMMED = (0.0, 0.05)
"""Shares of the errors at either end that a correction may leave alone: a few strong features that are clipped have
errors a hundred times the others', and following them would lift everything else by what they lost."""
ERRORS_A_FRAME = 512
JUDGING = 3
"""Every so many frames one judges what the others were fitted to."""


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What to reconstruct.

    Attributes:
        graph: the float network.
        placement: where pairs stand.
        ranges: interval of every tensor in `placement.ranged_tensors`.
        rounding: of the weights: `nearest`, or `chosen` for each layer among that, rounded together and refitted
            before that; see `compile.rounding`. Biases are corrected, where that helps, with either.
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
            if self._job.rounding == "chosen":
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
            ours = [
                on_grid(vectors, self._grids[node.input[0]])
                for vectors in self._vectors(node, self._integer.values(self._inputs[node.name]))
            ]
            found = self._best(node, grouped_weight(node, weight), real, ours)
            codes = ungrouped_weight(node, found.codes, weight.shape).astype(np.int8)
            grid = Grid(found.scale.ravel(), np.zeros(found.scale.size, np.int8))
            self._weights[node.name] = replace(self._weights[node.name], codes=codes, grid=grid, how=found.how)
            self._integer.set_constant(f"{node.name}::weight", codes)
            self._integer.set_constant(f"{node.name}::weight::scale", grid.scale)

    def _best(
        self, node: onnx.NodeProto, weight: NDArray[np.float32], real: Sequence[Vectors], ours: Sequence[Vectors]
    ) -> Rounded:
        """Of a layer's weights (G, O, K) rounded in several ways the one that loses least on frames that judge."""
        seen, given = (np.concatenate(_fitting(vectors)) for vectors in (real, ours))
        judged, judged_given = (np.concatenate(_judging(vectors)) for vectors in (real, ours))
        wanted = outputs_of(judged, weight)
        bias = self._weights[node.name].bias
        before = wanted if bias is None else wanted + bias.reshape(wanted.shape[1:])
        passed = slopes(self._job.graph, node.output[0], before) ** 2 + LEAST_PASSED

        def lost(rounded: Rounded) -> float:
            error = wanted - outputs_of(judged_given, rounded.codes * rounded.scale[:, :, None])
            return float(np.minimum(_variance(error, passed) / _variance(wanted, passed), 1.0).mean())

        return min(rounded_in_ways(weight, seen, given, self._job.weight_bits), key=lost)

    def _vectors(self, node: onnx.NodeProto, frames: Sequence[NDArray[np.float32]]) -> list[Vectors]:
        """What a layer reads, samples of each frame: at the same places whichever network the frames are of."""
        shape = self._job.graph.constants[node.input[1]].shape
        taken = []
        for number, values in enumerate(frames):
            outputs = output_count(node, shape, values.shape)
            picks = np.random.default_rng(number).choice(outputs, min(outputs, -(-SAMPLES // self._frames)), False)
            taken.append(vectors_read(node, shape, values.astype(np.float32, copy=False), np.sort(picks)))
        return taken

    def _correct(self, group: list[onnx.NodeProto]) -> None:
        """Take the typical error of each channel out of the bias, where frames that judge say that it helps."""
        chosen = [node for node in group if self._weights[node.name].bias is not None]
        self._float.reach([node.output[0] for node in chosen])
        self._integer.reach([self._outputs[node.name] for node in chosen])
        for node in chosen:
            channel = 1 if node.op_type.startswith("Conv") else -1
            final, start = self._outputs[node.name], self._weights[node.name]
            ours = self._integer.values(final)
            error = self._correction(node, ours, channel)
            if start.bias is None or error.shape != start.bias.shape or not error.any():
                continue
            how = f"{start.how}, bias corrected".removeprefix(", ")
            self._weights[node.name] = replace(start, bias=start.bias + error, how=how)
            self._integer.set_constant(f"{node.name}::bias", start.bias + error)
            self._integer.add(final, error.reshape(-1, *[1] * (ours[0].ndim - 2)) if channel == 1 else error)

    def _correction(
        self, node: onnx.NodeProto, ours: Sequence[NDArray[np.float32]], channel: int
    ) -> NDArray[np.float32]:
        """(C,): of the errors' means that leave out more or less, and of nothing, what leaves the least error."""
        real = [_by_channel(values, channel) for values in self._float.values(node.output[0])]
        errors = [wanted - _by_channel(values, channel) for wanted, values in zip(real, ours, strict=True)]
        passed = [slopes(self._job.graph, node.output[0], values) ** 2 + LEAST_PASSED for values in real]
        fitted, weights = (np.concatenate(_fitting(each), axis=1) for each in (errors, passed))
        judged, judging = (np.concatenate(_judging(each), axis=1) for each in (errors, passed))
        tried = [np.zeros(len(fitted), np.float32), *(typical(fitted, weights, trimmed) for trimmed in TRIMMED)]
        left = [(judging * np.abs(judged - each[:, None])).sum(axis=1) for each in tried]
        best: NDArray[np.float32] = np.choose(np.argmin(left, axis=0), tried)
        return best


def _before_pair(name: str) -> str:
    """A tensor's name before its Q/DQ pair, from the name a quantized node reads it by."""
    return name.removesuffix("::dequantized")


def _fitting(frames: Sequence[T]) -> list[T]:
    return [frame for number, frame in enumerate(frames) if (number + 1) % JUDGING] or list(frames)


def _judging(frames: Sequence[T]) -> list[T]:
    return [frame for number, frame in enumerate(frames) if not (number + 1) % JUDGING] or list(frames)


def _variance(values: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(G, O): of (N, G, O) values, each counted by its weight."""
    total = weights.sum(axis=0)
    means = (weights * values).sum(axis=0) / total
    spread: NDArray[np.float32] = (weights * (values - means) ** 2).sum(axis=0) / total
    return np.maximum(spread, SMALLEST_SCALE)


def _by_channel(values: NDArray[np.float32], channel: int) -> NDArray[np.float32]:
    """(C, N): some of the values of one frame, evenly."""
    rows = np.moveaxis(values, channel, 0).reshape(values.shape[channel], -1)
    return rows[:, :: rows.shape[1] // ERRORS_A_FRAME | 1]


def typical(errors: NDArray[np.float32], weights: NDArray[np.float32], trimmed: float) -> NDArray[np.float32]:
    """(C,): mean of each channel's errors (C, N), each counted by its weight, a share of them at both ends left out."""
    low, high = np.quantile(errors, (trimmed, 1 - trimmed), axis=1, keepdims=True)
    counted = weights * ((errors >= low) & (errors <= high))
    means: NDArray[np.float32] = (
        (counted * errors).sum(axis=1, dtype=np.float64) / counted.sum(axis=1, dtype=np.float64)
    ).astype(np.float32)
    return means
