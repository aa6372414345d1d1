"""The accuracy gate: does the engine find what really stood there.

Average precision by the COCO protocol, or mean IoU of masks, over the labelled frames; the mean over the groups of the
class map, and the worst of them. Intervals by a bootstrap that draws frames whole: objects of one frame are found and
missed together.

Recall of vulnerable road users is what an engine still finds where its false alarms are rationed: the score threshold
is set, group by group, so that it raises as many as the setting `false_positives_per_frame` allows (Dollár, Wojek,
Schiele & Perona 2012, "Pedestrian detection: an evaluation of the state of the art", TPAMI 34, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import DetectionMatches, MaskMatches, match_detections, match_masks
from compile.average_precision import IOUS, GroupMatches
from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledMask
from compile.pixel_overlap import GroupPixels
from perception.model_spec import ModelSpec
from perception.package import EnginePackage
from perception.results import Result
from safety_gates.evidence import ArrayMap, KeptEvidence, strings
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Look, Observation
from safety_gates.result_log import FrameKey
from safety_gates.statistics import (
    CONFIDENCE,
    LEAST_FRAMES,
    Interval,
    bootstrap_draws,
    bootstrap_intervals,
    intervals_of_shares,
    simultaneous_confidence,
)
from safety_gates.trial import Trial
from safety_gates.truth import Truth
from safety_gates.verdict import Measured
from safety_gates.worst import MOST_NAMED, Part, bounded, worst_of

QUANTITIES: Mapping[str, Quantity] = {
    "ap50": Quantity("ratio", "at_least", "detection", "average precision at overlap 0.5, mean over the classes"),
    "ap50_95": Quantity(
        "ratio", "at_least", "detection", "average precision over overlaps 0.5 … 0.95, mean over the classes"
    ),
    "worst_class_ap50": Quantity("ratio", "at_least", "detection", "average precision at overlap 0.5, worst class"),
    "vulnerable_recall": Quantity(
        "ratio", "at_least", "detection", "share of people without a car around them found at a fixed rate of ghosts"
    ),
    "repeated_frames": Quantity("count", "at_most", None, "labelled frames that are copies of another one"),
    "miou": Quantity("ratio", "at_least", "segmentation", "overlap (IoU) of masks and truth, mean over the classes"),
    "worst_class_iou": Quantity("ratio", "at_least", "segmentation", "overlap (IoU) of masks and truth, worst class"),
}
SETTINGS = {"false_positives_per_frame": 0.1, "least_objects": 30.0, "least_frames": 30.0}
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
    settings = SETTINGS

    def looks(self, trial: Trial) -> Sequence[Look]:
        """The results, if there are labels to hold against them."""
        return () if trial.truth is None else (trial.results_look(trial.case.package),)

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Match the results with the labels, frame by frame."""
        return accuracy_of(trial, trial.case.package)

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Figures over all labelled frames."""
        return {name: _READERS[name](evidence) for name in wanted}


def accuracy_of(trial: Trial, package: EnginePackage) -> KeptEvidence | Unmeasured:
    """Evidence of how right a package is: the one on trial, its reference or the last release."""
    truth = trial.truth
    if truth is None:
        return Unmeasured("there is no ground truth; give it with --labels PATH")
    settings: dict[str, JsonValue] = {name: trial.setting("accuracy", name) for name in SETTINGS}
    settings["class_map"] = truth.class_map.model_dump(mode="json")
    wanted = trial.conditions("accuracy", subject=package, looks_at=("recording", "labels"), settings=settings)
    return trial.obtain(wanted, lambda: _observe(trial, truth, package))


def class_figures(evidence: KeptEvidence, *, all_at_once: bool = False) -> tuple[ClassFigure, ...]:
    """AP50 or IoU of every group that is labelled at all.

    Args:
        evidence: of this gate.
        all_at_once: the intervals hold the truth together with the stated confidence, not each by itself.
    """
    samples, figures = _by_class(evidence)
    frames = evidence.evidence.samples
    sampled = "frames" if evidence.evidence.values["task"] == "segmentation" else "objects"
    confidence = simultaneous_confidence(sum(count > 0 for count in samples)) if all_at_once else CONFIDENCE
    intervals = intervals_of_shares(figures(bootstrap_draws(frames, confidence)), frames, confidence)
    once = np.ones((1, frames), np.int64)
    rows = zip(_group_names(evidence), figures(once)[0], samples, intervals, strict=True)
    return tuple(
        ClassFigure(name, Measured(float(got), count, sampled, interval, evidence=evidence.sha256))
        for name, got, count, interval in rows
        if count and not math.isnan(got)
    )


def _by_class(evidence: KeptEvidence) -> tuple[list[int], Callable[[Draws], NDArray[np.float64]]]:
    """How many samples each class has, and (R, K) the figures of all classes over each of (R, F) draws."""
    if evidence.evidence.values["task"] == "segmentation":
        masks = mask_matches(evidence)
        counts = [int(np.count_nonzero(group.labelled)) for group in masks.groups.values()]
        return counts, lambda draws: np.array([_array(masks.accuracy(draw).groups.values()) for draw in draws])
    groups = list(detection_matches(evidence).groups.values())
    counts = [int(group.labelled.sum()) for group in groups]
    return counts, lambda draws: np.stack([group.of_draws(draws, ious=1) for group in groups], axis=1)


def detection_matches(evidence: KeptEvidence) -> DetectionMatches:
    """The matches that were kept."""
    return DetectionMatches(groups_in(evidence.arrays, _group_names(evidence), GroupMatches), evidence.evidence.samples)


def mask_matches(evidence: KeptEvidence) -> MaskMatches:
    """The pixel counts that were kept."""
    return MaskMatches(groups_in(evidence.arrays, _group_names(evidence), GroupPixels), evidence.evidence.samples)


def matched(
    results: Sequence[Result],
    truths: Sequence[LabelledFrame | LabelledMask | None],
    class_map: ClassMap,
    spec: ModelSpec,
    *,
    ious: int = len(IOUS),
) -> DetectionMatches | MaskMatches:
    """Results held against the truth of the same frames, whatever kind of model it is.

    Raises:
        LabelError: the map fits neither, or nothing it asks for is labelled.
    """
    detections = partial(match_detections, ious=ious)
    match: Callable[..., DetectionMatches | MaskMatches] = detections if spec.task == "detection" else match_masks
    return match(results, truths, class_map=class_map, classes=spec.classes)


def _observe(trial: Trial, truth: Truth, package: EnginePackage) -> Observation:
    log = trial.result_log(package)
    matches = matched(log.results, truth.of_all(log.frames), truth.class_map, package.spec)
    values: dict[str, JsonValue] = {
        "task": package.spec.task,
        "groups": [*matches.groups],
        "vulnerable": [*truth.class_map.vulnerable_groups()],
        "repeated": [*_repeated(log.frames)],
    }
    return Observation(matches.frames, values, arrays_of(matches.groups))


def _repeated(frames: Sequence[FrameKey]) -> list[str]:
    """Names of frames whose picture stood in the recording before: a copy counts one scene twice."""
    first: dict[str, FrameKey] = {}
    for frame in frames:
        first.setdefault(frame.glimpse, frame)
    return [f"{frame.camera_id}/{frame.name}" for frame in frames if first[frame.glimpse] is not frame]


def _read_ap50(evidence: KeptEvidence) -> Measured:
    matches = detection_matches(evidence)
    return _over_objects(evidence, matches, matches.ap50(), matches.ap50_of_draws)


def _read_ap50_95(evidence: KeptEvidence) -> Measured:
    matches = detection_matches(evidence)
    return _over_objects(evidence, matches, matches.accuracy().ap50_95, matches.ap50_95_of_draws)


def _over_objects(
    evidence: KeptEvidence, matches: DetectionMatches, got: float, drawn: Callable[[Draws], NDArray[np.float64]]
) -> Measured:
    frames = evidence.evidence.samples
    objects = sum(int(group.labelled.sum()) for group in matches.groups.values())
    (interval,) = intervals_of_shares(drawn(bootstrap_draws(frames))[:, None], frames)
    return Measured(got, objects, "objects", interval, remedy=_remedy(frames), evidence=evidence.sha256)


def _read_miou(evidence: KeptEvidence) -> Measured:
    matches = mask_matches(evidence)
    return _measured(evidence, matches.frames, "frames", lambda draws: matches.accuracy(draws).miou)


def _read_repeated(evidence: KeptEvidence) -> Measured:
    copies = strings(evidence.evidence.values["repeated"])
    note = f"copies: {', '.join(copies[:MOST_NAMED])}" + " …" * (len(copies) > MOST_NAMED) if copies else ""
    return Measured(float(len(copies)), evidence.evidence.samples, "frames", note=note, evidence=evidence.sha256)


def _read_worst_ap50(evidence: KeptEvidence) -> Measured:
    return _worst_class(evidence, "objects", "least_objects")


def _read_worst_iou(evidence: KeptEvidence) -> Measured:
    return _worst_class(evidence, "frames", "least_frames")


def _worst_class(evidence: KeptEvidence, sampled: str, least: str) -> Measured:
    figures = class_figures(evidence, all_at_once=True)
    enough = float(str(evidence.evidence.conditions.settings[least]))
    parts = [
        bounded(Part(each.name, each.measured.got or 0.0, each.measured.samples, _known(each.measured)), enough, (0, 1))
        for each in figures
    ]
    return worst_of(parts, "at_least", sampled=sampled, least=enough, evidence=evidence.sha256)


def _known(measured: Measured) -> Interval:
    return measured.interval or Interval(0.0, 1.0)


def _read_vulnerable_recall(evidence: KeptEvidence) -> Measured:
    """Found share of all vulnerable road users, each group at the allowed rate of false positives."""
    names = evidence.evidence.values["vulnerable"]
    groups = [group for name, group in detection_matches(evidence).groups.items() if name in strings(names)]
    objects = sum(int(group.labelled.sum()) for group in groups)
    if objects == 0:
        note = "no vulnerable road user is labelled; label some, or name their groups under vulnerable of a class map"
        return Measured(None, 0, "objects", note=note, evidence=evidence.sha256)
    rate = float(str(evidence.evidence.conditions.settings["false_positives_per_frame"]))
    note = f"at {rate:g} false positives a frame and class, {', '.join(strings(names))}"
    measured = _measured(evidence, objects, "objects", lambda draws: recall_at(groups, rate, draws))
    return replace(measured, note=note)


def recall_at(groups: Sequence[GroupMatches], false_positives_per_frame: float, draws: Draws | None = None) -> float:
    """Share of all groups' objects found at overlap 0.5 before a group's false positives exceed the rate."""
    found = labelled = 0
    for group in groups:
        weights = np.ones_like(group.labelled) if draws is None else draws
        times = weights[group.frames]
        allowed = np.cumsum(group.wrong[0] * times) <= false_positives_per_frame * weights.sum()
        found += int((group.right[0] * times)[allowed].sum())
        labelled += int(weights @ group.labelled)
    return found / labelled if labelled else math.nan


def _measured(evidence: KeptEvidence, samples: int, sampled: str, figure: Callable[[Draws | None], float]) -> Measured:
    frames = evidence.evidence.samples
    (interval,) = bootstrap_intervals(lambda draws: _array([figure(draws)]), frames)
    return Measured(figure(None), samples, sampled, interval, remedy=_remedy(frames), evidence=evidence.sha256)


def _remedy(frames: int) -> str:
    return f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else ""


def arrays_of(groups: Mapping[str, Any], prefix: str = "") -> dict[str, NDArray[np.generic]]:
    """`GroupMatches` or `GroupPixels` of each group as named arrays; `groups_in` gives them back."""
    return {
        f"{prefix}{field.name}_{index}": getattr(group, field.name)
        for index, group in enumerate(groups.values())
        for field in fields(group)
    }


def groups_in(arrays: ArrayMap, names: Sequence[str], kind: type[Group], prefix: str = "") -> dict[str, Group]:
    """Read what `arrays_of` gave."""
    found: dict[str, Group] = {}
    for index, name in enumerate(names):
        columns: dict[str, Any] = {field.name: arrays[f"{prefix}{field.name}_{index}"] for field in fields(kind)}
        found[name] = kind(**columns)
    return found


def _group_names(evidence: KeptEvidence) -> list[str]:
    return strings(evidence.evidence.values["groups"])


def _array(values: Iterable[float]) -> NDArray[np.float64]:
    return np.fromiter(values, np.float64)


_READERS: Mapping[str, Callable[[KeptEvidence], Measured]] = {
    "ap50": _read_ap50,
    "ap50_95": _read_ap50_95,
    "worst_class_ap50": _read_worst_ap50,
    "vulnerable_recall": _read_vulnerable_recall,
    "repeated_frames": _read_repeated,
    "miou": _read_miou,
    "worst_class_iou": _read_worst_iou,
}
