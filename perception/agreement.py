"""What two engines both say about the same frame: the one definition that compiling, smoke runs and shadows share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.results import Detections, Result, SegmentationMap

AGREED_SCORE, AGREED_IOU = 0.3, 0.5


@dataclass(frozen=True, slots=True)
class Said:
    """Objects, or cells of masks.

    Attributes:
        agreed: said by both.
        reference, candidate: said by each.
    """

    agreed: int
    reference: int
    candidate: int

    @property
    def told(self) -> int:
        """What the two say, counted for each of them."""
        return self.reference + self.candidate

    @property
    def apart(self) -> int:
        """What of it only one says."""
        return self.told - 2 * self.agreed


def agreed_on(reference: Result, candidate: Result, *, score: float = AGREED_SCORE, iou: float = AGREED_IOU) -> Said:
    """Compare two results of one frame; needs no labels.

    A detection of the reference is agreed to when the candidate has one of the same class that overlaps it; best
    score first, each of the candidate's once. Masks agree cell by cell.

    Args:
        reference: what the reference says.
        candidate: what the candidate says.
        score: detections below it are said by neither.
        iou: overlap from which on two boxes are the same.

    Raises:
        ValueError: results of different kinds or sizes.
    """
    if isinstance(reference, SegmentationMap):
        return _agreed_cells(reference, candidate)
    return _agreed_boxes(reference, candidate, score=score, iou=iou)


def overlaps_of(boxes_px: NDArray[np.float32], others_px: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, M) intersection over union."""
    ours, theirs = boxes_px.astype(np.float64)[:, None], others_px.astype(np.float64)
    sides = np.minimum(ours[..., 2:], theirs[:, 2:]) - np.maximum(ours[..., :2], theirs[:, :2])
    both = np.maximum(sides, 0).prod(axis=-1)
    areas = (ours[..., 2:] - ours[..., :2]).prod(axis=-1) + (theirs[:, 2:] - theirs[:, :2]).prod(axis=-1)
    overlaps: NDArray[np.float64] = both / np.maximum(areas - both, np.finfo(np.float64).tiny)
    return overlaps


def _agreed_boxes(expected: Detections, got: Result, *, score: float, iou: float) -> Said:
    if not isinstance(got, Detections):
        raise ValueError("agreement: got detections from one engine and a mask from the other")
    expected, got = expected.at_least(score), got.at_least(score)
    overlaps = overlaps_of(expected.boxes_px, got.boxes_px) * (expected.class_ids[:, None] == got.class_ids)
    agreed = 0
    for row in range(len(expected)):
        if len(got) and overlaps[row].max() >= iou:
            overlaps[:, overlaps[row].argmax()] = 0  # each of the candidate's boxes answers once
            agreed += 1
    return Said(agreed, len(expected), len(got))


def _agreed_cells(expected: SegmentationMap, got: Result) -> Said:
    if not isinstance(got, SegmentationMap) or got.class_ids.shape != expected.class_ids.shape:
        raise ValueError("agreement: got masks of different sizes, or a mask from one engine only")
    return Said(int(np.count_nonzero(expected.class_ids == got.class_ids)), got.class_ids.size, got.class_ids.size)
