"""What detection decoders share: grids, corners, the best class, and the way from candidates to Detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import SpecError
from perception.geometry import Geometry
from perception.model_spec import Decoding, ModelSpec
from perception.results import Detections

Floats: TypeAlias = NDArray[np.float32]

_NMS = cast("Callable[..., Sequence[int]]", cv2.dnn.NMSBoxesBatched)  # takes arrays, whatever its stub says


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes from the score threshold on, best score first, duplicates included.

    Attributes:
        boxes_px: (K, 4) float32, x1 y1 x2 y2 in network pixels.
        scores: (K,) float32.
        class_ids: (K,) integers.
    """

    boxes_px: Floats
    scores: Floats
    class_ids: NDArray[np.integer]


class Selection:
    """Suppresses duplicates among candidates, keeps the best and moves them into the source picture."""

    def __init__(self, decoding: Decoding) -> None:
        self._nms_iou = decoding.nms_iou
        self._across_classes = decoding.nms_across_classes
        self._max_detections = decoding.max_detections

    def __call__(self, candidates: Candidates, geometry: Geometry) -> Detections:
        """The detections, best score first, in source pixels."""
        boxes_px, scores = candidates.boxes_px, candidates.scores
        class_ids = candidates.class_ids.astype(np.int32, copy=False)
        if self._nms_iou is not None and len(scores) > 1:
            groups = np.zeros_like(class_ids) if self._across_classes else class_ids
            kept = suppress(boxes_px, groups, self._nms_iou)
            boxes_px, scores, class_ids = boxes_px.take(kept, axis=0), scores.take(kept), class_ids.take(kept)
        best = slice(self._max_detections)
        return Detections(geometry.to_source(boxes_px[best]), scores[best], class_ids[best])


def suppress(boxes_px: Floats, groups: NDArray[np.int32], iou: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression inside each group.

    Args:
        boxes_px: (K, 4) x1 y1 x2 y2, best first.
        groups: (K,) boxes of different groups do not suppress each other.
        iou: a box goes when it overlaps a kept one by more than this.

    Returns:
        Indices of the boxes that stay, ascending.
    """
    # OpenCV separates groups by shifting them apart, which is only right for coordinates that are not negative,
    # and it orders by score: descending ranks keep the caller's order through ties and scores of zero. It reads lists
    # faster than arrays.
    least = float(boxes_px.min())
    rectangles = [(x1 - least, y1 - least, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes_px.tolist()]
    ranks = np.arange(len(rectangles), 0, -1, dtype=np.float32)
    kept = np.asarray(_NMS(rectangles, ranks, groups, 0.0, iou), dtype=np.intp)
    kept.sort()
    return kept


def surest(scores: Floats, threshold: float) -> NDArray[np.intp]:
    """Indices of the (K,) scores from the threshold on, best first; equal scores stay in their order."""
    sure = np.flatnonzero(scores >= threshold)
    return sure.take(np.argsort(-scores.take(sure), kind="stable"))


def promising(class_scores: Floats, threshold: float) -> NDArray[np.intp]:
    """Rows of (K, C) scores that hold one from the threshold on: most do not, and looking for the best costs more."""
    return np.unique(np.flatnonzero(class_scores >= threshold) // class_scores.shape[1])


def best_class(class_scores: Floats) -> tuple[NDArray[np.intp], Floats]:
    """(K, C) scores to the best class of each row, (K,), and its score, (K,)."""
    class_ids = class_scores.argmax(axis=1)
    return class_ids, class_scores[np.arange(len(class_ids)), class_ids]


def corners(centres_px: Floats, sizes_px: Floats) -> Floats:
    """Centres (K, 2) and widths and heights (K, 2) to (K, 4) x1 y1 x2 y2."""
    halves = sizes_px * np.float32(0.5)
    return np.concatenate((centres_px - halves, centres_px + halves), axis=1)


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    shares: Floats = np.tanh(logits * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return shares


def grid(columns: int, rows: int) -> Floats:
    """(rows * columns, 2): x and y index of every cell, row by row."""
    cells: Floats = np.indices((rows, columns), np.float32)[::-1].reshape(2, -1).T
    return cells


def level_shapes(spec: ModelSpec) -> list[tuple[int, int]]:
    """Columns and rows of the grid at each of the spec's strides.

    Raises:
        SpecError: the spec has no strides.
    """
    if not spec.decoding.strides_px:
        raise SpecError(
            f"decoder {spec.decoding.decoder}: got no strides_px, expected one a level, such as [8, 16, 32]"
        )
    picture = spec.picture
    return [(-(-picture.width_px // s), -(-picture.height_px // s)) for s in spec.decoding.strides_px]
