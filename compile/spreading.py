"""Spreads channels evenly over the codes of a grid: scaled by powers of two, so that no bit of any result changes.

A grid has one scale for a whole tensor: a channel that runs to 164 leaves its neighbours that run to 5 a handful of
codes. So the layer that makes a wide channel makes it smaller, and all that read it take that back in their weights,
wherever the operators between let a factor pass (`compile.channel_ties`). It costs no operator, in any engine.

How far the channels of a tensor are brought together is weighed on samples: what their grid gains, the weights' lose.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", and Xiao et al.
2023, "SmoothQuant", for the exponent; here through whole stages of a network, and exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compile.channel_ties import HELD, ChannelTies, scalable
from compile.equalization import Equalizer
from compile.fitting import CLIPPED, Layer, lost
from compile.graph import GraphView
from compile.observation import Observations
from compile.onnx_graph import attribute_of, tensors_read
from compile.quantize import activation_grid
from compile.ranges import Range

EXPONENTS = (0.25, 0.5, 0.75, 1.0)
"""How much of a channel's width is taken out of the activations; the rest stays for the weights to bear."""
NARROWEST = 2.0**-10
"""A channel counts as at least this share of the widest one, so that an almost silent channel is not blown up."""
WEIGHED = 512
"""Samples of what a layer reads that weigh."""
WORTH_SPREADING = 0.95
"""Spreading must leave less than this share of the noise."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """A layer that reads a tensor with a pair.

    Attributes:
        layer: its weights, and samples of what it reads.
        channels: (C,) ties of the tensor's channels.
        low: (C,) the smallest value of each.
        high: (C,) the greatest.
    """

    layer: Layer
    channels: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def noise(self, factors: Mapping[int, float], *, signed: bool) -> float:
        """Share of its output's variance that 8 bits lose on the best of a few grids, the widest first."""
        factor = _looked_up(self.channels, factors).astype(np.float32)
        low, high = min(float((self.low / factor).min()), 0.0), max(float((self.high / factor).max()), 0.0)
        equalizer = Equalizer(np.zeros_like(factor), factor)
        grids = [activation_grid(Range(low * share, high * share), signed=signed) for share in CLIPPED]
        return min(lost(self.layer, grid, equalizer, 8) for grid in grids)


def spread(graph: GraphView, tensors: Sequence[str], seen: Observations, *, signed: bool) -> GraphView:
    """The same network, its channels scaled where that leaves less noise in 8 bits; the graph itself where nowhere.

    Args:
        graph: the float network.
        tensors: those with a pair.
        seen: extremes of their channels, and samples of what layers read.
        signed: whether activations are int8, else uint8.
    """
    ties = ChannelTies.found_in(graph)
    tied = {
        name: channels
        for name in tensors
        if name in seen.lows and (channels := ties.by_channel(name)) is not None and (channels != HELD).any()
    }
    factors: dict[int, float] = {}
    for group in _groups(tied):
        readers = [reader for name in group for reader in _readers(graph, name, tied[name], seen)]
        widths = [(tied[name], np.maximum(seen.highs[name], -seen.lows[name])) for name in group]
        factors |= _factors(readers, _shares(widths), signed=signed)
    return GraphView.of(_scaled(graph, ties, factors)) if factors else graph


def _groups(tied: Mapping[str, NDArray[np.int64]]) -> list[list[str]]:
    """Tensors that share a tie, straight or through others, together."""
    groups: list[tuple[set[int], list[str]]] = []
    for name, channels in tied.items():
        own, names = set(channels.tolist()) - {HELD}, [name]
        for other in [group for group in groups if group[0] & own]:
            groups.remove(other)
            own, names = own | other[0], [*other[1], *names]
        groups.append((own, names))
    return [names for _, names in groups]


def _factors(readers: Sequence[_Reader], widths: Mapping[int, float], *, signed: bool) -> dict[int, float]:
    """Tie → what its channels are divided by, where that pays."""
    before = sum(reader.noise({}, signed=signed) for reader in readers)
    dense = [reader for reader in readers if not reader.layer.is_depthwise]
    weights = _shares([(reader.channels, _weight_peaks(reader)) for reader in dense])
    best: dict[int, float] = {}
    least = WORTH_SPREADING * before
    for exponent in EXPONENTS:
        logs = {tie: exponent * width - (1 - exponent) * weights.get(tie, 0.0) for tie, width in widths.items()}
        middle = float(np.median(list(logs.values())))
        tried = {tie: float(2.0 ** round(log - middle)) for tie, log in logs.items()}
        if (noise := sum(reader.noise(tried, signed=signed) for reader in readers)) < least:
            best, least = tried, noise
    return {tie: factor for tie, factor in best.items() if factor != 1.0}


def _weight_peaks(reader: _Reader) -> NDArray[np.float32]:
    """(C,): the greatest weight each channel meets."""
    weight = reader.layer.weight[0]
    peaks: NDArray[np.float32] = np.abs(weight).reshape(len(weight), len(reader.channels), -1).max(axis=(0, 2))
    return peaks


def _shares(found: Sequence[tuple[NDArray[np.int64], NDArray[np.floating]]]) -> dict[int, float]:
    """Tie → log2 of its width as a share of the widest beside it, the greatest where it is found several times:
    a channel that is narrow behind its Relu may be wide before it, and have a grid there too.
    """
    logs: dict[int, list[float]] = {}
    for ties, widths in found:
        widest = float(widths.max())
        shares = np.log2(np.maximum(widths / widest, NARROWEST)) if widest else np.zeros(len(widths))
        for tie in np.unique(ties[ties != HELD]).tolist():
            logs.setdefault(tie, []).append(float(shares[ties == tie].max()))
    return {tie: max(each) for tie, each in logs.items()}


def _readers(graph: GraphView, name: str, channels: NDArray[np.int64], seen: Observations) -> list[_Reader]:
    made = []
    for node in graph.readers.get(name, ()):
        if scalable(graph, node) and node.name in seen.samples:
            samples = seen.samples[node.name]
            layer = Layer.of(
                node, graph.constants[node.input[1]].astype(np.float32), samples[:: len(samples) // WEIGHED | 1]
            )
            made.append(_Reader(layer, channels, seen.lows[name], seen.highs[name]))
    return made


def _looked_up(ties: NDArray[np.int64], factors: Mapping[int, float]) -> NDArray[np.float64]:
    unique, places = np.unique(ties, return_inverse=True)
    return np.array([factors.get(tie, 1.0) for tie in unique.tolist()])[places].reshape(ties.shape)


def _scaled(graph: GraphView, ties: ChannelTies, factors: Mapping[int, float]) -> onnx.ModelProto:
    """The network with the factors in the weights of the layers around the scaled channels."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for node in model.graph.node:
        if scalable(graph, node):
            _scale(model, graph, node, ties, factors)
    read = {name for node in model.graph.node for name in tensors_read(node)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read or tensor.name in graph.outputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _scale(
    model: onnx.ModelProto, graph: GraphView, node: onnx.NodeProto, ties: ChannelTies, factors: Mapping[int, float]
) -> None:
    read, made = ties.by_channel(node.input[0]), ties.by_channel(node.output[0])
    divided = np.ones(1) if made is None else _looked_up(made, factors)
    taken = np.ones(1) if read is None else _looked_up(read, factors)
    if (divided == 1).all() and (taken == 1).all():
        return
    weight, *biases = (graph.constants[name].astype(np.float32) for name in node.input[1:])
    grouped = weight.reshape(int(attribute_of(node, "group", 1)) if taken.size > 1 else 1, -1, *weight.shape[1:])
    taking = grouped * taken.reshape(grouped.shape[0], 1, -1, 1, 1)
    scaled = [taking.reshape(weight.shape) / divided.reshape(-1, 1, 1, 1), *(bias / divided for bias in biases)]
    for place, values in enumerate(scaled, start=1):
        name = f"{node.name}::spread_{place}"
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        node.input[place] = name
