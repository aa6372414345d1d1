"""YOLOs and their kin, told apart by the shape of one output and by what stands at the graph's end."""

from __future__ import annotations

from compile.guess.clue import Confidence
from compile.guess.finding import Finding, is_ultralytics, no_decoder, pyramid_of, shown
from compile.guess.seen import Picture, Seen
from perception.engines.engine import TensorInfo

PROTOTYPE_CHANNELS = 32
"""Mask prototypes of an instance segmentation head. Source: ultralytics nn/modules/head.py Segment."""

DISTANCE_BINS = 8
"""Bins of each distance in NanoDet's head. Source: RangiLyu/nanodet config, reg_max 7."""

MOST_SELECTED = 1000
"""Boxes that a graph with its own selection gives; usually 100 or 300."""


def other_ultralytics_task(seen: Seen, picture: Picture) -> Finding | None:
    """Tasks that the metadata names and no decoder reads."""
    task = seen.metadata.get("task", "detect")
    if not is_ultralytics(seen) or task == "detect":
        return None
    return no_decoder(
        seen, "ultralytics", f"Ultralytics, task {task}", f"no decoder reads task {task!r}; export a detect model"
    )


def selected_inside(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes already selected inside the graph: [1, few, 6] as YOLOv10, YOLO26 and exports with NMS have it."""
    tensor = seen.outputs[0]
    few = len(tensor.shape) == 3 and tensor.shape[1] <= MOST_SELECTED and tensor.shape[2] == 6
    if len(seen.outputs) > 1 or not few or pyramid_of(picture, tensor.shape[1]) is not None:
        return None
    why = (
        f"{shown(tensor)} looks like boxes already selected inside the graph, which no decoder reads; "
        "export with end2end=False, nms=False"
    )
    return no_decoder(seen, "ultralytics", "a YOLO that selects boxes itself", why)


def selected_elsewhere(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes selected by a framework's own post-processing: as many rows as were found, or TensorFlow's four outputs."""
    named = [t for t in seen.outputs if t.name.startswith(("detection_boxes", "num_det"))]
    rows = [t for t in seen.outputs if len(t.shape) == 2 and t.shape[0] != 1 and 4 <= t.shape[1] <= 7]
    scored = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 5] if len(seen.outputs) > 1 else []
    found = (named or rows or scored)[:1]
    if not found:
        return None
    why = (
        f"{shown(found[0])} looks like boxes already selected inside the graph, as TensorFlow, Paddle, torchvision and "
        "MMDetection do each in its own order, which no decoder reads; export the model without its post-processing"
    )
    return no_decoder(seen, "unknown", "a detector that selects boxes itself", why)


def instance_masks(seen: Seen, picture: Picture) -> Finding | None:
    """Rows with mask coefficients, and the prototypes that they weigh."""
    prototypes = [t for t in seen.outputs if len(t.shape) == 4 and t.shape[1] == PROTOTYPE_CHANNELS]
    rows = [t for t in seen.outputs if len(t.shape) == 3]
    if len(seen.outputs) != 2 or not prototypes or not rows:
        return None
    why = f"{shown(prototypes[0])} are mask prototypes, which no decoder reads; export a detection model"
    return no_decoder(seen, "ultralytics", "YOLO with instance masks", why)


def yolov8(seen: Seen, picture: Picture) -> Finding | None:
    """[1, 4 + C, N]: one column a grid cell, no objectness."""
    tensor = seen.outputs[0]
    if len(seen.outputs) > 1 or len(tensor.shape) != 3 or tensor.shape[1] < 5:
        return None
    pyramid = pyramid_of(picture, tensor.shape[2])
    if pyramid is None or pyramid[1] != 1:
        return None
    count = tensor.shape[1] - 4
    scored = count in seen.widths(tensor.name, "Sigmoid")
    rowwise = pyramid_of(picture, tensor.shape[1]) is not None
    if rowwise and (not scored or 1 in seen.widths(tensor.name, "Sigmoid")):
        return None  # it reads as rows, too, and those have an objectness
    why = f"{shown(tensor)}: 4 + {count} channels for each cell of strides {list(pyramid[0])}"
    sure: Confidence = "certain" if scored and is_ultralytics(seen) else "likely" if scored else "unsure"
    why += f", {count} of them after a sigmoid" if scored else ", but no sigmoid over the classes is seen: check"
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


def yolo_rows(seen: Seen, picture: Picture) -> Finding | None:
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
    where = f"{shown(tensor)}: {anchors} row{'s' * (anchors > 1)} for each cell of strides {list(strides_px)}"
    if fields - 4 * DISTANCE_BINS in scored and fields - 5 not in scored:
        why = f"{where}, classes and distances joined; export NanoDet with one output a level"
        return no_decoder(seen, "nanodet", "NanoDet with joined outputs", why)
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
        return no_decoder(seen, "ultralytics", "a YOLO with anchors", why)
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
