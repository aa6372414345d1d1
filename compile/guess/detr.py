"""DETR and its kin: a fixed set of queries, decoded inside the graph or left as logits."""

from __future__ import annotations

from compile.guess.finding import Finding, no_decoder, pyramid_of, shown
from compile.guess.seen import Picture, Seen
from perception.engines.engine import TensorInfo

MOST_QUERIES = 1000
"""A DETR asks 100 to 900 queries; dense heads give thousands of rows. Source: the papers' configurations."""

COCO_IDS_AND_NONE = 92
"""Ids 0 to 90 and "no object". Source: facebookresearch/detr models/detr.py."""

DETR_QUERIES = 100
"""Source: as above."""


def boxes_apart(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes and class scores of every cell or anchor in two outputs: not queries, though they may look alike."""
    boxes = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 4]
    scores = [t for t in seen.outputs if len(t.shape) == 3 and t not in boxes]
    if len(seen.outputs) != 2 or len(boxes) != 1 or len(scores) != 1 or boxes[0].shape[1] not in scores[0].shape[1:]:
        return None
    rows = boxes[0].shape[1]
    linear = any(node.op_type in ("MatMul", "Gemm") for node in seen.upstream(boxes[0].name, most_nodes=40))
    if rows <= MOST_QUERIES and pyramid_of(picture, rows) is None and linear:
        return None
    why = (
        f"{shown(boxes[0])} and {shown(scores[0])}: boxes and class scores apart, as SSD, RetinaNet, PP-YOLOE and "
        "YOLO-NAS give them; whether boxes are pixels or offsets from anchors does not show, and no decoder reads "
        "them; join them in the graph to one output [1, 4 + C, N], centre x y, width, height in pixels of the "
        "network's picture, then class scores, which decoder yolov8 reads"
    )
    return no_decoder(seen, "unknown", "a detector with boxes and scores apart", why)


def detr_detections(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes, labels and scores decoded inside the graph."""
    boxes = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 4]
    flat = [t for t in seen.outputs if len(t.shape) == 2]
    labels = [t for t in flat if t.dtype in ("int64", "int32") or _is_called(t, "label", "class")]
    scores = [t for t in flat if t not in labels]
    if not (len(boxes) == len(labels) == len(scores) == 1):
        return None
    sized = len(seen.inputs) > 1
    fed = "a second input asks for the picture's size" if sized else "no input asks for a size: check that boxes are px"
    return Finding(
        "rtdetr",
        "RT-DETR or its kin (D-FINE, DEIM)",
        "detr",
        {"boxes": boxes[0].name, "labels": labels[0].name, "scores": scores[0].name},
        f"outputs {boxes[0].name}, {labels[0].name}, {scores[0].name} as boxes, labels, scores; {fed}",
        "likely" if sized else "unsure",
        _classes_behind(seen, scores[0].name),
    )


def detr_queries(seen: Seen, picture: Picture) -> Finding | None:
    """Boxes as shares of the picture and class logits, one of each for every query."""
    boxes = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[2] == 4 and 0 < t.shape[1] <= MOST_QUERIES]
    if not boxes:
        return None
    logits = [t for t in seen.outputs if len(t.shape) == 3 and t.shape[1] == boxes[0].shape[1] and t not in boxes]
    named = [t for t in logits if _is_called(t, "logit", "label", "class", "score")]
    chosen = (named or logits)[:1]
    if not chosen:
        return None
    fields, queries = chosen[0].shape[2], boxes[0].shape[1]
    softmax = fields == COCO_IDS_AND_NONE or (queries == DETR_QUERIES and fields not in (80, 91))
    scored = "softmax scores, the last class meaning no object" if softmax else "sigmoid scores"
    settled = named and (fields in (80, 91, COCO_IDS_AND_NONE))
    return Finding(
        "detr" if softmax else "rfdetr",
        "DETR" if softmax else "DETR with sigmoid scores (RT-DETR, RF-DETR, Deformable)",
        "detr",
        {"boxes": boxes[0].name, "logits": chosen[0].name},
        f"{queries} queries: boxes {shown(boxes[0])}, logits {shown(chosen[0])}; {scored}, by their numbers",
        "likely" if settled else "unsure",
        fields - 1 if softmax else fields,
        options={"activation": "softmax"} if softmax else {},
    )


def _is_called(tensor: TensorInfo, *words: str) -> bool:
    return any(word in tensor.name.lower() for word in words)


def _classes_behind(seen: Seen, scores: str) -> int | None:
    """Classes of the nearest [1, N, C] behind a tensor of best scores."""
    for node in seen.upstream(scores, most_nodes=60):
        shape = seen.shapes.get(node.output[0], ())
        if len(shape) == 3 and shape[0] == 1 and shape[2] > 1 and node.op_type in ("Sigmoid", "Softmax"):
            return shape[2]
    return None
