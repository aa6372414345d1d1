"""Spreads the channels of a tensor evenly over the codes of one grid, without changing what the network computes.

A grid has one scale for a whole tensor. Where one channel runs to 164 and its neighbours to 5, the neighbours are left
with a handful of codes; where values lie between −0.3 and 9, a grid around zero wastes half of them. So each channel
is shifted to its middle and divided by its own width just before the grid, and the layers that read it take both back
in their weights and bias. That is exact, but for a shift in front of a convolution that pads with zeros: there only
the division is used.

It is an operator of its own by channel in front of the pair, which TensorRT does not fuse into the activation before it
(its pointwise fusion takes scales and constants of one number only): a kernel and a pass over memory. So it is for what
`compile.spreading` leaves uneven.

Source: the idea of moving ranges between activations and weights is Nagel et al. 2019 (cross-layer equalization) and
Xiao et al. 2023 (SmoothQuant); here it needs no activation that commutes with scaling. NVIDIA, TensorRT Developer
Guide, "PointWise Fusion".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.graph import GraphView
from compile.observation import Window
from compile.onnx_graph import attribute_of, tensors_read


@dataclass(frozen=True, slots=True, eq=False)
class Equalizer:
    """How a tensor of C channels is put on its grid: (value − shift) / width.

    Attributes:
        shift: (C,) float32.
        width: (C,) float32, above 0.
    """

    shift: NDArray[np.float32]
    width: NDArray[np.float32]

    @property
    def shifts(self) -> bool:
        """Whether any channel is shifted."""
        return bool(self.shift.any())


def equalized_name(tensor: str) -> str:
    """What the layers read in place of `tensor`."""
    return f"{tensor}::equalized"


def admits_shift(graph: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a shift in front of a convolution is exact: it must not pad, its bias must be known."""
    kernel = graph.constants[node.input[1]].shape[2:]
    known_bias = len(node.input) < 3 or node.input[2] in graph.constants
    return known_bias and Window.of(node, kernel, graph.shapes[node.input[0]][2:]).pads_nothing


def equalize(
    graph: GraphView, equalizers: Mapping[str, Equalizer], readers: Mapping[str, tuple[str, ...]]
) -> onnx.ModelProto:
    """The same network with some tensors equalized for the convolutions that read them.

    Args:
        graph: the float network.
        equalizers: tensor of shape (1, C, H, W) → how.
        readers: the same tensor → names of the convolutions that read it equalized; others read it as it is.
    """
    tensor_of = {node: name for name, nodes in readers.items() for node in nodes}
    writer = _Writer(graph, equalizers, tensor_of)
    for name in graph.inputs:
        writer.add_equalized(name)
    for node in graph.nodes:
        writer.copy(node)
    return writer.model()


@dataclass(slots=True)
class _Writer:
    """Rewrites a graph.

    Attributes:
        tensor_of: convolution → the equalized tensor it reads.
    """

    graph: GraphView
    equalizers: Mapping[str, Equalizer]
    tensor_of: Mapping[str, str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    values: list[onnx.ValueInfoProto] = field(default_factory=list)

    def copy(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.name in self.tensor_of:
            self._read_equalized(copy, self.equalizers[self.tensor_of[node.name]])
        self.nodes.append(copy)
        for name in node.output:
            self.add_equalized(name)

    def add_equalized(self, tensor: str) -> None:
        """Put the shift and the division behind a tensor that has an equalizer.

        As one batch normalization, which every engine knows as a scale and a shift by channel: TensorRT 8.6 does not
        build what an Add and a Mul by channel make of some networks.
        """
        equalizer = self.equalizers.get(tensor)
        if equalizer is None:
            return
        final, channels = equalized_name(tensor), len(equalizer.width)
        self.values.append(helper.make_tensor_value_info(final, onnx.TensorProto.FLOAT, self.graph.shapes[tensor]))
        factors = {
            "scale": np.reciprocal(equalizer.width),
            "bias": -equalizer.shift / equalizer.width,
            "mean": np.zeros(channels),
            "variance": np.ones(channels),
        }
        names = [self._constant(f"{final}::by_channel::{what}", array) for what, array in factors.items()]
        self.nodes.append(
            helper.make_node("BatchNormalization", [tensor, *names], [final], f"{final}::by_channel", epsilon=0.0)
        )

    def model(self) -> onnx.ModelProto:
        read = {name for node in self.nodes for name in tensors_read(node)}.union(self.graph.outputs)
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(t for t in self.graph.model.graph.initializer if t.name in read)
        model.graph.initializer.extend(self.constants)
        model.graph.value_info.extend(self.values)
        return model

    def _read_equalized(self, copy: onnx.NodeProto, equalizer: Equalizer) -> None:
        """Let a convolution read (x − shift) / width, and take both back in its weights and bias."""
        groups = int(attribute_of(copy, "group", 1))
        weight = self.graph.constants[copy.input[1]].astype(np.float32)
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        by_channel = (groups, 1, -1, *[1] * (weight.ndim - 2))
        inputs = [equalized_name(copy.input[0])]
        widened = (grouped * equalizer.width.reshape(by_channel)).reshape(weight.shape)
        inputs.append(self._constant(f"{copy.name}::equalized_weight", widened))
        if equalizer.shifts:
            others = tuple(range(2, grouped.ndim))
            shifted = (grouped * equalizer.shift.reshape(by_channel)).sum(axis=others, dtype=np.float64).ravel()
            bias = self.graph.constants[copy.input[2]] if len(copy.input) > 2 else np.zeros(len(shifted))
            inputs.append(self._constant(f"{copy.name}::shifted_bias", (bias + shifted).astype(np.float32)))
        else:
            inputs.extend(copy.input[2:])
        copy.input[:] = inputs

    def _constant(self, name: str, value: NDArray[np.floating]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name
