"""What calibration frames show of a float network: how its tensors spread, and samples of what its layers read.

One pass over the frames serves every recipe. Memory is bounded whatever the number of frames: a histogram and two
extremes a channel for each tensor, and a fixed number of samples for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.backends.onnxrt import open_float_taps
from compile.graph import GraphView
from compile.onnx_graph import attribute_of, label
from compile.ranges import TAP_MEMORY_BYTES, Histogram, groups_within
from perception.engines.engine import Tensors
from perception.errors import ModelError

SAMPLES = 4096
SAMPLED_BYTES = 4 << 20
FEWEST_SAMPLES = 256
GROUPED_OPS = frozenset({"Conv", "MatMul", "Gemm"})
"""Weighted operators whose every output is a sum over one short vector of inputs; see `vectors_read`."""


@dataclass(slots=True)
class Observations:
    """What was seen so far.

    Attributes:
        histograms: tensor → its distribution.
        lows: tensor of rank 4 → (C,) the smallest value of each channel.
        highs: the same, greatest.
        samples: weighted node → (N, groups, K) float32, what N of its outputs are sums over; see `vectors_read`.
    """

    histograms: dict[str, Histogram] = field(default_factory=dict)
    lows: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    highs: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    samples: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watch:
    """What to look at.

    Attributes:
        graph: the float network.
        tensors: whose distribution is wanted.
        layers: weighted nodes, of `GROUPED_OPS`, whose inputs are to be sampled.
        frames: how many frames will come, so that each leaves its share of the samples.
    """

    graph: GraphView
    tensors: tuple[str, ...]
    layers: tuple[onnx.NodeProto, ...]
    frames: int


def observe(watch: Watch, feeds: Callable[[], Iterable[Tensors]], *, threads: int) -> Observations:
    """Run the float network over the calibration frames and note what is watched.

    Args:
        watch: what to look at.
        feeds: starts the frames anew; called once for every group of tensors that fits in memory together.
        threads: CPU threads.

    Raises:
        ModelError: a tensor is not finite on a real frame.
    """
    seen = Observations({name: Histogram() for name in watch.tensors})
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in watch.layers:
        readers.setdefault(node.input[0], []).append(node)
    tensors = dict.fromkeys((*watch.tensors, *readers))
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for group in groups_within({name: watch.graph.bytes_of(name) for name in tensors}, TAP_MEMORY_BYTES):
        with open_float_taps(watch.graph.model, group, threads=threads) as tapped:
            for number, feed in enumerate(feeds()):
                values = {**feed, **tapped.infer(feed)}
                for name in group:
                    real = values[name].astype(np.float32, copy=False)
                    _note(seen, watch, name, real)
                    for node in readers.get(name, ()):
                        parts.setdefault(node.name, []).append(_sampled(watch, node, real, number))
    seen.samples = {name: np.concatenate(taken) for name, taken in parts.items()}
    return seen


def vectors_read(
    node: onnx.NodeProto, weight_shape: tuple[int, ...], values: NDArray[np.float32], picks: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The inputs that some outputs of a layer are sums over.

    Args:
        node: of `GROUPED_OPS`.
        weight_shape: shape of its weights.
        values: what it reads: (1, C, H, W) for a convolution, (…, K) for a matrix product.
        picks: (N,) which outputs: row-major positions of its output, channels apart.

    Returns:
        (N, groups, K) float32, in the order of `grouped_weight`.
    """
    if node.op_type != "Conv":
        return values.reshape(-1, 1, values.shape[-1])[picks]
    groups = int(attribute_of(node, "group", 1))
    window = Window.of(node, weight_shape[2:], values.shape[2:])
    padded = np.pad(values[0], ((0, 0), *window.padding))
    rows, columns = np.divmod(picks, window.output[1])
    down = rows[:, None, None] * window.strides[0] + np.arange(window.kernel[0])[:, None] * window.dilations[0]
    across = columns[:, None, None] * window.strides[1] + np.arange(window.kernel[1]) * window.dilations[1]
    seen = padded[:, down, across].swapaxes(0, 1)
    return np.ascontiguousarray(seen).reshape(len(picks), groups, -1)


def grouped_weight(node: onnx.NodeProto, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights as (groups, outputs of a group, K): output = weight · vector, for the vectors of `vectors_read`."""
    if node.op_type == "Conv":
        groups = int(attribute_of(node, "group", 1))
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    return (weight if _outputs_first(node) else weight.T)[None]


def ungrouped_weight(node: onnx.NodeProto, grouped: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The inverse of `grouped_weight`."""
    if node.op_type == "Conv" or _outputs_first(node):
        return grouped.reshape(shape)
    return np.ascontiguousarray(grouped[0].T)


def output_count(node: onnx.NodeProto, weight_shape: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """How many outputs, channels apart, a layer has for an input of some shape."""
    if node.op_type != "Conv":
        return int(np.prod(shape[:-1]))
    return int(np.prod(Window.of(node, weight_shape[2:], shape[2:]).output))


@dataclass(frozen=True, slots=True)
class Window:
    """How a two-dimensional convolution walks over its input; every pair is (down, across)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], tuple[int, int]]
    output: tuple[int, int]

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...], sides: tuple[int, ...]) -> Window:
        """From a Conv node's attributes, `auto_pad` included.

        Source: ONNX operator specification, Conv.
        """
        strides = tuple(attribute_of(node, "strides", [1, 1]))
        dilations = tuple(attribute_of(node, "dilations", [1, 1]))
        reach = [(side - 1) * step + 1 for side, step in zip(kernel, dilations, strict=True)]
        pads = list(attribute_of(node, "pads", [0, 0, 0, 0]))
        mode = bytes(attribute_of(node, "auto_pad", b"NOTSET"))
        if mode.startswith(b"SAME"):
            wanted = [-(-side // step) for side, step in zip(sides, strides, strict=True)]
            total = [max(0, (n - 1) * s + r - d) for n, s, r, d in zip(wanted, strides, reach, sides, strict=True)]
            smaller = [side // 2 for side in total]
            larger = [side - less for side, less in zip(total, smaller, strict=True)]
            pads = [*smaller, *larger] if mode == b"SAME_UPPER" else [*larger, *smaller]
        down, across = (
            (sides[axis] + pads[axis] + pads[axis + 2] - reach[axis]) // strides[axis] + 1 for axis in (0, 1)
        )
        return cls(kernel, strides, dilations, ((pads[0], pads[2]), (pads[1], pads[3])), (down, across))

    @property
    def pads_nothing(self) -> bool:
        """Whether every output is a sum over real inputs, at the border too."""
        return not any(side for pair in self.padding for side in pair)


def _outputs_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and bool(attribute_of(node, "transB", 0))


def _note(seen: Observations, watch: Watch, name: str, real: NDArray[np.float32]) -> None:
    if name in seen.histograms:
        try:
            seen.histograms[name].add(real)
        except ValueError as error:
            maker = watch.graph.producers.get(name)
            made_by = "an input" if maker is None else f"made by {label(maker)}"
            raise ModelError(
                f"tensor {name}, {made_by}: holds NaN or infinity on a calibration frame; the float model itself is "
                "broken there: correct that node and export again"
            ) from error
    if real.ndim == 4 and real.shape[0] == 1:
        low, high = real.min(axis=(0, 2, 3)), real.max(axis=(0, 2, 3))
        seen.lows[name] = np.minimum(seen.lows.get(name, low), low)
        seen.highs[name] = np.maximum(seen.highs.get(name, high), high)


def _sampled(watch: Watch, node: onnx.NodeProto, values: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """This frame's share of a layer's samples, at places that depend on nothing but the frame's number."""
    shape = watch.graph.constants[node.input[1]].shape
    outputs = output_count(node, shape, values.shape)
    vector_bytes = 4 * int(np.prod(shape)) // max(1, shape[0])
    if node.op_type == "Conv":
        vector_bytes *= int(attribute_of(node, "group", 1))
    most = int(np.clip(SAMPLED_BYTES // max(1, vector_bytes), FEWEST_SAMPLES, SAMPLES))
    count = min(outputs, -(-most // watch.frames))
    picks = np.random.default_rng(number).choice(outputs, count, replace=False)
    return vectors_read(node, shape, values, np.sort(picks))


def sampled_layers(graph: GraphView, nodes: Iterable[str]) -> tuple[onnx.NodeProto, ...]:
    """Those of the named weighted nodes whose inputs `observe` can sample, in graph order."""
    wanted = frozenset(nodes)
    return tuple(node for node in graph.nodes if node.name in wanted and _can_be_sampled(graph, node))


def _can_be_sampled(graph: GraphView, node: onnx.NodeProto) -> bool:
    if node.op_type not in GROUPED_OPS or node.input[0] not in graph.shapes or node.input[1] not in graph.constants:
        return False
    shape = graph.shapes[node.input[0]]
    if node.op_type == "Conv":
        return len(shape) == 4 and shape[0] == 1
    return not attribute_of(node, "transA", 0) and graph.constants[node.input[1]].ndim == 2
