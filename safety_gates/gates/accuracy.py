"""The accuracy gate: does the engine find what really stood there.

Average precision by the COCO protocol, or mean IoU of masks, over the labelled frames; the mean over the groups of the
class map. Intervals by a bootstrap that draws frames whole: objects of one frame are found and missed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from compile.accuracy import DetectionMatches, MaskMatches, match_detections, match_masks
from compile.average_precision import GroupMatches
from compile.labels import LabelledFrame, LabelledMask
from compile.pixel_overlap import GroupPixels
from perception.results import Detections, SegmentationMap
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.result_log import ResultLog
from safety_gates.statistics import LEAST_FRAMES, bootstrap_intervals
from safety_gates.trial import Observation, Trial
from safety_gates.truth import Truth
from safety_gates.verdict import Measured

QUANTITIES: Mapping[str, Quantity] = {
    "ap50": Quantity("ratio", "at_least", "detection", "average precision at overlap 0.5, mean over the classes"),
    "ap50_95": Quantity(
        "ratio", "at_least", "detection", "average precision over overlaps 0.5 … 0.95, mean over the classes"
    ),
    "miou": Quantity("ratio", "at_least", "segmentation", "overlap (IoU) of masks and truth, mean over the classes"),
}
Draws: TypeAlias = NDArray[np.int64]
Group = TypeVar("Group", GroupMatches, GroupPixels)


@dataclass(frozen=True, slots=True)
class ClassFigure:
    """One group's own figure, for the report."""

    name: str
    measured: Measured


class AccuracyGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Match the results with the labels, frame by frame."""
        truth = trial.truth
        if truth is None:
            return Unmeasured("there is no ground truth; give it with --labels PATH")
        settings = {"class_map": truth.class_map.model_dump(mode="json")}
        wanted = trial.conditions("accuracy", looks_at=("recording", "labels"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial, truth))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Figures over all labelled frames."""
        readers = {"ap50": _read_ap50, "ap50_95": _read_ap50_95, "miou": _read_miou}
        return {name: readers[name](evidence) for name in wanted}


def class_figures(evidence: KeptEvidence) -> tuple[ClassFigure, ...]:
    """AP50 or IoU of every group that is labelled at all."""
    if evidence.evidence.values["task"] == "segmentation":
        masks = mask_matches(evidence)
        samples = [int(np.count_nonzero(group.labelled)) for group in masks.groups.values()]
        return _by_group(evidence, samples, "frames", lambda draws: _array(masks.accuracy(draws).groups.values()))
    matches = detection_matches(evidence)
    samples = [int(group.labelled.sum()) for group in matches.groups.values()]
    groups = list(matches.groups.values())
    return _by_group(
        evidence,
        samples,
        "objects",
        lambda draws: _array(group.average_precision(draws, ious=1)[0] for group in groups),
    )


def detection_matches(evidence: KeptEvidence) -> DetectionMatches:
    """The matches that were kept."""
    return DetectionMatches(_groups(evidence, GroupMatches), evidence.evidence.samples)


def mask_matches(evidence: KeptEvidence) -> MaskMatches:
    """The pixel counts that were kept."""
    return MaskMatches(_groups(evidence, GroupPixels), evidence.evidence.samples)


def _observe(trial: Trial, truth: Truth) -> Observation:
    spec = trial.case.package.spec
    log = ResultLog.from_arrays(trial.results(trial.case.package).arrays, spec.task)
    truths = truth.of_all(log.frames)
    if spec.task == "detection":
        matches = match_detections(
            cast("Sequence[Detections]", log.results),
            cast("Sequence[LabelledFrame | None]", truths),
            class_map=truth.class_map,
            classes=spec.classes,
        )
        return _observation(spec.task, matches.frames, matches.groups)
    masks = match_masks(
        cast("Sequence[SegmentationMap]", log.results),
        cast("Sequence[LabelledMask | None]", truths),
        class_map=truth.class_map,
        classes=spec.classes,
    )
    return _observation(spec.task, masks.frames, masks.groups)


def _read_ap50(evidence: KeptEvidence) -> Measured:
    matches = detection_matches(evidence)
    return _over_objects(evidence, matches, lambda draws: matches.ap50(draws))


def _read_ap50_95(evidence: KeptEvidence) -> Measured:
    matches = detection_matches(evidence)
    return _over_objects(evidence, matches, lambda draws: matches.accuracy(draws).ap50_95)


def _read_miou(evidence: KeptEvidence) -> Measured:
    matches = mask_matches(evidence)
    return _measured(evidence, matches.frames, "frames", lambda draws: matches.accuracy(draws).miou)


def _over_objects(
    evidence: KeptEvidence, matches: DetectionMatches, figure: Callable[[Draws | None], float]
) -> Measured:
    objects = sum(int(group.labelled.sum()) for group in matches.groups.values())
    return _measured(evidence, objects, "objects", figure)


def _measured(evidence: KeptEvidence, samples: int, sampled: str, figure: Callable[[Draws | None], float]) -> Measured:
    frames = evidence.evidence.samples
    (interval,) = bootstrap_intervals(lambda draws: _array([figure(draws)]), frames)
    remedy = f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else ""
    return Measured(figure(None), samples, sampled, interval, remedy=remedy, evidence=evidence.sha256)


def _by_group(
    evidence: KeptEvidence, samples: Sequence[int], sampled: str, figures: Callable[[Draws], NDArray[np.float64]]
) -> tuple[ClassFigure, ...]:
    frames = evidence.evidence.samples
    intervals = bootstrap_intervals(figures, frames)
    rows = zip(_group_names(evidence), figures(np.ones(frames, np.int64)), samples, intervals, strict=True)
    return tuple(
        ClassFigure(name, Measured(float(got), count, sampled, interval, evidence=evidence.sha256))
        for name, got, count, interval in rows
        if not math.isnan(got)
    )


def _observation(task: str, frames: int, groups: Mapping[str, Group]) -> Observation:
    arrays = {
        f"{field.name}_{index}": getattr(group, field.name)
        for index, group in enumerate(groups.values())
        for field in fields(group)
    }
    return Observation(frames, {"task": task, "groups": [*groups]}, arrays)


def _groups(evidence: KeptEvidence, kind: type[Group]) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for index, name in enumerate(_group_names(evidence)):
        arrays: dict[str, Any] = {field.name: evidence.arrays[f"{field.name}_{index}"] for field in fields(kind)}
        found[name] = kind(**arrays)
    return found


def _group_names(evidence: KeptEvidence) -> list[str]:
    names = evidence.evidence.values["groups"]
    return [str(name) for name in names] if isinstance(names, list) else []


def _array(values: Iterable[float]) -> NDArray[np.float64]:
    return np.fromiter(values, np.float64)
