"""The sample detector: a small anchor-free network of depthwise-separable convolutions and SiLU, and its ONNX writer.

Its output follows YOLOX's raw convention. Every module says its own ONNX nodes (`emit`), so that the file holds
nothing of the training: folded weights, names of the modules, one static shape.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

HEIGHT, WIDTH = 288, 512
STRIDES = (8, 16, 32)
CLASSES = ("car", "truck", "pedestrian", "cyclist")
OPSET = 13


class Graph:
    """Collects ONNX nodes and weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Append a node; its one output bears the node's name, which is returned."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: Tensor | np.ndarray) -> str:
        """Append an initializer; returns its name."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


class Conv(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, SiLU."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        y = self.norm(self.conv(x))
        return nn.functional.silu(y) if self.active else y

    def emit(self, graph: Graph, x: str, name: str) -> str:
        """Nodes with the normalisation folded into weight and bias."""
        gain = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        weight = self.conv.weight * gain[:, None, None, None]
        bias = self.norm.bias - self.norm.running_mean * gain
        y = emit_conv(graph, x, name, weight, bias, stride=self.conv.stride[0], groups=self.conv.groups)
        if not self.active:
            return y
        return graph.add("Mul", [y, graph.add("Sigmoid", [y], f"{name}.gate")], f"{name}.silu")


def emit_conv(
    graph: Graph, x: str, name: str, weight: Tensor, bias: Tensor, *, stride: int = 1, groups: int = 1
) -> str:
    """A convolution node with its two weights, padded to keep the size."""
    size = weight.shape[-1]
    inputs = [x, graph.weight(f"{name}.weight", weight), graph.weight(f"{name}.bias", bias)]
    pads = [size // 2] * 4
    return graph.add(
        "Conv", inputs, f"{name}.conv", kernel_shape=[size, size], strides=[stride] * 2, pads=pads, group=groups
    )


class Separable(nn.Module):
    """Depthwise, then pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = Conv(inputs, inputs, size, stride=stride, groups=inputs)
        self.pointwise = Conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        return self.pointwise(self.depthwise(x))

    def emit(self, graph: Graph, x: str, name: str) -> str:
        """Nodes of both halves."""
        return self.pointwise.emit(graph, self.depthwise.emit(graph, x, f"{name}.depthwise"), f"{name}.pointwise")


class Residual(nn.Module):
    """Pointwise, depthwise 5x5, pointwise, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = Conv(channels, channels)
        self.depthwise = Conv(channels, channels, 5, groups=channels)
        self.project = Conv(channels, channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        return x + self.project(self.depthwise(self.mix(x)))

    def emit(self, graph: Graph, x: str, name: str) -> str:
        """Nodes of the branch and the sum."""
        y = self.depthwise.emit(graph, self.mix.emit(graph, x, f"{name}.mix"), f"{name}.depthwise")
        return graph.add("Add", [x, self.project.emit(graph, y, f"{name}.project")], f"{name}.add")


class Stage(nn.Module):
    """Halve the picture, then refine."""

    def __init__(self, inputs: int, outputs: int, *, depth: int) -> None:
        super().__init__()
        self.down = Separable(inputs, outputs, stride=2)
        self.blocks = nn.ModuleList(Residual(outputs) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Features of half the size."""
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        return x

    def emit(self, graph: Graph, x: str, name: str) -> str:
        """Nodes of the stage."""
        x = self.down.emit(graph, x, f"{name}.down")
        for index, block in enumerate(self.blocks):
            x = block.emit(graph, x, f"{name}.{index}")
        return x


class Pyramid(nn.Module):
    """Pooled context at stride 32, then features down and up the strides again."""

    def __init__(self, channels: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.context = Conv(3 * channels[2], channels[2])
        self.lateral = nn.ModuleList(Conv(c, width) for c in channels)
        self.merge_down = nn.ModuleList(Separable(2 * width, width, 5) for _ in range(2))
        self.shrink = nn.ModuleList(Separable(width, width, stride=2) for _ in range(2))
        self.merge_up = nn.ModuleList(Separable(2 * width, width, 5) for _ in range(2))

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Three levels in, three of `width` channels out."""
        fine, middle, coarse = levels
        once = nn.functional.max_pool2d(coarse, 5, 1, 2)
        twice = nn.functional.max_pool2d(once, 5, 1, 2)
        coarse = self.context(torch.cat([coarse, once, twice], 1))
        fine, middle, coarse = (lateral(x) for lateral, x in zip(self.lateral, (fine, middle, coarse), strict=True))
        middle = self.merge_down[0](torch.cat([nn.functional.interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.merge_down[1](torch.cat([nn.functional.interpolate(middle, scale_factor=2.0), fine], 1))
        middle = self.merge_up[0](torch.cat([self.shrink[0](fine), middle], 1))
        coarse = self.merge_up[1](torch.cat([self.shrink[1](middle), coarse], 1))
        return [fine, middle, coarse]

    def emit(self, graph: Graph, levels: list[str], name: str) -> list[str]:
        """Nodes of the pyramid, level by level."""
        pool = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
        once = graph.add("MaxPool", [levels[2]], f"{name}.pool1", **pool)
        twice = graph.add("MaxPool", [once], f"{name}.pool2", **pool)
        joined = graph.add("Concat", [levels[2], once, twice], f"{name}.pooled", axis=1)
        levels = [*levels[:2], self.context.emit(graph, joined, f"{name}.context")]
        fine, middle, coarse = (
            m.emit(graph, x, f"{name}.lateral{i}") for i, (m, x) in enumerate(zip(self.lateral, levels, strict=True))
        )
        scales = graph.weight(f"{name}.double", np.array([1, 1, 2, 2], np.float32))

        def up(x: str, label: str) -> str:
            modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return graph.add("Resize", [x, "", scales], f"{name}.{label}", **modes)

        def joint(a: str, b: str, module: nn.Module, label: str) -> str:
            both = graph.add("Concat", [a, b], f"{name}.{label}.concat", axis=1)
            return str(module.emit(graph, both, f"{name}.{label}"))

        middle = joint(up(coarse, "up16"), middle, self.merge_down[0], "down16")
        fine = joint(up(middle, "up8"), fine, self.merge_down[1], "down8")
        middle = joint(self.shrink[0].emit(graph, fine, f"{name}.shrink16"), middle, self.merge_up[0], "out16")
        coarse = joint(self.shrink[1].emit(graph, middle, f"{name}.shrink32"), coarse, self.merge_up[1], "out32")
        return [fine, middle, coarse]


class Head(nn.Module):
    """Boxes and objectness from one branch, classes from the other."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.boxes = nn.ModuleList([Separable(width, width), Separable(width, width)])
        self.kinds = nn.ModuleList([Separable(width, width), Separable(width, width)])
        self.box = nn.Conv2d(width, 4, 1)
        self.object = nn.Conv2d(width, 1, 1)
        self.kind = nn.Conv2d(width, classes, 1)
        for layer in (self.object, self.kind):
            nn.init.constant_(layer.bias, -4.6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 5 + classes, H·W): boxes, object logits, class logits."""
        boxes, kinds = x, x
        for near, far in zip(self.boxes, self.kinds, strict=True):
            boxes, kinds = near(boxes), far(kinds)
        return torch.cat([self.box(boxes), self.object(boxes), self.kind(kinds)], 1).flatten(2)

    def emit(self, graph: Graph, x: str, name: str) -> str:
        """Nodes of one stride's head, with the sigmoids."""
        boxes, kinds = x, x
        for index, (near, far) in enumerate(zip(self.boxes, self.kinds, strict=True)):
            boxes, kinds = (
                near.emit(graph, boxes, f"{name}.boxes{index}"),
                far.emit(graph, kinds, f"{name}.kinds{index}"),
            )
        outputs = [emit_conv(graph, boxes, f"{name}.box", self.box.weight, self.box.bias)]
        for label, layer, source in (("object", self.object, boxes), ("kind", self.kind, kinds)):
            logits = emit_conv(graph, source, f"{name}.{label}", layer.weight, layer.bias)
            outputs.append(graph.add("Sigmoid", [logits], f"{name}.{label}.sigmoid"))
        joined = graph.add("Concat", outputs, f"{name}.concat", axis=1)
        shape = graph.weight(f"{name}.shape", np.array([1, 5 + len(CLASSES), -1], np.int64))
        return graph.add("Reshape", [joined, shape], f"{name}.rows")


class Detector(nn.Module):
    """images (B, 3, 288, 512) BGR 0–255 to (B, 3024, 9): x, y, w, h as YOLOX leaves them, object and class logits."""

    def __init__(self, channels: tuple[int, int, int, int] = (28, 56, 104, 168), width: int = 72) -> None:
        super().__init__()
        self.stem = Conv(3, 16, 3, stride=2)
        depths = (1, 2, 3, 2)
        inputs = (16, *channels[:3])
        self.stages = nn.ModuleList(Stage(i, o, depth=d) for i, o, d in zip(inputs, channels, depths, strict=True))
        self.pyramid = Pyramid(channels[1:], width)
        self.heads = nn.ModuleList(Head(width, len(CLASSES)) for _ in STRIDES)

    def forward(self, images: Tensor) -> Tensor:
        """Raw rows, stride by stride, each row-major."""
        x = self.stem(images)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        rows = [head(level) for head, level in zip(self.heads, self.pyramid(levels[1:]), strict=True)]
        return torch.cat(rows, 2).transpose(1, 2)


def write_onnx(detector: Detector) -> bytes:
    """The detector as an ONNX file: pixels 0–255 are scaled inside the first weights."""
    graph = Graph()
    x = detector.stem.emit(graph, "images", "stem")
    levels = []
    for index, stage in enumerate(detector.stages):
        x = stage.emit(graph, x, f"backbone.{index}")
        levels.append(x)
    levels = detector.pyramid.emit(graph, levels[1:], "neck")
    rows = [head.emit(graph, x, f"head{s}") for head, x, s in zip(detector.heads, levels, STRIDES, strict=True)]
    graph.add("Transpose", [graph.add("Concat", rows, "head.rows", axis=2)], "output", perm=[0, 2, 1])
    count = sum((HEIGHT // s) * (WIDTH // s) for s in STRIDES)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, count, 5 + len(CLASSES)])
    made = helper.make_graph(graph.nodes, "tollgate_sample_detector", [images], [output], graph.weights)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tollgate sample detector"
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
