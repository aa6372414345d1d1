"""Heads of detectors and other networks as exporters write them, small: what `inspect` must tell apart."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.compile.graphs import Sketch, levels


def _flat(sketch: Sketch, tensor: str, size: int, width: int, *, cells_last=False) -> str:
    """One tensor over all cells of a pyramid: [1, N, width], or [1, width, N]."""
    parts = [
        sketch.reshape(sketch.conv(features, 4, width), 1, width, cells)
        for _, cells, features in levels(sketch, tensor, size)
    ]
    joined = sketch.node("Concat", *parts, axis=2)
    return joined if cells_last else sketch.node("Transpose", joined, perm=[0, 2, 1])


def _cells(size: int) -> int:
    return sum((size // stride) ** 2 for stride in (8, 16, 32))


def _started(size: int) -> tuple[Sketch, str]:
    sketch = Sketch(images=[1, 3, size, size])
    return sketch, sketch.conv("images", 3, 3, gain=3.0)


def yolov5(size=64, classes=80) -> Sketch:
    """Three anchors a cell, one sigmoid over the whole row, boxes decoded by arithmetic on its parts."""
    sketch, stem = _started(size)
    rows = []
    for stride, cells, features in levels(sketch, stem, size):
        anchors = sketch.reshape(sketch.conv(features, 4, 3 * (5 + classes)), 1, 3, 5 + classes, cells)
        scored = sketch.node("Sigmoid", sketch.node("Transpose", anchors, perm=[0, 1, 3, 2]))
        lengths = sketch.weight(np.array([2, 2, 1 + classes], np.int64))
        centre, side, rest = sketch.node("Split", scored, lengths, outputs=3, axis=3)
        centre = sketch.node("Mul", centre, sketch.weight(np.float32(stride)))
        side = sketch.node("Mul", sketch.node("Pow", side, sketch.weight(np.float32(2))), sketch.weight(np.float32(9)))
        rows.append(sketch.reshape(sketch.node("Concat", centre, side, rest, axis=3), 1, 3 * cells, 5 + classes))
    sketch.output(sketch.node("Concat", *rows, axis=1), "output0", [1, 3 * _cells(size), 5 + classes])
    return sketch


def yolov10(size=64, boxes=300) -> Sketch:
    """Boxes selected inside the graph: x1 y1 x2 y2, score, class."""
    sketch, stem = _started(size)
    best = sketch.weight(np.array([min(boxes, _cells(size))], np.int64))
    scores = sketch.reshape(sketch.node("Sigmoid", _flat(sketch, stem, size, 1)), 1, -1)
    _, index = sketch.node("TopK", scores, best, outputs=2)
    rows = sketch.node("Gather", _flat(sketch, stem, size, 6), sketch.reshape(index, -1), axis=1)
    sketch.output(rows, "output0", [1, min(boxes, _cells(size)), 6])
    return sketch


def apart(size=64, classes=80, *, cells_last=False, names=("boxes", "scores")) -> Sketch:
    """Boxes and class scores of every cell in two outputs: PP-YOLOE and YOLO-NAS without their NMS, SSD, RetinaNet."""
    sketch, stem = _started(size)
    shape = [1, classes, _cells(size)] if cells_last else [1, _cells(size), classes]
    scores = sketch.node("Sigmoid", _flat(sketch, stem, size, classes, cells_last=cells_last))
    sketch.output(_flat(sketch, stem, size, 4), names[0], [1, _cells(size), 4])
    sketch.output(scores, names[1], shape)
    return sketch


def ssd(size=72, classes=91) -> Sketch:
    """Offsets from anchors and class scores with a background: few enough to be taken for queries."""
    sketch, stem = _started(size)
    features, cells = sketch.conv(stem, 3, 4, side=8, stride=8), (size // 8) ** 2
    for name, width in (("boxes", 4), ("scores", classes)):
        flat = sketch.reshape(sketch.conv(features, 4, 6 * width), 1, width, 6 * cells)
        flat = sketch.node("Transpose", flat, perm=[0, 2, 1])
        flat = sketch.node("Softmax", flat, axis=2) if name == "scores" else flat
        sketch.output(flat, name, [1, 6 * cells, width])
    return sketch


def selected_by_tensorflow(size=64, boxes=100) -> Sketch:
    """TensorFlow's detection zoo: y1 x1 y2 x2 as shares of the picture, classes and scores as floats, and a count."""
    sketch, stem = _started(size)
    features = sketch.node("GlobalAveragePool", stem)
    for name, width in (("detection_boxes", 4), ("detection_classes", 1), ("detection_scores", 1)):
        made = sketch.conv(features, 3, boxes * width)
        shape = [1, boxes, 4] if width == 4 else [1, boxes]
        sketch.output(sketch.reshape(made, *shape), name, shape)
    sketch.output(sketch.reshape(sketch.conv(features, 3, 1), 1), "num_detections", [1])
    return sketch


def selected_by_paddle(size=64) -> Sketch:
    """PP-YOLOE with its NMS: as many rows as were found, and their number; the scale of resizing is asked for."""
    sketch = Sketch(image=[1, 3, size, size], scale_factor=[1, 2])
    stem = sketch.conv("image", 3, 3, gain=3.0)
    rows = sketch.reshape(_flat(sketch, stem, size, 6), _cells(size), 6)
    found = sketch.node("NonZero", sketch.reshape(sketch.node("Relu", _flat(sketch, stem, size, 1)), -1))
    factor = sketch.node("ReduceMax", "scale_factor", keepdims=0)
    kept = sketch.node("Gather", sketch.node("Mul", rows, factor), sketch.reshape(found, -1), axis=0)
    sketch.output(kept, "multiclass_nms3_0.tmp_0", ["found", 6])
    sketch.output(sketch.node("Size", found), "multiclass_nms3_0.tmp_2", [], TensorProto.INT64)
    return sketch


def centernet(size=64, classes=80) -> Sketch:
    """A heat map a class, sizes and offsets, at a quarter of the picture."""
    sketch, stem = _started(size)
    features = sketch.node("Relu", sketch.conv(stem, 3, 4, side=4, stride=4))
    side = size // 4
    sketch.output(sketch.node("Sigmoid", sketch.conv(features, 4, classes)), "hm", [1, classes, side, side])
    for name in ("wh", "reg"):
        sketch.output(sketch.conv(features, 4, 2), name, [1, 2, side, side])
    return sketch


def features(size=64, channels=64) -> Sketch:
    """A backbone: a map of features, which is no map of classes."""
    sketch, stem = _started(size)
    sketch.output(
        sketch.node("Relu", sketch.conv(stem, 3, channels, side=8, stride=8)),
        "features",
        [1, channels, size // 8, size // 8],
    )
    return sketch


def repainted(size=64) -> Sketch:
    """A picture in, a picture out."""
    sketch, stem = _started(size)
    sketch.output(sketch.conv(stem, 3, 3), "restored", [1, 3, size, size])
    return sketch


def lane_curves(size=64, lanes=7) -> Sketch:
    """Lanes as polynomials, and whether they are there: LSTR, PolyLaneNet."""
    sketch, stem = _started(size)
    pooled = sketch.node("GlobalAveragePool", stem)
    for name, width in (("pred_logits", 2), ("pred_curves", 8)):
        sketch.output(sketch.reshape(sketch.conv(pooled, 3, lanes * width), 1, lanes, width), name, [1, lanes, width])
    return sketch


def lane_cells(size=64) -> Sketch:
    """Lanes as one cell for each row of the picture: Ultra-Fast-Lane-Detection."""
    sketch, stem = _started(size)
    made = sketch.conv(sketch.node("GlobalAveragePool", stem), 3, 101 * 56 * 4)
    sketch.output(sketch.reshape(made, 1, 101, 56, 4), "200", [1, 101, 56, 4])
    return sketch


def classifier(size=64, classes=1000) -> Sketch:
    """One score a class for the whole picture."""
    sketch, stem = _started(size)
    made = sketch.conv(sketch.node("GlobalAveragePool", stem), 3, classes)
    sketch.output(sketch.reshape(made, 1, classes), "logits", [1, classes])
    return sketch
