"""Which family of networks this is, and how its outputs read: told by shapes, the graph's ends and metadata.

Each recogniser looks at the whole and answers with a Finding or None; the first answer counts. A network that is
recognised but that no decoder reads gets `UNKNOWN_DECODER` and the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from compile.guess.clue import Confidence
from compile.guess.seen import Picture, Seen
from perception.engines.engine import TensorInfo

UNKNOWN_DECODER = "unknown"
PYRAMIDS_PX = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Strides of feature pyramids in use, level by level."""

MOST_QUERIES = 1000
"""A DETR asks 100 to 900 queries; dense heads give thousands of rows. Source: the papers' configurations."""

PROTOTYPE_CHANNELS = 32
"""Mask prototypes of an instance segmentation head. Source: ultralytics nn/modules/head.py Segment."""

DISTANCE_BINS = 8
"""Bins of each distance in NanoDet's head. Source: RangiLyu/nanodet config, reg_max 7."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the outputs tell.

    Attributes:
        family: key of `compile.guess.pixels.FAMILIES`: how such networks are fed.
        title: the same for people.
        decoder: name in `perception.decode.DECODERS`, or `UNKNOWN_DECODER`.
        tensors: role → output.
        why: what it was told from.
        confidence: how sure the decoder is.
        class_count: None where the outputs do not tell.
        task: `detection` or `segmentation`.
        strides_px: for grid decoders.
        options: for the decoder.
        nms_iou: as the family's authors set it; None where duplicates do not arise.
    """

    family: str
    title: str
    decoder: str
    tensors: dict[str, str]
    why: str
    confidence: Confidence = "likely"
    class_count: int | None = None
    task: str = "detection"
    strides_px: tuple[int, ...] = ()
    options: dict[str, float | int | str | bool] = field(default_factory=dict)
    nms_iou: float | None = None


def recognise(seen: Seen, picture: Picture) -> Finding:
    """The first recogniser that knows the network; a Finding of family `unknown` where none does."""
    for recogniser in RECOGNISERS:
        finding = recogniser(seen, picture)
        if finding is not None:
            return finding
    outputs = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in seen.outputs[:6])
    return _no_decoder(
        seen, "unknown", "an unknown network", f"no decoder is known for the outputs {outputs}; write one"
    )


def is_ultralytics(seen: Seen) -> bool:
    """Whether an Ultralytics exporter signed the file; that of YOLOv5 leaves `names` and `stride` only."""
    return seen.metadata.get("author") == "Ultralytics" or {"names", "stride"} <= set(seen.metadata)


def pyramid_of(picture: Picture, rows: int) -> tuple[tuple[int, ...], int] | None:
    """Strides and anchors a cell whose grids have `rows` rows together, for this size of picture."""
    for strides_px in PYRAMIDS_PX:
        cells = sum(picture.cells(stride_px) for stride_px in strides_px)
        for anchors in (1, 3):
            if cells * anchors == rows:
                return strides_px, anchors
    return None


def _other_ultralytics_task(seen: Seen, picture: Picture) -> Finding | None:
    """Tasks that the metadata names and no decoder reads."""
    task = seen.metadata.get("task", "detect")
    if not is_ultralytics(seen) or task == "detect":
        return None
    return _no_decoder(
        seen, "ultralytics", f"Ultralytics, task {task}", f"no decoder reads task {task!r}; export a detect model"
    )


def _suppressed_inside(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes already selected inside the graph: [1, few, 6] as YOLOv10, YOLO26 and exports with NMS have it."""
    tensor = seen.outputs[0]
    few = len(tensor.shape) == 3 and tensor.shape[1] <= MOST_QUERIES and tensor.shape[2] == 6
    if len(seen.outputs) > 1 or not few:
        return None
    why = (
        f"{_shown(tensor)} looks like boxes already selected inside the graph, which no decoder reads; "
        "export with end2end=False, nms=False"
    )
    return _no_decoder(seen, "ultralytics", "a YOLO that selects boxes itself", why)


def _instance_masks(seen: Seen, picture: Picture) -> Finding | None:
    prototypes = [t for t in seen.outputs if len(t.shape) == 4 and t.shape[1] == PROTOTYPE_CHANNELS]
    rows = [t for t in seen.outputs if len(t.shape) == 3]
    if len(seen.outputs) != 2 or not prototypes or not rows:
        return None
    why = f"{_shown(prototypes[0])} are mask prototypes, which no decoder reads; export a detection model"
    return _no_decoder(seen, "ultralytics", "YOLO with instance masks", why)


def _detr_detections(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes, labels and scores decoded inside the graph."""
    boxes = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 4]
    flat = [t for t in seen.outputs if len(t.shape) == 2]
    labels = [
        t for t in flat if t.dtype in ("int64", "int32") or "label" in t.name.lower() or "class" in t.name.lower()
    ]
    scores = [t for t in flat if t not in labels]
    if not (len(boxes) == len(labels) == len(scores) == 1):
        return None
    sized = len(seen.inputs) > 1
    fed = (
        "a second input asks for the picture's size"
        if sized
        else "no input asks for a size: check that boxes are pixels"
    )
    return Finding(
        "rtdetr",
        "RT-DETR or its kin (D-FINE, DEIM)",
        "detr",
        {"boxes": boxes[0].name, "labels": labels[0].name, "scores": scores[0].name},
        f"outputs {boxes[0].name}, {labels[0].name}, {scores[0].name} as boxes, labels, scores; {fed}",
        "likely" if sized else "unsure",
        _classes_behind(seen, scores[0].name),
    )


def _detr_queries(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes as shares of the picture and class logits, one of each for every query."""
    boxes = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 4 and 0 < t.shape[1] <= MOST_QUERIES]
    if not boxes:
        return None
    logits = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[1] == boxes[0].shape[1] and t not in boxes]
    named = [t for t in logits if any(word in t.name.lower() for word in ("logit", "label", "class", "score"))]
    chosen = (named or logits)[:1]
    if not chosen:
        return None
    width = chosen[0].shape[2]
    softmax = width == 92 or (boxes[0].shape[1] == 100 and width not in (80, 91))
    seen_by = f"{boxes[0].shape[1]} queries: boxes {_shown(boxes[0])}, logits {_shown(chosen[0])}"
    last = (
        "with one class more than COCO's ids, the last meaning no object" if softmax else "no class left for no object"
    )
    return Finding(
        "detr" if softmax else "rfdetr",
        "DETR" if softmax else "DETR with sigmoid scores (RT-DETR, RF-DETR, Deformable)",
        "detr",
        {"boxes": boxes[0].name, "logits": chosen[0].name},
        f"{seen_by}; {'softmax' if softmax else 'sigmoid'} scores, {last}",
        "likely" if named else "unsure",
        width - 1 if softmax else width,
        options={"activation": "softmax"} if softmax else {},
    )


def _nanodet(seen: Seen, picture: Picture) -> Finding | None:
    """For each stride, class scores after a sigmoid and distances before their softmax."""
    for strides_px in PYRAMIDS_PX:
        cells = [picture.cells(stride_px) for stride_px in strides_px]
        if len(seen.outputs) != 2 * len(cells) or len(set(cells)) < len(cells):
            continue
        tensors: dict[str, str] = {}
        widths = set()
        for stride_px, count in zip(strides_px, cells, strict=True):
            level = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[1] == count]
            scores = [t for t in level if "Sigmoid" in seen.last_operators(t.name)]
            distances = [t for t in level if t not in scores and t.shape[2] % 4 == 0]
            if len(scores) == len(distances) == 1:
                tensors |= {f"cls_{stride_px}": scores[0].name, f"dis_{stride_px}": distances[0].name}
                widths.add(scores[0].shape[2])
        if len(tensors) == 2 * len(cells) and len(widths) == 1:
            why = f"for strides {list(strides_px)} one output ends in a sigmoid (classes) and one does not (distances)"
            return Finding(
                "nanodet",
                "NanoDet",
                "nanodet",
                tensors,
                why,
                "certain",
                widths.pop(),
                strides_px=strides_px,
                nms_iou=0.6,
            )
    return None


def _yolov8(seen: Seen, picture: Picture) -> Finding | None:
    """[1, 4 + C, N]: one column a grid cell, no objectness."""
    tensor = seen.outputs[0]
    if len(seen.outputs) > 1 or len(tensor.shape) != 3 or tensor.shape[1] < 5:
        return None
    pyramid = pyramid_of(picture, tensor.shape[2])
    if pyramid is None or pyramid[1] != 1:
        return None
    count = tensor.shape[1] - 4
    scored = count in seen.widths(tensor.name, "Sigmoid")
    why = f"{_shown(tensor)}: 4 + {count} channels for each cell of strides {list(pyramid[0])}"
    sure: Confidence = "certain" if scored and is_ultralytics(seen) else "likely" if scored else "unsure"
    why += (
        f", {count} of them after a sigmoid"
        if scored
        else ", but no sigmoid over the classes at the graph's end: check"
    )
    return Finding(
        "ultralytics",
        "YOLOv8 or a later one with its head",
        "yolov8",
        {"output": tensor.name},
        why,
        sure,
        count,
        nms_iou=0.7,
    )


def _yolo_rows(seen: Seen, picture: Picture) -> Finding | None:
    """[1, N, 5 + C]: one row a cell and anchor, with objectness; or the transposed [1, N, 4 + C]."""
    tensor = seen.outputs[0]
    if len(seen.outputs) > 1 or len(tensor.shape) != 3 or tensor.shape[2] < 6:
        return None
    pyramid = pyramid_of(picture, tensor.shape[1])
    if pyramid is None:
        return None
    strides_px, anchors = pyramid
    fields = tensor.shape[2]
    scored = seen.widths(tensor.name, "Sigmoid")
    where = f"{_shown(tensor)}: {anchors} row{'s' * (anchors > 1)} for each cell of strides {list(strides_px)}"
    if fields - 4 * DISTANCE_BINS in scored and fields - 5 not in scored:
        why = f"{where}, classes and distances joined; export NanoDet with one output a level"
        return _no_decoder(seen, "nanodet", "NanoDet with joined outputs", why)
    if anchors == 3:
        return _yolov5(seen, tensor, strides_px, where)
    if fields - 4 in scored and fields - 5 not in scored:
        why = f"{where}, {fields - 4} of {fields} fields after a sigmoid"
        tensors = {"output": tensor.name}
        return Finding("ultralytics", "YOLOv8, transposed", "yolov8", tensors, why, "likely", fields - 4, nms_iou=0.7)
    return _yolox(seen, tensor, strides_px, where)


def _yolox(seen: Seen, tensor: TensorInfo, strides_px: tuple[int, ...], where: str) -> Finding:
    count = tensor.shape[2] - 5
    scored = {1, count} <= seen.widths(tensor.name, "Sigmoid")
    decoded = seen.is_computed_further(tensor.name)
    exponential = any(node.op_type == "Exp" for node in seen.upstream(tensor.name, most_nodes=40))
    boxes = "boxes decoded inside the graph" if decoded else "boxes still grid offsets"
    ends = f"objectness and {count} classes after their sigmoids" if scored else "no sigmoids seen at the end: check"
    sure: Confidence = "unsure" if not scored else "likely" if decoded else "certain"
    return Finding(
        "yolox" if exponential or not decoded else "decoded_rows",
        "YOLOX" if exponential or not decoded else "a YOLO with objectness, such as YOLOv6",
        "yolox",
        {"output": tensor.name},
        f"{where}, {ends}, {boxes}",
        sure,
        count,
        strides_px=strides_px,
        options={"decoded": True} if decoded else {},
        nms_iou=0.45,
    )


def _yolov5(seen: Seen, tensor: TensorInfo, strides_px: tuple[int, ...], where: str) -> Finding:
    """Three anchors a cell are three levels of the same stride to the decoder, since boxes are decoded already."""
    if not seen.is_computed_further(tensor.name):
        why = f"{where}, boxes not decoded, and no decoder knows the anchors; export with the decoding inside"
        return _no_decoder(seen, "ultralytics", "a YOLO with anchors", why)
    return Finding(
        "ultralytics",
        "YOLOv5 or YOLOv7",
        "yolox",
        {"output": tensor.name},
        f"{where}, boxes decoded inside the graph; each stride stands three times, once an anchor",
        "likely",
        tensor.shape[2] - 5,
        strides_px=tuple(stride_px for stride_px in strides_px for _ in range(3)),
        options={"decoded": True},
        nms_iou=0.45,
    )


def _fastestdet(seen: Seen, picture: Picture) -> Finding | None:
    """[1, 5 + C, H/16, W/16] joined from objectness, boxes and a softmax over classes."""
    tensor = seen.outputs[0]
    grid = (-(-picture.height_px // 16), -(-picture.width_px // 16))
    if len(seen.outputs) > 1 or len(tensor.shape) != 4 or tensor.shape[2:] != grid or tensor.shape[1] < 6:
        return None
    operators = seen.last_operators(tensor.name)
    if not {"Sigmoid", "Softmax"} <= operators:
        return None
    count = tensor.shape[1] - 5
    why = f"{_shown(tensor)}: one grid of stride 16, a sigmoid (objectness), boxes, a softmax ({count} classes)"
    return Finding(
        "fastestdet",
        "FastestDet",
        "fastestdet",
        {"output": tensor.name},
        why,
        "certain",
        count,
        strides_px=(16,),
        nms_iou=0.45,
    )


def _segmentation(seen: Seen, picture: Picture) -> Finding | None:
    """A map of class scores, or of classes, whose sides are the picture's divided by a small whole number."""
    for tensor in seen.outputs:
        for layout, classes, rows, columns in _map_readings(tensor):
            if rows <= 0 or picture.height_px % rows or picture.height_px // rows > 32:
                continue
            if picture.height_px // rows * columns != picture.width_px:
                continue
            if classes == 1 and tensor.dtype not in ("int64", "int32", "uint8", "bool"):
                why = f"{_shown(tensor)} is one map of numbers: a binary mask or depth, which no decoder reads"
                return _no_decoder(seen, "unknown", "a map of one channel", why, task="segmentation")
            return _mask(seen, tensor, layout, classes)
    return None


def _map_readings(tensor: TensorInfo) -> list[tuple[str, int, int, int]]:
    """Layout, classes, rows and columns of every way to read a tensor as a map."""
    if len(tensor.shape) == 3 and tensor.shape[0] == 1:
        return [("classes", 1, tensor.shape[1], tensor.shape[2])]
    if len(tensor.shape) != 4:
        return []
    _, second, third, fourth = tensor.shape
    return [("NCHW", second, third, fourth), ("NHWC", fourth, second, third)]


def _mask(seen: Seen, tensor: TensorInfo, layout: str, classes: int) -> Finding:
    count: int | None = classes
    why = f"{_shown(tensor)}: a score for each of {classes} classes, {layout}"
    if classes == 1:
        count = _classes_behind_argmax(seen, tensor.name)
        why = f"{_shown(tensor)}: one class for each cell"
    others = len(seen.outputs) - 1
    return Finding(
        "segmentation",
        "semantic segmentation",
        "argmax_mask",
        {"output": tensor.name},
        why + (f"; {others} further outputs are left unread, check that this is the main one" if others else ""),
        "unsure" if others else "likely",
        count,
        task="segmentation",
        options={"layout": layout} if layout in ("NCHW", "NHWC") and classes > 1 else {},
    )


def _classes_behind_argmax(seen: Seen, tensor: str) -> int | None:
    for node in seen.upstream(tensor, most_nodes=20):
        if node.op_type == "ArgMax":
            shape = seen.shapes.get(node.input[0], ())
            return max((side for side in shape[1:2]), default=None)
    return None


def _classes_behind(seen: Seen, scores: str) -> int | None:
    """Classes of the nearest [1, N, C] behind a tensor of best scores."""
    for node in seen.upstream(scores, most_nodes=60):
        shape = seen.shapes.get(node.output[0], ())
        if len(shape) == 3 and shape[0] == 1 and shape[2] > 1 and node.op_type in ("Sigmoid", "Softmax"):
            return shape[2]
    return None


def _no_decoder(seen: Seen, family: str, title: str, why: str, *, task: str = "detection") -> Finding:
    return Finding(family, title, UNKNOWN_DECODER, {"output": seen.outputs[0].name}, why, "unsure", task=task)


def _shown(tensor: TensorInfo) -> str:
    return f"{tensor.name} {list(tensor.shape)}"


RECOGNISERS: tuple[Callable[[Seen, Picture], Finding | None], ...] = (
    _other_ultralytics_task,
    _suppressed_inside,
    _instance_masks,
    _detr_detections,
    _nanodet,
    _detr_queries,
    _yolov8,
    _yolo_rows,
    _fastestdet,
    _segmentation,
)
"""In this order: what metadata says outright comes before what shapes suggest."""
