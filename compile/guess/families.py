"""Which family of networks this is, and how its outputs read: told by shapes, the graph's ends and metadata.

Each recogniser looks at the whole and answers with a Finding or None; the first answer counts. A network that is
recognised but that no decoder reads gets `UNKNOWN_DECODER` and the way out.
"""

from __future__ import annotations

from collections.abc import Callable

from compile.guess.detr import boxes_apart, detr_detections, detr_queries
from compile.guess.finding import PYRAMIDS_PX, Finding, no_decoder, shown
from compile.guess.seen import Picture, Seen
from compile.guess.yolo import (
    instance_masks,
    other_ultralytics_task,
    selected_elsewhere,
    selected_inside,
    yolo_rows,
    yolov8,
)
from perception.engines.engine import TensorInfo


def recognise(seen: Seen, picture: Picture) -> Finding:
    """The first recogniser that knows the network; a Finding of family `unknown` where none does."""
    for recogniser in RECOGNISERS:
        finding = recogniser(seen, picture)
        if finding is not None:
            return finding
    outputs = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in seen.outputs[:6])
    return no_decoder(
        seen,
        "unknown",
        "an unknown network",
        f"no decoder is known for the outputs {outputs}; export it in a form that one reads (docs/model_spec.md), or "
        "write one beside those in perception/decoders",
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
    why = f"{shown(tensor)}: one grid of stride 16, a sigmoid (objectness), boxes, a softmax ({count} classes)"
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


def _heat_maps(seen: Seen, picture: Picture) -> Finding | None:
    """Several maps on one grid, one of them of two numbers a cell: sizes or offsets."""
    grids = {tensor.shape[2:] for tensor in seen.outputs}
    maps = len(seen.outputs) > 1 and all(len(tensor.shape) == 4 for tensor in seen.outputs)
    if not maps or len(grids) > 1 or all(tensor.shape[1] != 2 for tensor in seen.outputs):
        return None
    why = (
        f"{', '.join(map(shown, seen.outputs))}: maps on one grid with sizes or offsets among them, as CenterNet and "
        "panoptic networks give them, and no decoder reads boxes from them; where one is a map of class scores, name "
        "it (decoder argmax_mask), otherwise write a decoder beside those in perception/decoders"
    )
    return no_decoder(seen, "unknown", "CenterNet or its kin", why)


def _segmentation(seen: Seen, picture: Picture) -> Finding | None:
    """A map of class scores, or of classes, whose sides are the picture's divided by a small whole number."""
    for tensor in seen.outputs:
        for layout, classes, rows, columns in _map_readings(tensor):
            if rows <= 0 or picture.height_px % rows or picture.height_px // rows > 32:
                continue
            if picture.height_px // rows * columns != picture.width_px:
                continue
            if classes == 1 and tensor.dtype not in ("int64", "int32", "uint8", "bool"):
                why = f"{shown(tensor)} is one map of numbers: a binary mask or depth, which no decoder reads"
                return no_decoder(seen, "unknown", "a map of one channel", why, task="segmentation")
            return _mask(seen, tensor, layout, classes, pixels=picture.height_px // rows)
    return None


def _map_readings(tensor: TensorInfo) -> list[tuple[str, int, int, int]]:
    """Layout, classes, rows and columns of every way to read a tensor as a map."""
    if len(tensor.shape) == 3 and tensor.shape[0] == 1:
        return [("classes", 1, tensor.shape[1], tensor.shape[2])]
    if len(tensor.shape) != 4:
        return []
    _, second, third, fourth = tensor.shape
    return [("NCHW", second, third, fourth), ("NHWC", fourth, second, third)]


def _mask(seen: Seen, tensor: TensorInfo, layout: str, classes: int, *, pixels: int) -> Finding:
    """`pixels`: of the picture, along a cell's side."""
    count: int | None = classes
    why = f"{shown(tensor)}: a score for each of {classes} classes, {layout}"
    if classes == 1:
        count = _classes_behind_argmax(seen, tensor.name)
        why = f"{shown(tensor)}: one class for each cell"
    others = len(seen.outputs) - 1
    doubts = []
    if others:
        doubts.append(f"{others} further outputs are left unread, check that this is the main one")
    if ends := ", ".join(sorted(seen.last_operators(tensor.name) - SCORING)):
        doubts.append(f"it ends in {ends}, as features do rather than scores: check that it is a map of classes")
    if classes == 3 and pixels == 1:
        doubts.append("three channels in the picture's own size may be a picture: check that it is a map of classes")
    return Finding(
        "segmentation",
        "semantic segmentation",
        "argmax_mask",
        {"output": tensor.name},
        "; ".join([why, *doubts]),
        "unsure" if doubts else "likely",
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


SCORING = {
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "Add", "BatchNormalization"),
    *("Resize", "Upsample", "DepthToSpace", "Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "DequantizeLinear"),
}
"""What a map of classes ends in; a map of features ends in an activation."""

RECOGNISERS: tuple[Callable[[Seen, Picture], Finding | None], ...] = (
    other_ultralytics_task,
    selected_inside,
    selected_elsewhere,
    instance_masks,
    boxes_apart,
    detr_detections,
    _nanodet,
    detr_queries,
    yolov8,
    yolo_rows,
    _fastestdet,
    _heat_maps,
    _segmentation,
)
"""In this order: what metadata says outright comes before what shapes suggest."""
