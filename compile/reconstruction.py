"""Makes integer layers answer like the float ones: weights rounded together, and the mean error taken out of the bias.

Layer by layer, in the order of the graph, each sees what the integer layers before it give it and is fitted to what
the float layer gives; a correction made earlier is thus never made twice. No labels are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
from perception.engines.engine import Tensors

Rounding = Literal["nearest", "gptq"]

DAMPING = 0.01
SHRUNK = np.linspace(0.7, 1.0, 16)
"""Widths of a weight grid that are tried, as shares of the widest weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """What to reconstruct.

    Attributes:
        graph: the float network.
        placement: where pairs stand.
        ranges: interval of every tensor in `placement.ranged_tensors`.
        rounding: `nearest`, or `gptq` for weights rounded one input after the other, each taking up the error so far.
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
            vectors = on_grid(self._vectors(node, weight.shape), self._grids[node.input[0]])
            codes, scale = _rounded_together(grouped_weight(node, weight), vectors, self._job.weight_bits)
            start = self._weights[node.name]
            grid = Grid(scale.ravel(), np.zeros(scale.size, np.int8))
            weights = IntegerWeights(ungrouped_weight(node, codes, weight.shape).astype(np.int8), grid, start.bias)
            self._weights[node.name] = weights
            self._integer.set_constant(f"{node.name}::weight", weights.codes)
            self._integer.set_constant(f"{node.name}::weight::scale", grid.scale)

    def _vectors(self, node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """What the integer network gives a layer to read, on samples of all frames."""
        taken = []
        for number, values in enumerate(self._integer.values(self._inputs[node.name])):
            outputs = output_count(node, shape, values.shape)
            picks = np.random.default_rng(number).choice(outputs, min(outputs, -(-SAMPLES // self._frames)), False)
            taken.append(vectors_read(node, shape, values.astype(np.float32, copy=False), np.sort(picks)))
        return np.concatenate(taken)

    def _correct(self, group: list[onnx.NodeProto]) -> None:
        """Take the mean error of each channel out of the bias."""
        chosen = [node for node in group if self._weights[node.name].bias is not None]
        self._float.reach([node.output[0] for node in chosen])
        self._integer.reach([self._outputs[node.name] for node in chosen])
        for node in chosen:
            channel = 1 if node.op_type.startswith("Conv") else -1
            final = self._outputs[node.name]
            pairs = zip(self._float.values(node.output[0]), self._integer.values(final), strict=True)
            error = np.mean([_by_channel(real - ours, channel) for real, ours in pairs], axis=0).astype(np.float32)
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


def _by_channel(error: NDArray[np.float32], channel: int) -> NDArray[np.float64]:
    others = tuple(axis for axis in range(error.ndim) if axis != channel % error.ndim)
    means: NDArray[np.float64] = error.mean(axis=others, dtype=np.float64)
    return means


def _rounded_together(
    weight: NDArray[np.float32], vectors: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes (G, O, K) and scales (G, O) that keep the layer's outputs, not each weight.

    Input by input, the most powerful first: a weight is rounded, and what that does to the outputs is taken up by the
    weights not rounded yet, as far as the inputs move together.

    Source: Frantar et al. 2022, "GPTQ"; the grid's width is searched as in Nagel et al. 2021, "A White Paper on Neural
    Network Quantization".
    """
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64).swapaxes(0, 1)
    moments = centred.swapaxes(1, 2) @ centred / vectors.shape[0]
    power = np.einsum("gkk->gk", moments)
    damping = DAMPING * power.mean(axis=1) + np.finfo(np.float32).tiny
    moments = moments + np.eye(power.shape[1]) * damping[:, None, None]
    limit = 2 ** (bits - 1) - 1
    scale = _best_scale(weight.astype(np.float64), power + damping[:, None], limit)
    order = np.argsort(-power, axis=1, kind="stable")
    rest = np.take_along_axis(weight.astype(np.float64), order[:, None, :], 2)
    sorted_moments = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    passing_on = np.linalg.cholesky(np.linalg.inv(sorted_moments)).swapaxes(1, 2)
    codes = np.empty_like(rest)
    for k in range(rest.shape[2]):
        codes[:, :, k] = np.clip(np.rint(rest[:, :, k] / scale), -limit, limit)
        error = (rest[:, :, k] - codes[:, :, k] * scale) / passing_on[:, k, k, None]
        rest[:, :, k + 1 :] -= error[:, :, None] * passing_on[:, k, None, k + 1 :]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes, back[:, None, :], 2).astype(np.float32), scale.astype(np.float32)


def _best_scale(weight: NDArray[np.float64], power: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """(G, O): for each output the scale whose rounding costs least, inputs weighed by their power."""
    peak = np.abs(weight).max(axis=2)
    tried = np.where(peak > 0, np.maximum(peak / limit, SMALLEST_SCALE), 1.0) * SHRUNK[:, None, None]
    errors = []
    for scale in tried.astype(np.float32).astype(np.float64):
        rounded = np.clip(np.rint(weight / scale[:, :, None]), -limit, limit) * scale[:, :, None]
        errors.append(((weight - rounded) ** 2 * power[:, None, :]).sum(axis=2))
    best = np.argmin(errors, axis=0)
    chosen: NDArray[np.float64] = np.take_along_axis(tried, best[None], 0)[0]
    return chosen.astype(np.float32).astype(np.float64)
