"""Spreads channels evenly over the codes of a grid: scaled by powers of two, so that no bit of any result changes.

A grid has one scale for a whole tensor: a channel that runs to 164 leaves its neighbours that run to 5 a handful of
codes. So the layer that makes a wide channel makes it smaller, and all that read it take that back in their weights,
wherever the operators between let a factor pass (`compile.channel_ties`). It costs no operator, in any engine.

How far the channels of a tensor are brought together is weighed: what their grid gains, the weights' grids lose.

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
from compile.graph import GraphView
from compile.observation import Observations, grouped_weight
from compile.onnx_graph import attribute_of, tensors_read

EXPONENTS = (0.25, 0.5, 0.75, 1.0)
"""How much of a channel's width is taken out of the activations; the rest stays for the weights to bear."""
NARROWEST = 2.0**-10
"""A channel counts as at least this share of the widest one, so that an almost silent channel is not blown up."""
WORTH_SPREADING = 0.95
"""Spreading must leave less than this share of the noise."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    """A layer that reads a tensor with a pair.

    Attributes:
        weight: (G, O, K).
        ties: (G, K) of what it reads.
        power: (G, K) mean square of what it reads.
        widths: (C,) of the tensor's channels.
        channels: (C,) their ties.
    """

    weight: NDArray[np.float32]
    ties: NDArray[np.int64]
    power: NDArray[np.float64]
    widths: NDArray[np.float64]
    channels: NDArray[np.int64]

    def noise(self, factors: Mapping[int, float]) -> float:
        """Share of its output's power that 8 bits make noise of, each output capped at 1; an estimate in closed form.

        Roundings are taken for independent of each other and of the values, so that their powers add up.
        """
        factor = _looked_up(self.ties, factors)
        step = (self.widths / _looked_up(self.channels, factors)).max() / 255
        widened = self.weight.astype(np.float64) * factor[:, None, :]
        from_inputs = step**2 * (widened**2).sum(axis=2)
        weight_step = np.abs(widened).max(axis=2) / 127
        from_weights = weight_step**2 * (self.power / factor**2).sum(axis=1)[:, None]
        signal = (self.weight.astype(np.float64) ** 2 * self.power[:, None, :]).sum(axis=2)
        share = (from_inputs + from_weights) / 12 / np.maximum(signal, np.finfo(np.float64).tiny)
        return float(np.minimum(share, 1.0).mean())


def spread(graph: GraphView, tensors: Sequence[str], seen: Observations) -> GraphView:
    """The same network, its channels scaled where that leaves less noise in 8 bits; the graph itself where nowhere.

    Args:
        graph: the float network.
        tensors: those with a pair.
        seen: extremes and mean squares of their channels.
    """
    ties = ChannelTies.found_in(graph)
    tied = {
        name: channels
        for name in tensors
        if name in seen.lows and (channels := ties.by_channel(name)) is not None and (channels != HELD).any()
    }
    factors: dict[int, float] = {}
    for group in _groups(tied):
        factors |= _factors(graph, {name: tied[name] for name in group}, seen)
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


def _factors(graph: GraphView, tied: Mapping[str, NDArray[np.int64]], seen: Observations) -> dict[int, float]:
    """Tie → what its channels are divided by, where that pays."""
    readers = [reader for name, channels in tied.items() for reader in _readers(graph, name, channels, seen)]
    before = sum(reader.noise({}) for reader in readers)
    widths = _shares([(channels, _widths(seen, name)) for name, channels in tied.items()])
    weights = _shares([(r.ties.ravel(), np.abs(r.weight).max(axis=1).ravel()) for r in readers if len(r.weight) == 1])
    best, least = {}, WORTH_SPREADING * before
    for exponent in EXPONENTS:
        logs = {tie: exponent * width - (1 - exponent) * weights.get(tie, 0.0) for tie, width in widths.items()}
        middle = float(np.median(list(logs.values())))
        tried = {tie: float(2.0 ** round(log - middle)) for tie, log in logs.items()}
        if (noise := sum(reader.noise(tried) for reader in readers)) < least:
            best, least = tried, noise
    return {tie: factor for tie, factor in best.items() if factor != 1.0}


def _shares(found: Sequence[tuple[NDArray[np.int64], NDArray[np.floating]]]) -> dict[int, float]:
    """Tie → log2 of its width as a share of the widest beside it, the mean where it is found several times."""
    logs: dict[int, list[float]] = {}
    for ties, widths in found:
        widest = float(widths.max())
        shares = np.log2(np.maximum(widths / widest, NARROWEST)) if widest else np.zeros(len(widths))
        for tie in np.unique(ties[ties != HELD]).tolist():
            logs.setdefault(tie, []).append(float(shares[ties == tie].max()))
    return {tie: float(np.mean(each)) for tie, each in logs.items()}


def _readers(graph: GraphView, name: str, channels: NDArray[np.int64], seen: Observations) -> list[_Reader]:
    made = []
    for node in graph.readers.get(name, ()):
        if not scalable(graph, node) or node.input[0] != name:
            continue
        weight = grouped_weight(node, graph.constants[node.input[1]].astype(np.float32))
        groups, _, length = weight.shape
        area = length // (len(channels) // groups)
        ties = np.repeat(channels.reshape(groups, -1), area, axis=1)
        power = np.repeat(seen.squares[name].reshape(groups, -1), area, axis=1)
        made.append(_Reader(weight, ties, power, _widths(seen, name), channels))
    return made


def _widths(seen: Observations, name: str) -> NDArray[np.float64]:
    """(C,): how far each channel reaches from zero."""
    return np.maximum(seen.highs[name], -seen.lows[name]).astype(np.float64)


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
