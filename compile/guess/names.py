"""Class names: noted by the exporter, or those of the data set that has as many."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from compile.guess.clue import Clue

COCO_80 = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
    *("scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Source: COCO 2017 detection, categories in the order of their ids."""

COCO_UNUSED_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Ids of 0..90 that COCO 2017 gives to no category. Source: as above."""

CITYSCAPES_19 = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""Source: Cityscapes, train ids."""

VOC_21 = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Source: PASCAL VOC 2012 segmentation."""

METADATA_KEYS = ("names", "classes", "class_names", "labels", "categories")


def guess_classes(count: int | None, task: str, metadata: Mapping[str, str]) -> Clue:
    """Names of `count` classes; None where the outputs do not tell how many there are."""
    noted = _noted(metadata)
    if noted is not None and count in (None, len(noted)):
        return Clue("classes", noted, f"{len(noted)} names in the file's metadata", "certain")
    if noted is not None:
        why = f"the metadata names {len(noted)} classes, the outputs have {count}; check which are right"
        return Clue("classes", _numbered(count or 1), why, "unsure")
    if count is None:
        why = "the outputs do not tell how many classes there are; write their names, in the order of training"
        return Clue("classes", COCO_80 if task == "detection" else _numbered(2), why, "unsure")
    known = _of_data_set(count, task)
    if known is not None:
        return Clue("classes", known[1], f"{count} classes, as many as {known[0]}, whose names these are", "likely")
    why = f"{count} classes by the outputs' shape, without names; write them, in the order of training"
    return Clue("classes", _numbered(count), why, "unsure")


def _of_data_set(count: int, task: str) -> tuple[str, tuple[str, ...]] | None:
    tables = {
        ("detection", 80): ("COCO", COCO_80),
        ("detection", 91): ("COCO's ids with its gaps", coco_91()),
        ("segmentation", 19): ("Cityscapes", CITYSCAPES_19),
        ("segmentation", 21): ("PASCAL VOC", VOC_21),
    }
    return tables.get((task, count))


def coco_91() -> tuple[str, ...]:
    """COCO's categories at their ids; ids that COCO leaves out are called `unused_ID`."""
    names = iter(COCO_80)
    return tuple(f"unused_{i}" if i in COCO_UNUSED_IDS else next(names) for i in range(91))


def _noted(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Names from the metadata: a Python or JSON list, or a mapping from number to name."""
    for key in METADATA_KEYS:
        try:
            noted = ast.literal_eval(metadata.get(key, ""))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(noted, dict) and noted and all(isinstance(number, (int, str)) for number in noted):
            noted = [
                noted[number]
                for number in sorted(noted, key=lambda number: int(number) if str(number).isdigit() else 0)
            ]
        if isinstance(noted, (list, tuple)) and noted:
            return _distinct([str(name) for name in noted])
    return None


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Repeated names get their number, since a ModelSpec wants them distinct."""
    return tuple(f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class_{i}" for i in range(count))
