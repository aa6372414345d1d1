"""Writes explicit Q/DQ pairs into a float ONNX graph: weights as int8, activations as uint8 or int8.

The same inputs give the same bytes: names come from the nodes and tensors, order from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.graph import GraphView
from compile.onnx_graph import attribute_of, tensors_read
from compile.placement import Placement
from compile.ranges import Range

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
BIAS_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Grid:
    """The codes of one tensor: real = (code − zero_point) · scale.

    Attributes:
        scale: () float32, or (channels,) for weights.
        zero_point: () or (channels,), uint8 or int8.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerWeights:
    """Weights of one node that were rounded with care; see `compile.reconstruction`.

    Attributes:
        codes: int8, shaped as the float weights.
        grid: their scales, one for each output channel.
        bias: (channels,) float32, what it must be with these codes; None where the node has none and needs none.
        how: they were made, in words; written into the node.
    """

    codes: NDArray[np.int8]
    grid: Grid
    bias: NDArray[np.float32] | None
    how: str = ""


NOTHING_ROUNDED: Mapping[str, IntegerWeights] = MappingProxyType({})


def activation_grid(interval: Range, *, signed: bool) -> Grid:
    """The 8-bit grid over an interval: int8 around zero where `signed`, else uint8 with any zero point."""
    if signed:
        scale = _scale(max(-interval.low, interval.high) / 127)
        return Grid(scale, np.array(0, np.int8))
    scale = _scale((interval.high - interval.low) / 255)
    return Grid(scale, np.array(np.clip(round(-interval.low / float(scale)), 0, 255), np.uint8))


def weight_grid(weight: NDArray[np.float32], axis: int, *, bits: int) -> Grid:
    """The int8 grid of weights, symmetric, one scale for each output channel.

    Args:
        weight: the float weights.
        axis: where the output channels lie.
        bits: 8; 7 on a CPU whose 16-bit sums of products saturate.
    """
    others = tuple(position for position in range(weight.ndim) if position != axis)
    peaks = np.abs(weight).max(axis=others).astype(np.float64)
    scale = np.where(peaks > 0, np.maximum(peaks / (2 ** (bits - 1) - 1), SMALLEST_SCALE), 1.0).astype(np.float32)
    return Grid(scale, np.zeros(len(scale), np.int8))


def quantized_weight(weight: NDArray[np.float32], grid: Grid, axis: int) -> NDArray[np.int8]:
    """Codes of the weights, rounded to nearest."""
    shape = [-1 if position == axis else 1 for position in range(weight.ndim)]
    codes: NDArray[np.int8] = np.clip(np.rint(weight / grid.scale.reshape(shape)), -127, 127).astype(np.int8)
    return codes


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of a weighted node's weights along which its output channels lie."""
    if node.op_type in ("Conv", "Gemm") and (node.op_type == "Conv" or attribute_of(node, "transB", 0)):
        return 0
    return 1


def output_channels(node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> int:
    """Output channels of a weighted node; those of a grouped ConvTranspose share the scales of their weights."""
    groups = int(attribute_of(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    return weight_shape[output_axis(node)] * groups


def quantize(
    graph: GraphView,
    placement: Placement,
    ranges: Mapping[str, Range],
    *,
    weights: Mapping[str, IntegerWeights] = NOTHING_ROUNDED,
    weight_bits: int = 8,
) -> onnx.ModelProto:
    """The model with pairs where the placement says.

    Args:
        graph: the float model, opset ≥ 13.
        placement: where pairs stand.
        ranges: interval of every tensor in `placement.ranged_tensors`.
        weights: node → its weights, rounded already; all others are rounded to nearest.
        weight_bits: see `weight_grid`.
    """
    readers = {site.tensor: site.readers for site in placement.sites}
    writer = _Writer(graph, placement, readers, activation_grids(placement, ranges), weights, weight_bits)
    for name in graph.inputs:
        writer.pair(name)
    for node in graph.nodes:
        writer.write(node)
    return writer.model()


def rounded_to_nearest(graph: GraphView, node: onnx.NodeProto, *, bits: int) -> IntegerWeights:
    """A weighted node's weights, each rounded to the nearest code of `weight_grid`; its bias is left as it is."""
    axis = output_axis(node)
    weight = graph.constants[node.input[1]].astype(np.float32)
    grid = weight_grid(weight, axis, bits=bits)
    return IntegerWeights(quantized_weight(weight, grid, axis), grid, constant_bias(graph, node))


def with_bias_added(graph: GraphView, node: onnx.NodeProto, added: Sequence[float], *, bits: int) -> IntegerWeights:
    """The same with something added to the bias, as far as the node has one, or can, of that many channels."""
    weights = rounded_to_nearest(graph, node, bits=bits)
    bias = weights.bias
    if bias is None and len(node.input) < 3 and node.op_type != "MatMul":
        bias = np.zeros(output_channels(node, weights.codes.shape), np.float32)
    if bias is None or len(bias) != len(added):
        return weights
    return replace(weights, bias=bias + np.asarray(added, np.float32))


def constant_bias(graph: GraphView, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """A weighted node's bias, where it is a constant of one number for each output channel."""
    bias = graph.constants.get(node.input[2] if len(node.input) > 2 else "")
    channels = output_channels(node, graph.constants[node.input[1]].shape)
    return None if bias is None or bias.shape != (channels,) else bias.astype(np.float32)


def activation_grids(placement: Placement, ranges: Mapping[str, Range]) -> dict[str, Grid]:
    """The grid of every tensor with a pair."""
    return {
        site.tensor: activation_grid(Range.hull(ranges[name] for name in site.scaled_by), signed=placement.rules.signed)
        for site in placement.sites
    }


@dataclass(slots=True)
class _Writer:
    """Rewrites a graph node by node.

    Attributes:
        readers: tensor with a pair → nodes that read it dequantized; None means all.
    """

    graph: GraphView
    placement: Placement
    readers: Mapping[str, tuple[str, ...] | None]
    grids: Mapping[str, Grid]
    weights: Mapping[str, IntegerWeights]
    weight_bits: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def write(self, node: onnx.NodeProto) -> None:
        """Copy a node with its inputs redirected, its weights in int8, and pairs behind its outputs."""
        if node.name in self.placement.absorbed:
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = self._read_name(name, node.name)
        if node.name not in self.placement.integer_nodes:
            if self._needs_guard(node):
                copy.input[0] = self._by_channel(node.input[0])
        elif node.op_type in self.placement.rules.weighted_ops:
            self._integer_weights(copy, node)
        finals = [self._behind_absorbed(name) for name in node.output]
        for position, name in enumerate(finals):
            copy.output[position] = self._float_name(name)
        self.nodes.append(copy)
        for name in finals:
            self.pair(name)

    def pair(self, tensor: str) -> None:
        """Put the tensor's pair behind it, where it has one."""
        if tensor not in self.grids:
            return
        codes, grid = f"{tensor}::codes", self._grid_names(tensor, self.grids[tensor])
        self._add("QuantizeLinear", [self._float_name(tensor), *grid], codes, name=f"{tensor}::quantize")
        self._add("DequantizeLinear", [codes, *grid], self._paired_name(tensor), name=f"{tensor}::dequantize")

    def model(self) -> onnx.ModelProto:
        """The finished model: nodes that are read, old initializers that are still read, then the new ones."""
        read = {name for node in self.nodes for name in tensors_read(node)}.union(self.graph.outputs)
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(node for node in self.nodes if read.intersection(node.output))
        model.graph.initializer.extend(t for t in self.graph.model.graph.initializer if t.name in read)
        model.graph.initializer.extend(self.constants.values())
        return model

    def _add(self, operator: str, inputs: list[str], output: str, *, name: str, axis: int | None = None) -> None:
        attributes = {} if axis is None else {"axis": axis}
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))

    def _needs_guard(self, node: onnx.NodeProto) -> bool:
        """Whether the engine would quantize a float node's constant weights by itself; computed ones it takes as they
        are, and would not run behind an input dequantized channel by channel.
        """
        guarded = node.op_type in self.placement.rules.guarded_ops and self._all_read_pair(node.input[0])
        return guarded and node.input[1] in self.graph.constants

    def _all_read_pair(self, tensor: str) -> bool:
        return tensor in self.readers and self.readers[tensor] is None

    def _float_name(self, tensor: str) -> str:
        """Name of the tensor before its pair. A graph output keeps its name at the far end of the pair."""
        return f"{tensor}::float" if self._all_read_pair(tensor) else tensor

    def _paired_name(self, tensor: str) -> str:
        return tensor if self._all_read_pair(tensor) else f"{tensor}::dequantized"

    def _read_name(self, tensor: str, reader: str) -> str:
        if tensor not in self.readers:
            return tensor
        readers = self.readers[tensor]
        return self._paired_name(tensor) if readers is None or reader in readers else tensor

    def _behind_absorbed(self, tensor: str) -> str:
        reader = self.graph.only_reader(tensor)
        return str(reader.output[0]) if reader is not None and reader.name in self.placement.absorbed else tensor

    def _integer_weights(self, copy: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Give a copied node int8 weights behind a DequantizeLinear, and the bias that goes with them."""
        weights = self.weights.get(node.name) or rounded_to_nearest(self.graph, node, bits=self.weight_bits)
        grid, axis = weights.grid, output_axis(node)
        codes = weights.codes
        if weights.bias is not None and self.placement.rules.int32_bias:
            input_scale = self.grids[node.input[0]].scale
            grid = _with_room_for(weights.bias, grid, input_scale)
            if grid is not weights.grid:
                codes = quantized_weight(_real(codes, weights.grid, axis), grid, axis)
            integer = _integer_bias(weights.bias, grid.scale * input_scale)
            self._set_bias(copy, self._dequantized(f"{node.name}::bias", *integer, axis=0))
        elif node.name in self.weights and weights.bias is not None:
            self._set_bias(copy, self._constant(f"{node.name}::bias", weights.bias))
        copy.input[1] = self._dequantized(f"{node.name}::weight", codes, grid, axis=axis)
        copy.doc_string = weights.how

    @staticmethod
    def _set_bias(copy: onnx.NodeProto, name: str) -> None:
        copy.input[:] = [*copy.input[:2], name]

    def _by_channel(self, tensor: str) -> str:
        """The tensor dequantized again, its one scale written out for every channel; see `guarded_ops`."""
        final = f"{tensor}::by_channel"
        if final not in self.written:
            self.written.add(final)
            grid, channels = self.grids[tensor], self.graph.shapes[tensor][1]
            repeated = Grid(np.full(channels, grid.scale), np.full(channels, grid.zero_point))
            inputs = [f"{tensor}::codes", *self._grid_names(final, repeated)]
            self._add("DequantizeLinear", inputs, final, name=f"{final}::dequantize", axis=1)
        return final

    def _dequantized(self, owner: str, codes: NDArray[np.generic], grid: Grid, *, axis: int) -> str:
        """Store constant codes with a DequantizeLinear behind them; returns the name of the float tensor."""
        inputs = [self._constant(owner, codes), *self._grid_names(owner, grid)]
        self._add("DequantizeLinear", inputs, f"{owner}::dequantized", name=f"{owner}::dequantize", axis=axis)
        return f"{owner}::dequantized"

    def _grid_names(self, owner: str, grid: Grid) -> tuple[str, str]:
        return self._constant(f"{owner}::scale", grid.scale), self._constant(f"{owner}::zero_point", grid.zero_point)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name


def _with_room_for(bias: NDArray[np.float32], grid: Grid, input_scale: NDArray[np.float32]) -> Grid:
    """Coarser weights where the bias would not fit in int32: a channel of almost no weight beside a large bias."""
    step = np.maximum(np.abs(bias.astype(np.float64)) / BIAS_LIMIT, SMALLEST_SCALE) / float(input_scale)
    if (step <= grid.scale).all():
        return grid
    return Grid(np.maximum(grid.scale, step).astype(np.float32), grid.zero_point)


def _real(codes: NDArray[np.int8], grid: Grid, axis: int) -> NDArray[np.float32]:
    shape = [-1 if position == axis else 1 for position in range(codes.ndim)]
    return codes * grid.scale.reshape(shape)


def _integer_bias(bias: NDArray[np.float32], scale: NDArray[np.float32]) -> tuple[NDArray[np.int32], Grid]:
    """Codes and grid of a bias, in the scale in which the products of input and weight are summed."""
    return np.rint(bias / scale.astype(np.float64)).astype(np.int32), Grid(scale, np.zeros(len(scale), np.int32))


def _scale(step: float) -> NDArray[np.float32]:
    """A step as float32; a tensor that is always zero gets 1, a denormal one the smallest normal number."""
    return np.array(max(step, SMALLEST_SCALE) if step > 0 else 1.0, np.float32)
