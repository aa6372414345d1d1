"""How right an engine is: average precision of boxes, IoU of masks, agreement of two engines.

Counts are kept frame by frame, so that a figure can be computed again over re-sampled frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from compile.average_precision import IOUS, Counts, GroupMatches, match_groups
from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledMask
from compile.pixel_overlap import GroupPixels, match_pixels
from perception.agreement import AGREED_IOU, AGREED_SCORE, agreed_on, overlaps_of
from perception.errors import LabelError
from perception.results import Detections, Result, SegmentationMap

LOWEST_SCORE = 0.02
"""Score from which on detections enter average precision: those below it hardly move the figure, and cost time."""


@dataclass(frozen=True, slots=True)
class GroupAccuracy:
    """Average precision of one group, and the number of objects it rests on; NaN without any.

    Attributes:
        ap50: at IoU .5.
        ap50_95: mean over IoU .5, .55 … .95.
        labelled: objects to find.
    """

    ap50: float
    ap50_95: float
    labelled: int


@dataclass(frozen=True, slots=True)
class DetectionAccuracy:
    """Average precision of each group, and the mean over those with labelled objects."""

    ap50: float
    ap50_95: float
    groups: dict[str, GroupAccuracy]
    frames: int

    def to_dict(self) -> dict[str, object]:
        """For JSON: null stands for NaN."""
        return _for_json(asdict(self))


@dataclass(frozen=True, slots=True)
class DetectionMatches:
    """What the detections of F labelled frames were, group by group."""

    groups: dict[str, GroupMatches]
    frames: int

    def ap50(self, draws: Counts | None = None) -> float:
        """`accuracy(draws).ap50` for a tenth of the work."""
        return _mean([group.average_precision(draws, ious=1)[0] for group in self.groups.values()])

    def ap50_of_draws(self, draws: Counts) -> NDArray[np.float64]:
        """(R,) `ap50` of each of (R, F) draws; NaN where none of them labels anything."""
        return self._of_draws(draws, ious=1)

    def ap50_95_of_draws(self, draws: Counts) -> NDArray[np.float64]:
        """(R,) `accuracy(draw).ap50_95` of each of (R, F) draws; NaN likewise."""
        return self._of_draws(draws, ious=len(IOUS))

    def _of_draws(self, draws: Counts, *, ious: int) -> NDArray[np.float64]:
        columns = np.stack([group.of_draws(draws, ious=ious) for group in self.groups.values() if group.labelled.any()])
        known = ~np.isnan(columns)
        count = known.sum(axis=0)
        figures: NDArray[np.float64] = np.divide(
            np.where(known, columns, 0.0).sum(axis=0), count, out=np.full(len(draws), np.nan), where=count > 0
        )
        return figures

    def accuracy(self, draws: Counts | None = None) -> DetectionAccuracy:
        """The figures, each frame counted once or as often as `draws`, (F,), says."""
        groups = {name: _group_accuracy(group, draws) for name, group in self.groups.items()}
        return DetectionAccuracy(
            ap50=_mean([group.ap50 for group in groups.values()]),
            ap50_95=_mean([group.ap50_95 for group in groups.values()]),
            groups=groups,
            frames=self.frames if draws is None else int(draws.sum()),
        )


def match_detections(
    results: Sequence[Detections],
    truths: Sequence[LabelledFrame | None],
    *,
    class_map: ClassMap,
    classes: Sequence[str],
    ious: int = len(IOUS),
) -> DetectionMatches:
    """Match detections with labels by the COCO protocol; see `match_groups`.

    Args:
        results: one a frame, from `LOWEST_SCORE` on.
        truths: the same frames' labels; a frame without is left out.
        class_map: what is scored.
        classes: the model's, in the order of its class ids.
        ious: at the first so many overlaps of the protocol; 1 is enough for `ap50`.

    Raises:
        LabelError: the map does not fit the model or the labels, or no object it asks for is labelled.
        ValueError: `results` and `truths` are not equally many.
    """
    frames = [(result, truth) for result, truth in zip(results, truths, strict=True) if truth is not None]
    class_map.require_model_classes(classes)
    class_map.require_label_classes(
        {each.class_name for _, truth in frames for each in truth.objects if not each.ignore}, where="labels"
    )
    groups = [(group, _ids(group.model, classes)) for group in class_map.groups.values()]
    matches = match_groups(frames, groups, class_map=class_map, ious=ious)
    if not any(group.labelled.any() for group in matches):
        raise LabelError(
            f"labels: no object of {', '.join(class_map.groups)} in {len(frames)} labelled frames; "
            "give labels of what the model detects"
        )
    return DetectionMatches(dict(zip(class_map.groups, matches, strict=True)), len(frames))


@dataclass(frozen=True, slots=True)
class MaskAccuracy:
    """Intersection over union of each group over all pixels, and the mean over those that appear; NaN without any."""

    miou: float
    groups: dict[str, float]
    frames: int

    def to_dict(self) -> dict[str, object]:
        """For JSON: null stands for NaN."""
        return _for_json(asdict(self))


@dataclass(frozen=True, slots=True)
class MaskMatches:
    """What the pixels of F labelled frames were, group by group."""

    groups: dict[str, GroupPixels]
    frames: int

    def accuracy(self, draws: Counts | None = None) -> MaskAccuracy:
        """The figures, each frame counted once or as often as `draws`, (F,), says."""
        weights = np.ones(self.frames, np.int64) if draws is None else draws
        groups = {
            name: _ratio(int(weights @ group.both), int(weights @ group.either)) for name, group in self.groups.items()
        }
        return MaskAccuracy(_mean(list(groups.values())), groups, int(weights.sum()))


def match_masks(
    results: Sequence[SegmentationMap],
    truths: Sequence[LabelledMask | None],
    *,
    class_map: ClassMap,
    classes: Sequence[str],
) -> MaskMatches:
    """Compare masks with labelled ones, pixel by pixel at the labels' size; see `match_detections`.

    Raises:
        LabelError: the map does not fit the model or the masks, a mask is unreadable, or none shows what it asks for.
        ValueError: `results` and `truths` are not equally many.
    """
    frames = [(result, truth) for result, truth in zip(results, truths, strict=True) if truth is not None]
    class_map.require_model_classes(classes)
    groups = [(group, _ids(group.model, classes)) for group in class_map.groups.values()]
    pixels = match_pixels(frames, groups, mask_values=class_map.mask_values)
    if not any(group.labelled.any() for group in pixels):
        raise LabelError(
            f"masks: no pixel of {', '.join(class_map.groups)} in {len(frames)} labelled frames; "
            "give masks of what the model segments, or correct mask_values"
        )
    return MaskMatches(dict(zip(class_map.groups, pixels, strict=True)), len(frames))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a candidate says what the reference says, frame by frame, each (F,): boxes, or pixels of masks.

    Attributes:
        agreed: said by both.
        reference: said by the reference.
        candidate: said by the candidate.
    """

    agreed: Counts
    reference: Counts
    candidate: Counts

    @property
    def share(self) -> float:
        """Share of what the reference says that the candidate says too; NaN where the reference says nothing."""
        return _ratio(int(self.agreed.sum()), int(self.reference.sum()))

    @property
    def ghosts(self) -> float:
        """Share of what the candidate says that the reference does not; NaN where the candidate says nothing."""
        return 1 - _ratio(int(self.agreed.sum()), int(self.candidate.sum()))

    def to_dict(self) -> dict[str, object]:
        """For JSON, over all frames: null stands for NaN."""
        totals = {name: int(getattr(self, name).sum()) for name in ("agreed", "reference", "candidate")}
        return _for_json({"share": self.share, "ghosts": self.ghosts, **totals, "frames": len(self.agreed)})


def agreement(
    reference: Sequence[Result],
    candidate: Sequence[Result],
    *,
    score: float = AGREED_SCORE,
    iou: float = AGREED_IOU,
) -> Agreement:
    """Compare two engines on the same frames by `agreed_on`; needs no labels.

    Args:
        reference: what the reference says, one result a frame.
        candidate: what the candidate says about the same frames.
        score: detections below it are said by neither.
        iou: overlap from which on two boxes are the same.

    Raises:
        ValueError: not equally many results, or of different kinds or sizes.
    """
    counts = [
        astuple(agreed_on(expected, got, score=score, iou=iou))
        for expected, got in zip(reference, candidate, strict=True)
    ]
    return Agreement(*np.array(counts, np.int64).reshape(-1, 3).T)


def drift(reference: Sequence[Result], candidate: Sequence[Result], *, score: float = AGREED_SCORE) -> float:
    """How far two engines are apart on the same frames, from 0 to 1: finer than agreement, which only counts.

    Each detection of one engine is held against the most alike one of the other, of the same class, whatever its
    score: what differs is the score and the place. Masks differ pixel by pixel.

    Args:
        reference: what the reference says, one result a frame, with detections well below `score` too.
        candidate: what the candidate says about the same frames.
        score: detections from which on are held against the others.

    Returns:
        Mean over detections of both engines; NaN where neither has one.
    """
    apart = [
        _pixels_apart(expected, got)
        if isinstance(expected, SegmentationMap)
        else np.concatenate((_boxes_apart(expected, got, score), _boxes_apart(got, expected, score)))
        for expected, got in zip(reference, candidate, strict=True)
    ]
    every = np.concatenate(apart)
    return float(every.mean()) if len(every) else math.nan


def _boxes_apart(asked: Result, others: Result, score: float) -> NDArray[np.float64]:
    if not isinstance(asked, Detections) or not isinstance(others, Detections):
        raise ValueError("drift: got detections from one engine and a mask from the other")
    asked = asked.at_least(score)
    if not len(asked) or not len(others):
        return np.ones(len(asked))
    overlaps = overlaps_of(asked.boxes_px, others.boxes_px) * (asked.class_ids[:, None] == others.class_ids)
    apart = 1 - overlaps + np.abs(asked.scores[:, None] - others.scores)
    nearest: NDArray[np.float64] = np.minimum(apart.min(axis=1), 1.0)
    return nearest


def _pixels_apart(expected: SegmentationMap, got: Result) -> NDArray[np.float64]:
    said = agreed_on(expected, got)
    return np.array([1 - said.agreed / said.reference])


def _ids(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    return [classes.index(name) for name in names]


def _group_accuracy(group: GroupMatches, draws: Counts | None) -> GroupAccuracy:
    precision = group.average_precision(draws)
    labelled = group.labelled if draws is None else draws * group.labelled
    return GroupAccuracy(float(precision[0]), float(precision.mean()), int(labelled.sum()))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are figures; NaN where none is."""
    figures = [value for value in values if not math.isnan(value)]
    return float(np.mean(figures)) if figures else math.nan


def _for_json(fields: dict[str, object]) -> dict[str, object]:
    return {
        name: _for_json(value) if isinstance(value, dict) else None if value != value else value  # NaN is not itself
        for name, value in fields.items()
    }
