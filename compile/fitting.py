"""Chooses for each tensor the range, and where it pays the equalizer, that costs the layers reading it least.

Every choice is judged by the error it makes at the output of the layers that read the tensor, on samples of what they
really read, their weights rounded as they will be: a range that looks bad in the tensor may be harmless behind the
weights, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.downstream import prices
from compile.equalization import Equalizer, admits_shift
from compile.graph import GraphView
from compile.observation import Observations, grouped_weight
from compile.placement import Placement
from compile.quantize import SMALLEST_SCALE, Grid, activation_grid
from compile.ranges import RANGE_RULES, Histogram, Range
from perception.engines.engine import Tensors

EXPONENTS = (0.25, 0.5, 0.75, 1.0)
"""How much of a channel's width is taken to the activation; the rest is left to the weights. 1 for depthwise layers."""
CLIPPED = (1.0, 0.7, 0.5)
"""Shares of the equalized range that the grid covers."""
NARROWEST = 1e-3
"""A channel counts as at least this share of the widest one, so that an almost silent channel is not blown up."""
WORTH_EQUALIZING = 0.9
"""An equalizer costs time in some engines: it must leave less than this share of the error."""
NARROWED = (0.5, 0.25, 0.125)
"""Shares of the lower end that are tried as well: an activation makes next to nothing of what lies far below zero."""
UNREAD_RULE = "minmax"
"""For a tensor behind which nothing can be run: nothing tells what clipping it would cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was chosen for one tensor.

    Attributes:
        range: interval of the tensor as it is.
        error: share of the variance lost at the output of its readers with that.
        equalizer: what does better; None where nothing does by enough.
        equalized_range: interval of the equalized tensor.
        equalized_error: share lost with the equalizer.
    """

    range: Range
    error: float
    equalizer: Equalizer | None = None
    equalized_range: Range | None = None
    equalized_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """What to fit.

    Attributes:
        graph: the float network.
        placement: where pairs stand.
        seen: of the calibration frames.
        feeds: a few of them.
        weight_bits: see `compile.quantize.weight_grid`.
        threads: CPU threads.
        equalizing: tensors may be equalized by operators; see `compile.equalization`.
    """

    graph: GraphView
    placement: Placement
    seen: Observations
    feeds: Sequence[Tensors]
    weight_bits: int
    threads: int
    equalizing: bool


def fit_tensors(job: Fitting) -> dict[str, Fit]:
    """Choose for every tensor in `placement.ranged_tensors`.

    Raises:
        EngineError: ONNX Runtime refuses a part of the network.
    """
    readers = integer_readers(job.graph, job.placement)
    signed = job.placement.rules.signed
    own_pair = {site.tensor for site in job.placement.sites if site.readers is not None}
    fits: dict[str, Fit] = {}
    for name in job.placement.ranged_tensors:
        layers = readers.get(name, ())
        tensor = _Tensor.of(job.graph, name, layers, job.seen, job.weight_bits)
        if tensor.layers and (name in own_pair or len(tensor.layers) == len(job.graph.readers[name])):
            fits[name] = _fit(tensor, signed=signed, equalizing=job.equalizing and name in own_pair)
    others = [name for name in job.placement.ranged_tensors if name not in fits]
    for name, price in prices(job.graph, others, job.feeds, signed=signed, threads=job.threads):
        fits[name] = _best_range(job.seen.histograms[name], price, signed=signed)
    unpriced = RANGE_RULES[UNREAD_RULE]
    return {
        name: fits.get(name) or Fit(unpriced(job.seen.histograms[name]), 0.0) for name in job.placement.ranged_tensors
    }


def integer_readers(graph: GraphView, placement: Placement) -> dict[str, tuple[onnx.NodeProto, ...]]:
    """Tensor → the integer layers that read it through its pair as their activation, in graph order."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    integer = frozenset(placement.integer_nodes)
    paired = {site.tensor for site in placement.sites}
    for node in graph.nodes:
        if node.name in integer and node.op_type in placement.rules.weighted_ops and node.input[0] in paired:
            readers.setdefault(node.input[0], []).append(node)
    return {tensor: tuple(nodes) for tensor, nodes in readers.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One reader: its weights (G, O, K) and what it reads (N, G, K), with the output's power to compare errors with."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    vectors: NDArray[np.float32]
    power: NDArray[np.float32]

    @classmethod
    def of(cls, node: onnx.NodeProto, weight: NDArray[np.float32], vectors: NDArray[np.float32]) -> Layer:
        """From weights as the node has them."""
        grouped = grouped_weight(node, weight)
        return cls(node, grouped, vectors, np.maximum(outputs_of(vectors, grouped).var(axis=0), SMALLEST_SCALE))

    @property
    def is_depthwise(self) -> bool:
        """Whether channels have groups, and so scales of weights, of their own."""
        return bool(self.weight.shape[0] > 1)

    def spread(self, by_channel: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C,) numbers laid out like one vector: (G, K)."""
        groups, _, length = self.weight.shape
        per_group = by_channel.reshape(groups, -1)
        return np.repeat(per_group, length // per_group.shape[1], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor:
    """A tensor to fit: its distribution, its channels' extremes, its readers."""

    name: str
    graph: GraphView
    seen: Observations
    layers: tuple[Layer, ...]
    weight_bits: int
    unsampled: bool

    @classmethod
    def of(
        cls, graph: GraphView, name: str, readers: Sequence[onnx.NodeProto], seen: Observations, weight_bits: int
    ) -> _Tensor:
        sampled = [node for node in readers if node.name in seen.samples]
        layers = tuple(
            Layer.of(node, graph.constants[node.input[1]].astype(np.float32), seen.samples[node.name])
            for node in sampled
        )
        return cls(name, graph, seen, layers, weight_bits, len(sampled) < len(readers))

    def error(self, grid: Grid, equalizer: Equalizer | None = None) -> float:
        """Share of the variance its readers lose, each output channel capped at 1, mean over readers."""
        return float(np.mean([lost(layer, grid, equalizer, self.weight_bits) for layer in self.layers]))

    @property
    def can_be_equalized(self) -> bool:
        convolutions = all(layer.node.op_type == "Conv" for layer in self.layers)
        return convolutions and not self.unsampled and self.name in self.seen.lows

    def equalizers(self) -> Iterator[Equalizer]:
        """What may be tried, the identity apart."""
        low, high = self.seen.lows[self.name], self.seen.highs[self.name]
        middles: list[NDArray[np.floating]] = [np.zeros_like(low)]
        if all(admits_shift(self.graph, layer.node) for layer in self.layers):
            middles.append((low + high) / 2)
        weights = self._weight_peaks()
        for middle in middles:
            width = np.maximum(high - middle, middle - low)
            if not width.any():  # silent on every calibration frame
                continue
            width = np.maximum(width, NARROWEST * width.max())
            for exponent in EXPONENTS if weights is not None else (1.0,):
                share = width**exponent
                if weights is not None:
                    share = share / weights ** (1 - exponent)
                share = share / np.exp(np.log(share).mean())
                yield Equalizer(middle.astype(np.float32), share.astype(np.float32))

    def _weight_peaks(self) -> NDArray[np.float32] | None:
        """(C,) the greatest weight each channel meets; None where all readers are depthwise, with a scale a channel."""
        peaks = [
            np.abs(layer.weight[0]).reshape(layer.weight.shape[1], -1, _kernel_size(layer.node, self.graph))
            for layer in self.layers
            if not layer.is_depthwise
        ]
        if not peaks:
            return None
        greatest = np.max([peak.max(axis=(0, 2)) for peak in peaks], axis=0)
        widest = float(greatest.max())
        peaks_kept: NDArray[np.float32] = np.maximum(greatest, NARROWEST * widest if widest else 1.0)
        return peaks_kept


def _fit(tensor: _Tensor, *, signed: bool, equalizing: bool) -> Fit:
    as_it_is = _best_range(tensor.seen.histograms[tensor.name], tensor.error, signed=signed)
    if not equalizing or not tensor.can_be_equalized:
        return as_it_is
    best = as_it_is
    for equalizer in tensor.equalizers():
        for interval in _equalized_ranges(tensor, equalizer):
            error = tensor.error(activation_grid(interval, signed=signed), equalizer)
            if error < WORTH_EQUALIZING * as_it_is.error and error < (best.equalized_error or np.inf):
                best = Fit(as_it_is.range, as_it_is.error, equalizer, interval, error)
    return best


def _best_range(histogram: Histogram, price: Callable[[Grid], float], *, signed: bool) -> Fit:
    """The range that costs least: by one rule at both ends, then, where the grid may lie anywhere, each end alone."""
    errors: dict[Range, float] = {}

    def least(ranges: Iterable[Range]) -> Range:
        tried = list(ranges)
        errors.update({each: price(activation_grid(each, signed=signed)) for each in tried if each not in errors})
        return min(tried, key=errors.__getitem__)

    ends = [rule(histogram) for rule in RANGE_RULES.values()]
    best = least(ends)
    if not signed:
        lows = [*(end.low for end in ends), *(best.low * share for share in NARROWED)]
        best = least(Range(low, best.high) for low in (best.low, *lows))
        best = least(Range(best.low, high) for high in (best.high, *(end.high for end in ends)))
    return Fit(best, errors[best])


def _equalized_ranges(tensor: _Tensor, equalizer: Equalizer) -> Iterator[Range]:
    low = ((tensor.seen.lows[tensor.name] - equalizer.shift) / equalizer.width).min()
    high = ((tensor.seen.highs[tensor.name] - equalizer.shift) / equalizer.width).max()
    for share in CLIPPED:
        yield Range(min(float(low) * share, 0.0), max(float(high) * share, 0.0))


def lost(layer: Layer, grid: Grid, equalizer: Equalizer | None, weight_bits: int) -> float:
    """Share of variance lost at a layer's output by rounding what it reads and its weights; a mean error is no loss,
    since the bias takes it back (`compile.reconstruction`).
    """
    weight, vectors = layer.weight, layer.vectors
    if equalizer is not None:
        width = layer.spread(equalizer.width)
        vectors = (vectors - layer.spread(equalizer.shift)) / width
        weight = weight * width[:, None, :]
    rounded = on_grid(vectors, grid)
    step = np.maximum(np.abs(weight).max(axis=2, keepdims=True) / (2 ** (weight_bits - 1) - 1), SMALLEST_SCALE)
    error = outputs_of(vectors - rounded, weight) + outputs_of(rounded, weight - np.rint(weight / step) * step)
    return float(np.minimum(error.var(axis=0) / layer.power, 1.0).mean())


def on_grid(values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """What is left of values after a QuantizeLinear and a DequantizeLinear with one scale."""
    low, high = (0, 255) if grid.zero_point.dtype == np.uint8 else (-128, 127)
    scale, zero = float(grid.scale), int(grid.zero_point)
    codes = np.clip(np.rint(values / np.float32(scale)) + np.float32(zero), low, high)
    kept: NDArray[np.float32] = (codes - np.float32(zero)) * np.float32(scale)
    return kept


def outputs_of(vectors: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, G, K) by (G, O, K) → (N, G, O)."""
    outputs: NDArray[np.float32] = np.matmul(vectors.swapaxes(0, 1), weight.swapaxes(1, 2)).swapaxes(0, 1)
    return outputs


def _kernel_size(node: onnx.NodeProto, graph: GraphView) -> int:
    return int(np.prod(graph.constants[node.input[1]].shape[2:]))


def equalized_readers(
    fits: Mapping[str, Fit], readers: Mapping[str, Sequence[onnx.NodeProto]]
) -> dict[str, tuple[str, ...]]:
    """Tensor with an equalizer → names of the layers that read it equalized."""
    equalized = [tensor for tensor, fit in fits.items() if fit.equalizer is not None and tensor in readers]
    return {tensor: tuple(node.name for node in readers[tensor]) for tensor in equalized}
