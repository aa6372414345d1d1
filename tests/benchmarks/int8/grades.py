"""How good an engine is against float: what the labelled score loses, with an interval, and how far both agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from compile.accuracy import (
    DetectionMatches,
    MaskMatches,
    agreement,
    match_detections,
    match_masks,
)
from compile.class_map import ClassMap
from compile.grading import NO_DEADLINE_NS, AnyLabels, total_agreement
from perception.engines.engine import Engine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.results import Result
from safety_gates.statistics import Interval, bootstrap_intervals
from tests.benchmarks.int8.work import Document

Matches = DetectionMatches | MaskMatches


@dataclass(frozen=True, slots=True)
class Seen:
    """What finds the labels of a frame again, without its pixels."""

    camera_id: str
    frame_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Reports:
    """What an engine said about the frames of the labelled recording, and about those it is compared with float on."""

    frames: list[Seen]
    labelled: list[Result]
    compared: list[Result]


def results_of(spec: ModelSpec, engine: Engine, frames: Iterable[Frame], score: float) -> list[Result]:
    """What an engine says about frames, detections from `score` on."""
    pipeline = Pipeline(spec, engine, deadline_ns=NO_DEADLINE_NS, score_threshold=score)
    return [pipeline.step(frame).result for frame in frames]


def matches_of(
    spec: ModelSpec, results: Sequence[Result], frames: Sequence[Seen], *, labels: AnyLabels, class_map: ClassMap
) -> Matches:
    """Compare results with labels, frame by frame."""
    match = match_detections if spec.task == "detection" else match_masks
    return match(results, labels.of_all(frames), class_map=class_map, classes=spec.classes)


def score_of(matches: Matches, draws: np.ndarray | None = None) -> float:
    """AP50, or mean IoU: 0..1; each frame counted as often as `draws`, (F,), says."""
    return matches.ap50(draws) if isinstance(matches, DetectionMatches) else matches.accuracy(draws).miou


def drop_of(reference: float, candidate: float, *, relative: bool) -> float:
    """Loss against float in per cent of float's score, or in points of it; below 0 where the candidate is better."""
    return 100 * (reference - candidate) / (reference if relative else 1.0)


def drop_interval(reference: Matches, candidate: Matches, *, relative: bool) -> Interval:
    """95 % interval of `drop_of` over re-drawn frames: both engines on the same draw, so that what is hard for both
    cancels. Open at both ends with too few frames.
    """

    def share(draws: np.ndarray) -> np.ndarray:
        drop = drop_of(score_of(reference, draws), score_of(candidate, draws), relative=relative)
        return np.array([np.clip((100 + drop) / 200, 0, 1)])  # −100 … 100 as a share, which is what is bounded there

    (interval,) = bootstrap_intervals(share, reference.frames)
    return Interval(200 * interval.low - 100, 200 * interval.high - 100, interval.confidence)


def grade(reference: Reports, candidate: Reports, spec: ModelSpec, labels: AnyLabels, class_map: ClassMap) -> Document:
    """Every figure of one engine's accuracy; an open end of the interval is None."""
    relative = spec.task == "detection"
    float_matches, matches = (
        matches_of(spec, reports.labelled, reports.frames, labels=labels, class_map=class_map)
        for reports in (reference, candidate)
    )
    float_score, score = score_of(float_matches), score_of(matches)
    interval = drop_interval(float_matches, matches, relative=relative)
    agreed = agreement(reference.compared, candidate.compared)
    return {
        "metric": "AP50" if relative else "IoU",
        "float_score": float_score,
        "score": score,
        "drop": drop_of(float_score, score, relative=relative),
        "drop_low": finite(interval.low),
        "drop_high": finite(interval.high),
        "labelled_frames": len(reference.frames),
        "kept": finite(agreed.share),
        "both_ways": total_agreement(agreed),
        "reported_by_float": int(agreed.reference.sum()),
        "compared_frames": len(reference.compared),
    }


def finite(value: float) -> float | None:
    """For JSON, which knows no NaN and no infinity."""
    return float(value) if np.isfinite(value) else None
