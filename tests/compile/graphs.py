"""Small ONNX graphs, made node by node, that look like what exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Sketch:
    """A graph in the making: `node` and `weight` return the names of the tensors they make."""

    def __init__(self, **inputs):
        """Inputs by name: a shape, or (shape, ONNX type); text stands for an open side."""
        self.inputs = [self._value(name, given) for name, given in inputs.items()]
        self.nodes = []
        self.weights = []
        self.outputs = []
        self._random = np.random.default_rng(0)

    def node(self, operator, *inputs, name="", outputs=1, **attributes):
        made = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def weight(self, values, name=None):
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(self, tensor, channels_in, channels_out, *, side=1, stride=1, gain=1.0, bias=1.0, name=""):
        """A convolution whose weights have the norm `gain` per output channel, and the bias `bias`."""
        weight = self._random.standard_normal((channels_out, channels_in, side, side)).astype(np.float32)
        weight *= gain / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True))
        biases = np.full(channels_out, bias, np.float32)
        read = [tensor, self.weight(weight), self.weight(biases)]
        pads = [(side - stride) // 2 if side > stride else 0] * 4
        return self.node("Conv", *read, name=name, strides=[stride, stride], kernel_shape=[side, side], pads=pads)

    def reshape(self, tensor, *shape):
        return self.node("Reshape", tensor, self.weight(np.array(shape, np.int64)))

    def output(self, tensor, name, shape, element_type=TensorProto.FLOAT):
        self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        self.outputs.append(self._value(name, (shape, element_type)))

    def model(self, *, opset=13, ir_version=8, producer="pytorch", **metadata):
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, self.outputs, self.weights)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, producer_name=producer
        )
        helper.set_model_props(made, metadata)
        return made

    def save(self, path: Path, **settings) -> Path:
        onnx.save(self.model(**settings), path)
        return path

    @staticmethod
    def _value(name, given):
        shape, element_type = given if isinstance(given, tuple) else (given, TensorProto.FLOAT)
        return helper.make_tensor_value_info(name, element_type, shape)


def small_network(*, opset=9, height=16, batch="batch") -> Sketch:
    """What exporters of old leave in a graph: normalization, dropout, identity, dead nodes, an open batch."""
    sketch = Sketch(picture=[batch, 3, height, 16])
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    features = sketch.conv("picture", 3, 8, side=3, stride=1)
    norm = [sketch.weight(values, name) for values, name in ((ones * 2, "gamma"), (zeros + 3, "beta"))]
    norm += [sketch.weight(values, name) for values, name in ((zeros + 0.5, "mean"), (ones * 4, "variance"))]
    features = sketch.node("BatchNormalization", features, *norm)
    features = sketch.node("Relu", features, name="relu")
    features = sketch.node("Dropout", features)
    sketch.node("Sigmoid", features, name="dead")
    sketch.weight(np.ones(100, np.float32), "unused")
    sketch.output(features, "features", [batch, 8, height, 16])
    return sketch


def levels(sketch: Sketch, tensor: str, size: int, strides=(8, 16, 32)):
    """(stride, cells, features) for each level; the features have 4 channels."""
    for stride in strides:
        yield stride, (size // stride) ** 2, sketch.conv(tensor, 3, 4, side=stride, stride=stride)


def yolov8(size=64, classes=3, *, gain=3.0, open_sides=False) -> Sketch:
    shape = ["batch", 3, "height", "width"] if open_sides else [1, 3, size, size]
    sketch = Sketch(images=shape)
    stem = sketch.conv("images", 3, 3, gain=gain)
    columns = []
    for stride, cells, features in levels(sketch, stem, size):
        scale = sketch.weight(np.float32(stride))
        boxes = sketch.node("Mul", sketch.reshape(sketch.conv(features, 4, 4), 1, 4, cells), scale)
        scores = sketch.node("Sigmoid", sketch.reshape(sketch.conv(features, 4, classes), 1, classes, cells))
        columns.append(sketch.node("Concat", boxes, scores, axis=1))
    rows = sum((size // stride) ** 2 for stride in (8, 16, 32))
    sketch.output(sketch.node("Concat", *columns, axis=2), "output0", [1, 4 + classes, rows])
    return sketch


def yolox(size=64, classes=3, *, decoded=False, gain=0.02, anchors=1) -> Sketch:
    """Rows of x y w h, objectness and class scores; `anchors` three makes it YOLOv5's head."""
    sketch = Sketch(images=[1, 3, size, size])
    stem = sketch.conv("images", 3, 3, gain=gain)
    rows = []
    for stride, cells, features in levels(sketch, stem, size):
        boxes = sketch.conv(features, 4, 4 * anchors)
        if decoded:
            boxes = sketch.node("Mul", sketch.node("Exp", boxes), sketch.weight(np.float32(stride)))
        scores = [sketch.node("Sigmoid", sketch.conv(features, 4, n * anchors)) for n in (1, classes)]
        joined = sketch.node("Concat", boxes, *scores, axis=1)
        flat = sketch.reshape(joined, 1, 5 + classes, cells * anchors)
        rows.append(sketch.node("Transpose", flat, perm=[0, 2, 1]))
    count = anchors * sum((size // stride) ** 2 for stride in (8, 16, 32))
    sketch.output(sketch.node("Concat", *rows, axis=1), "output", [1, count, 5 + classes])
    return sketch


def rt_detr(size=64, classes=5, queries=20) -> Sketch:
    """Boxes, labels and scores decoded inside, with the picture's size as a second input."""
    sketch = Sketch(images=["N", 3, size, size], orig_target_sizes=(["N", 2], TensorProto.INT64))
    features = sketch.conv(sketch.conv("images", 3, 3, gain=3.0), 3, queries, side=16, stride=16)
    side = size // 16
    tokens = sketch.reshape(features, 1, queries, side * side)
    logits = sketch.node("MatMul", tokens, sketch.weight(np.ones((side * side, classes), np.float32)))
    flat = sketch.reshape(sketch.node("Sigmoid", logits), 1, -1)
    best = sketch.weight(np.array([queries], np.int64))
    scores, index = sketch.node("TopK", flat, best, outputs=2)
    labels = sketch.node("Mod", index, sketch.weight(np.int64(classes)))
    boxes = sketch.node("Sigmoid", sketch.node("MatMul", tokens, sketch.weight(np.ones((side * side, 4), np.float32))))
    size_once = sketch.node("Cast", "orig_target_sizes", to=TensorProto.FLOAT)
    sizes = sketch.reshape(sketch.node("Concat", size_once, size_once, axis=1), 1, 1, 4)
    sketch.output(labels, "labels", ["N", queries], TensorProto.INT64)
    sketch.output(sketch.node("Mul", boxes, sizes), "boxes", ["N", queries, 4])
    sketch.output(scores, "scores", ["N", queries])
    return sketch


def query_logits(size=64, classes=80, queries=30, names=("pred_boxes", "logits")) -> Sketch:
    """Boxes as shares and class logits, one of each for every query."""
    sketch = Sketch(images=[1, 3, size, size])
    features = sketch.conv(sketch.conv("images", 3, 3), 3, queries, side=16, stride=16)
    cells = (size // 16) ** 2
    tokens = sketch.reshape(features, 1, queries, cells)
    boxes = sketch.node("Sigmoid", sketch.node("MatMul", tokens, sketch.weight(np.ones((cells, 4), np.float32))))
    logits = sketch.node("MatMul", tokens, sketch.weight(np.ones((cells, classes), np.float32)))
    sketch.output(logits, names[1], [1, queries, classes])
    sketch.output(boxes, names[0], [1, queries, 4])
    return sketch


def nanodet(size=64, classes=4) -> Sketch:
    """Per level class scores after a sigmoid and distances before their softmax, under names that tell nothing."""
    sketch = Sketch(data=[1, 3, size, size])
    stem = sketch.conv("data", 3, 3, gain=1.0, bias=0.3)
    for number, (_, cells, features) in enumerate(levels(sketch, stem, size)):
        for kind, width in (("a", classes), ("b", 32)):
            head = sketch.conv(features, 4, width)
            head = sketch.node("Sigmoid", head) if kind == "a" else head
            flat = sketch.node("Transpose", sketch.reshape(head, 1, width, cells), perm=[0, 2, 1])
            sketch.output(flat, f"{kind}{number}", [1, cells, width])
    return sketch


def segmentation(*, layout="NHWC", classes=19, argmax=False, gain=3.0) -> Sketch:
    shape = [1, 32, 64, 3] if layout == "NHWC" else [1, 3, 32, 64]
    sketch = Sketch(data=shape)
    picture = sketch.node("Transpose", "data", perm=[0, 3, 1, 2]) if layout == "NHWC" else "data"
    scores = sketch.conv(picture, 3, classes, gain=gain)
    if argmax:
        chosen = sketch.node("ArgMax", scores, axis=1, keepdims=0)
        sketch.output(chosen, "classes", [1, 32, 64], TensorProto.INT64)
    elif layout == "NHWC":
        sketch.output(sketch.node("Transpose", scores, perm=[0, 2, 3, 1]), "mask", [1, 32, 64, classes])
    else:
        sketch.output(scores, "mask", [1, classes, 32, 64])
    return sketch
