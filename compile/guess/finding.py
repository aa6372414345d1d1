"""What the outputs of a network tell, and the questions that recognisers ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from compile.guess.clue import Confidence
from compile.guess.seen import Picture, Seen
from perception.engines.engine import TensorInfo

UNKNOWN_DECODER = "unknown"

PYRAMIDS_PX = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Strides of feature pyramids in use, level by level."""


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


def no_decoder(seen: Seen, family: str, title: str, why: str, *, task: str = "detection") -> Finding:
    """A network that is recognised, or not, but that no decoder reads; `why` says the way out."""
    return Finding(family, title, UNKNOWN_DECODER, {"output": seen.outputs[0].name}, why, "unsure", task=task)


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


def shown(tensor: TensorInfo) -> str:
    """Name and shape, as messages have them."""
    return f"{tensor.name} {list(tensor.shape)}"
