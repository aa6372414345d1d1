"""Average precision by the COCO protocol, with pycocotools' own matching.

The precision curve is summed here and not there, so that frames can be weighted: an interval needs the figure over
frames drawn again and again. Weighted by one, it is pycocotools' figure.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from compile.class_map import ClassGroup, ClassMap
from compile.labels import LabelledFrame
from perception.results import Detections

IOUS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = 100  # in a frame and group, best first, as the protocol has it
RECALLS = np.linspace(0.0, 1.0, 101)
DRAWS_AT_ONCE = 100

Counts = NDArray[np.int64]
Entry = dict[str, object]


@dataclass(frozen=True, slots=True)
class GroupMatches:
    """All detections of one group, best score first, and what each was.

    Attributes:
        frames: (D,) the frame each detection belongs to.
        right: (T, D) it found a labelled object, at each of `IOUS`.
        wrong: (T, D) it found nothing. One that found an ignored region is neither.
        labelled: (F,) objects to find in each frame.
    """

    frames: Counts
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    labelled: Counts

    def average_precision(self, draws: Counts | None = None, *, ious: int = len(IOUS)) -> NDArray[np.float64]:
        """Precision averaged over 101 recalls, at the first so many of `IOUS`; NaN where nothing is labelled.

        Args:
            draws: (F,) how often each frame counts; None counts each once.
            ious: how many, T of them at most.

        Source: cocodataset/cocoapi `PythonAPI/pycocotools/cocoeval.py` accumulate.
        """
        weights = np.ones_like(self.labelled) if draws is None else draws
        to_find = int(weights @ self.labelled)
        if to_find == 0:
            return np.full(ious, np.nan)
        times = weights[self.frames]
        rows = zip(self.right[:ious], self.wrong[:ious], strict=True)
        return np.array([_average_precision(right * times, wrong * times, to_find) for right, wrong in rows])

    def of_draws(self, draws: Counts, *, ious: int = len(IOUS)) -> NDArray[np.float64]:
        """(R,) mean of `average_precision` over the first so many of `IOUS`, for each of (R, F) draws, much faster.

        The precision that counts at a recall is the best from there on, and the best stand where an object was found:
        only those places are looked at.
        """
        to_find = draws @ self.labelled
        figures = np.full((ious, len(draws)), np.nan)
        for first in range(0, len(draws), DRAWS_AT_ONCE):
            some = slice(first, first + DRAWS_AT_ONCE)
            times = draws[some].T.astype(np.int32)[self.frames]
            for at_iou, right, wrong in zip(range(ious), self.right, self.wrong, strict=False):
                figures[at_iou, some] = _average_precision_of_draws(times, right, wrong, to_find[some])
        mean: NDArray[np.float64] = np.where(to_find > 0, figures.mean(axis=0), np.nan)
        return mean


def match_groups(
    frames: Sequence[tuple[Detections, LabelledFrame]],
    groups: Sequence[tuple[ClassGroup, Sequence[int]]],
    *,
    class_map: ClassMap,
    ious: int = len(IOUS),
) -> list[GroupMatches]:
    """Match detections with labels, group by group: best score first, each object found once.

    What a group ignores, and labelled objects that the map does not ask for, are COCO's crowd regions: a detection that
    lies in one by at least the IoU's share of its own area is neither right nor wrong.

    Args:
        frames: what was detected and what is labelled, frame by frame.
        groups: each group with the class ids that answer in it.
        class_map: which objects are asked for; detections lower than its minimum height are left out.
        ious: at the first so many of `IOUS`.
    """
    labelled: list[Entry] = []
    detected: list[Entry] = []
    for category, (group, class_ids) in enumerate(groups, start=1):
        for image, (result, truth) in enumerate(frames, start=1):
            place: Entry = {"image_id": image, "category_id": category}
            labelled += [place | entry for entry in _label_entries(truth, group, class_map)]
            found = _detection_entries(result, class_ids, class_map.minimum_height_px)
            detected += [place | entry for entry in found]
    accounts = _evaluate(labelled, detected, images=len(frames), categories=len(groups), ious=ious)
    return [_matches_of(accounts[i * len(frames) : (i + 1) * len(frames)], ious) for i in range(len(groups))]


def _evaluate(
    labelled: Sequence[Entry], detected: Sequence[Entry], *, images: int, categories: int, ious: int
) -> list[dict[str, NDArray[np.float64]] | None]:
    """Pycocotools' account of each image, category by category; None where neither side has anything."""
    with redirect_stdout(io.StringIO()):  # its progress goes there
        truth, answer = _coco(labelled, images, categories), _coco(detected, images, categories)
        evaluation = COCOeval(truth, answer, "bbox")
        evaluation.params.iouThrs = IOUS[:ious]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, np.inf]], ["all"]
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.evaluate()
    accounts: list[dict[str, NDArray[np.float64]] | None] = evaluation.evalImgs
    return accounts


def _coco(entries: Sequence[Entry], images: int, categories: int) -> COCO:
    """An annotation set held in memory."""
    numbered = [{"id": number, "area": 1.0, "iscrowd": 0} | entry for number, entry in enumerate(entries, start=1)]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(1, images + 1)],
        "categories": [{"id": category} for category in range(1, categories + 1)],
        "annotations": numbered,
    }
    coco.createIndex()
    return coco


def _label_entries(truth: LabelledFrame, group: ClassGroup, class_map: ClassMap) -> list[Entry]:
    entries: list[Entry] = []
    for each in truth.objects:
        asked = each.class_name in group.labels
        if asked or each.ignore or each.class_name in group.ignored:
            x1, y1, x2, y2 = each.box_px
            found = asked and class_map.asks_for(each)
            entries.append({"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(not found)})
    return entries


def _detection_entries(result: Detections, class_ids: Sequence[int], minimum_height_px: float) -> list[Entry]:
    boxes = result.boxes_px.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    asked = np.flatnonzero(np.isin(result.class_ids, class_ids) & (boxes[:, 3] >= minimum_height_px))
    return [{"bbox": boxes[i].tolist(), "score": float(result.scores[i])} for i in asked]


def _matches_of(images: Sequence[dict[str, NDArray[np.float64]] | None], ious: int) -> GroupMatches:
    """COCO's account of one category, image by image; None stands for an image with nothing in it."""
    nothing = np.zeros((ious, 0))
    scores, matched, ignored, frames = [np.zeros(0)], [nothing], [nothing], [np.zeros(0, np.int64)]
    labelled = np.zeros(len(images), np.int64)
    for frame, image in enumerate(images):
        if image is not None:
            scores.append(np.asarray(image["dtScores"], np.float64))
            matched.append(image["dtMatches"])
            ignored.append(image["dtIgnore"])
            frames.append(np.full(len(image["dtScores"]), frame, np.int64))
            labelled[frame] = np.count_nonzero(np.asarray(image["gtIgnore"]) == 0)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    counts = np.concatenate(ignored, axis=1)[:, order] == 0
    found = np.concatenate(matched, axis=1)[:, order] > 0
    return GroupMatches(np.concatenate(frames)[order], found & counts, ~found & counts, labelled)


def _average_precision(right: Counts, wrong: Counts, to_find: int) -> float:
    """Interpolated precision at 101 recalls; `right` and `wrong` (D,) count each detection, best score first."""
    rights = np.cumsum(right)
    precision = rights / np.maximum(rights + np.cumsum(wrong), 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(rights / to_find, RECALLS)
    return float(np.append(best_from_here, 0.0)[reached].mean())


def _average_precision_of_draws(
    times: NDArray[np.int32], right: NDArray[np.bool_], wrong: NDArray[np.bool_], to_find: Counts
) -> NDArray[np.float64]:
    """(R,) the same of each draw; `times` (D, R) says how often a draw took each detection's frame."""
    places = np.flatnonzero(right)
    if len(places) == 0:
        return np.zeros(times.shape[1])
    counted = np.flatnonzero(right[: places[-1] + 1] | wrong[: places[-1] + 1])
    upto = np.searchsorted(counted, places)  # of what is counted, where something was found
    given = np.cumsum(times[counted], axis=0, dtype=np.int32)[upto]
    rights = np.cumsum(times[places], axis=0, dtype=np.int32)
    best = np.maximum.accumulate((rights / np.maximum(given, 1))[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, rights / np.maximum(to_find, 1), side="right")
    steps = np.diff(reached, axis=0, prepend=0)
    mean: NDArray[np.float64] = np.einsum("dr,dr->r", best, steps) / len(RECALLS)
    return mean
