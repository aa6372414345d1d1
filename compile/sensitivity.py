"""What each layer loses to 8 bits, found in one pass: every layer runs twice side by side, float and as integers would.

The audit graph is the float model with a shadow behind every integer node: its inputs rounded to their grids, its
weights to theirs, its output rounded too, and the error measured per channel inside the graph. Inputs of a shadow come
from the float model, so a layer is blamed for its own loss and not for what came before it; and only a few numbers a
layer leave the graph, so memory does not grow with the model. The runtime may not optimise this graph: it would
quantize the shadows further by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.backends.onnxrt import build, opened
from compile.graph import GraphView
from compile.placement import Placement
from compile.quantize import Grid, activation_grids, output_axis, quantized_weight, weight_grid
from compile.ranges import Range
from perception.engines.engine import Tensors


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """How much of a layer's output is lost in 8 bits.

    Attributes:
        node: the layer.
        noise_share: error power over signal variance, each channel capped at 1, mean over channels; 0 is lossless.
        mean_error: by which each channel of the output lies too low on average: what a correction of the bias adds.
    """

    node: str
    noise_share: float
    mean_error: tuple[float, ...] = ()


def layer_losses(
    graph: GraphView, placement: Placement, ranges: Mapping[str, Range], feeds: Iterable[Tensors], *, threads: int
) -> list[LayerLoss]:
    """Audit every integer node on some frames; greatest loss first, equal ones in graph order.

    Raises:
        EngineError: ONNX Runtime refuses the audit graph.
    """
    audit = _Audit(graph, placement, activation_grids(placement, ranges))
    layers = [node for node in graph.nodes if node.name in placement.integer_nodes]
    for node in layers:
        audit.shadow(node)
    sums: dict[str, NDArray[np.float64]] = {}
    with opened(build(audit.model()), threads=threads, optimise=False) as engine:
        for frames, feed in enumerate(feeds, start=1):
            outputs = engine.infer(feed)
            for node in layers:
                moments = np.stack([outputs[name].ravel() for name in audit.moments[node.name]]).astype(np.float64)
                sums[node.name] = sums.get(node.name, 0.0) + (moments - sums.get(node.name, 0.0)) / frames
    losses = [LayerLoss(name, _noise_share(*moments[:3]), tuple(moments[3].tolist())) for name, moments in sums.items()]
    return sorted(losses, key=lambda loss: -loss.noise_share)


def _noise_share(
    squared_error: NDArray[np.float64], squared_signal: NDArray[np.float64], signal: NDArray[np.float64]
) -> float:
    """From the mean squared error, mean square and mean of every channel."""
    variance = squared_signal - signal**2
    share = np.where(variance > 0, squared_error / np.maximum(variance, np.finfo(np.float64).tiny), squared_error > 0)
    return float(np.minimum(share, 1.0).mean())


@dataclass(slots=True)
class _Audit:
    """The audit graph under construction.

    Attributes:
        moments: node → names of its four outputs: mean squared error, mean square, mean, mean error, by channel.
    """

    graph: GraphView
    placement: Placement
    grids: Mapping[str, Grid]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    rounded: dict[str, str] = field(default_factory=dict)
    moments: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def shadow(self, node: onnx.NodeProto) -> None:
        """Add a node's shadow and the measurement of its error."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}::shadow"
        copy.input[:] = [self._rounded(name) if name in self.grids else name for name in node.input]
        copy.output[:] = [f"{name}::shadow" for name in node.output]
        if node.op_type in self.placement.rules.weighted_ops:
            copy.input[1] = self._rounded_weight(node)
        self.nodes.append(copy)
        for position, name in enumerate(node.output):
            final = self._behind_absorbed(name)
            seen = (
                self._round(copy.output[position], self.grids[final], f"{node.name}::{position}")
                if final in self.grids
                else None
            )
            if position == 0:
                self._measure(node.name, final, seen or copy.output[0])

    def model(self) -> onnx.ModelProto:
        """The float model with all shadows; its outputs are the measurements only."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.constants.values())
        del model.graph.output[:]
        model.graph.output.extend(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for names in self.moments.values()
            for name in names
        )
        return model

    def _measure(self, owner: str, reference: str, shadow: str) -> None:
        axes = _all_but_channels(self.graph.shapes[reference])
        names = tuple(f"{owner}::{what}" for what in ("squared_error", "squared_signal", "signal", "mean_error"))
        error, error_2, signal_2 = f"{owner}::error", f"{owner}::error_2", f"{owner}::signal_2"
        self.nodes += [
            helper.make_node("Sub", [reference, shadow], [error], error),
            helper.make_node("Mul", [error, error], [error_2], error_2),
            helper.make_node("Mul", [reference, reference], [signal_2], signal_2),
            *(
                self._mean(tensor, axes, name)
                for tensor, name in zip((error_2, signal_2, reference, error), names, strict=True)
            ),
        ]
        self.moments[owner] = names

    def _mean(self, tensor: str, axes: Sequence[int], name: str) -> onnx.NodeProto:
        """ReduceMean, whose axes moved from an attribute to an input at opset 18."""
        opset = next(entry.version for entry in self.graph.model.opset_import if entry.domain in ("", "ai.onnx"))
        if opset < 18:
            return helper.make_node("ReduceMean", [tensor], [name], name, axes=list(axes), keepdims=0)
        fixed = self._constant(f"{name}::axes", np.asarray(axes, np.int64))
        return helper.make_node("ReduceMean", [tensor, fixed], [name], name, keepdims=0)

    def _rounded(self, tensor: str) -> str:
        if tensor not in self.rounded:
            self.rounded[tensor] = self._round(tensor, self.grids[tensor], tensor)
        return self.rounded[tensor]

    def _round(self, tensor: str, grid: Grid, owner: str) -> str:
        scale = self._constant(f"{owner}::scale", grid.scale)
        zero_point = self._constant(f"{owner}::zero_point", grid.zero_point)
        codes, final = f"{owner}::codes", f"{owner}::rounded"
        self.nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero_point], [codes], codes))
        self.nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero_point], [final], final))
        return final

    def _rounded_weight(self, node: onnx.NodeProto) -> str:
        axis = output_axis(node)
        weight = self.graph.constants[node.input[1]].astype(np.float32)
        grid = weight_grid(weight, axis, bits=8)
        shape = [-1 if position == axis else 1 for position in range(weight.ndim)]
        rounded = quantized_weight(weight, grid, axis) * grid.scale.reshape(shape)
        return self._constant(f"{node.name}::weight::rounded", rounded.astype(np.float32))

    def _behind_absorbed(self, tensor: str) -> str:
        reader = self.graph.only_reader(tensor)
        return str(reader.output[0]) if reader is not None and reader.name in self.placement.absorbed else tensor

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name


def _all_but_channels(shape: tuple[int, ...]) -> list[int]:
    """Axes to average over: channels lie second in pictures, last in everything flatter."""
    channels = 1 if len(shape) == 4 else len(shape) - 1
    return [axis for axis in range(len(shape)) if axis != channels]
