"""Writes explicit Q/DQ pairs into a float ONNX graph: weights as int8, activations as uint8 or int8.

The same inputs give the same bytes: names come from the nodes and tensors, order from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.graph import GraphView
from compile.onnx_graph import attribute_of
from compile.placement import Placement, Site
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


def quantize(
    graph: GraphView, placement: Placement, ranges: Mapping[str, Range], *, weight_bits: int = 8
) -> onnx.ModelProto:
    """The model with pairs where the placement says.

    Args:
        graph: the float model, opset ≥ 13.
        placement: where pairs stand.
        ranges: interval of every tensor in `placement.ranged_tensors`.
        weight_bits: see `weight_grid`.
    """
    writer = _Writer(graph, placement, activation_grids(placement, ranges))
    for name in graph.inputs:
        writer.pair(name)
    for node in graph.nodes:
        writer.write(node, weight_bits)
    return writer.model()


def activation_grids(placement: Placement, ranges: Mapping[str, Range]) -> dict[str, Grid]:
    """The grid of every tensor with a pair."""
    return {
        site.tensor: activation_grid(Range.hull(ranges[name] for name in site.scaled_by), signed=placement.rules.signed)
        for site in placement.sites
    }


@dataclass(slots=True)
class _Writer:
    """Rewrites a graph node by node."""

    graph: GraphView
    placement: Placement
    grids: Mapping[str, Grid]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def write(self, node: onnx.NodeProto, weight_bits: int) -> None:
        """Copy a node with its inputs redirected, its weights in int8, and pairs behind its outputs."""
        if node.name in self.placement.absorbed:
            return
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            copy.input[position] = self._read_name(name, node.name)
        if node.name in self.placement.integer_nodes and node.op_type in self.placement.rules.weighted_ops:
            self._integer_weights(copy, node, weight_bits)
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
        scale, zero_point = self._grid_names(tensor, self.grids[tensor])
        source, final = self._float_name(tensor), self._paired_name(tensor)
        codes = f"{tensor}/codes"
        self.nodes.append(
            helper.make_node("QuantizeLinear", [source, scale, zero_point], [codes], f"{tensor}/quantize")
        )
        self.nodes.append(
            helper.make_node("DequantizeLinear", [codes, scale, zero_point], [final], f"{tensor}/dequantize")
        )

    def model(self) -> onnx.ModelProto:
        """The finished model: old initializers that are still read, then the new ones."""
        read = {name for node in self.nodes for name in node.input}
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(t for t in self.graph.model.graph.initializer if t.name in read)
        model.graph.initializer.extend(self.constants.values())
        return model

    def _site(self, tensor: str) -> Site | None:
        return next((site for site in self.placement.sites if site.tensor == tensor), None)

    def _all_read_pair(self, tensor: str) -> bool:
        site = self._site(tensor)
        return site is not None and site.readers is None

    def _float_name(self, tensor: str) -> str:
        """Name of the tensor before its pair. A graph output keeps its name at the far end of the pair."""
        return f"{tensor}/float" if self._all_read_pair(tensor) else tensor

    def _paired_name(self, tensor: str) -> str:
        return tensor if self._all_read_pair(tensor) else f"{tensor}/dequantized"

    def _read_name(self, tensor: str, reader: str) -> str:
        site = self._site(tensor)
        if site is None or (site.readers is not None and reader not in site.readers):
            return tensor
        return self._paired_name(tensor)

    def _behind_absorbed(self, tensor: str) -> str:
        reader = self.graph.only_reader(tensor)
        return str(reader.output[0]) if reader is not None and reader.name in self.placement.absorbed else tensor

    def _integer_weights(self, copy: onnx.NodeProto, node: onnx.NodeProto, bits: int) -> None:
        axis = output_axis(node)
        weight = self.graph.constants[node.input[1]].astype(np.float32)
        grid = weight_grid(weight, axis, bits=bits)
        bias = self.graph.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        input_scale = self.grids[node.input[0]].scale
        if bias is not None and self.placement.rules.int32_bias:
            grid = _with_room_for(bias, grid, input_scale)
            copy.input[2] = self._integer_bias(node.name, bias, grid.scale * input_scale)
        codes = self._constant(f"{node.name}/weight", quantized_weight(weight, grid, axis))
        scale, zero_point = self._grid_names(f"{node.name}/weight", grid)
        copy.input[1] = f"{node.name}/weight/dequantized"
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [codes, scale, zero_point],
                [copy.input[1]],
                f"{node.name}/weight/dequantize",
                axis=axis,
            )
        )

    def _integer_bias(self, name: str, bias: NDArray[np.generic], scale: NDArray[np.float32]) -> str:
        codes = self._constant(f"{name}/bias", np.rint(bias / scale.astype(np.float64)).astype(np.int32))
        grid = Grid(scale.astype(np.float32), np.zeros(len(scale), np.int32))
        scale_name, zero_point = self._grid_names(f"{name}/bias", grid)
        final = f"{name}/bias/dequantized"
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", [codes, scale_name, zero_point], [final], f"{name}/bias/dequantize", axis=0
            )
        )
        return final

    def _grid_names(self, owner: str, grid: Grid) -> tuple[str, str]:
        return self._constant(f"{owner}/scale", grid.scale), self._constant(f"{owner}/zero_point", grid.zero_point)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name


def _with_room_for(bias: NDArray[np.generic], grid: Grid, input_scale: NDArray[np.float32]) -> Grid:
    """Coarser weights where the bias would not fit in int32: a channel of almost no weight beside a large bias."""
    needed = np.abs(bias.astype(np.float64)) / (float(input_scale) * BIAS_LIMIT)
    return Grid(np.maximum(grid.scale, needed).astype(np.float32), grid.zero_point)


def _scale(step: float) -> NDArray[np.float32]:
    """A step as float32; a tensor that is always zero gets 1, a denormal one the smallest normal number."""
    return np.array(max(step, SMALLEST_SCALE) if step > 0 else 1.0, np.float32)
