"""What an engine is graded by: labels where there are some, else how far it says what the float engine says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import LOWEST_SCORE, Agreement, agreement, drift, match_detections, match_masks
from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledMask, Labels, read_masks, read_objects
from compile.recordings import Recordings, digest_of, evenly, no_progress
from perception.agreement import AGREED_SCORE
from perception.engines.engine import Engine
from perception.errors import CalibrationError, LabelError
from perception.files import sha256_of_bytes
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.results import Detections, Result, SegmentationMap

HELD_BYTES = 256 << 20
DRIFTING_SCORE = 0.1
"""Score from which on detections count for drift: those that may rise above `AGREED_SCORE`."""
NO_DEADLINE_NS = 1 << 62

AnyLabels: TypeAlias = Labels[LabelledFrame] | Labels[LabelledMask]
Frames: TypeAlias = Callable[[], Iterable[Frame]]


@dataclass(frozen=True, slots=True)
class Grade:
    """How good an engine is.

    Attributes:
        loss: against float, as a share of the metric; below 0 where it is better.
        agreement: share of what it and float report that both report.
        scores: metric → value, for people.
        failure: what happened where it could not even run; its loss is 1 then.
        drift: from float, see `compile.accuracy.drift`; None where neither reports anything.
    """

    loss: float
    agreement: float
    scores: dict[str, float]
    failure: str = ""
    drift: float | None = None

    @property
    def apart(self) -> float:
        """Drift as a figure to sort by."""
        return 1.0 if self.failure else 1 - self.agreement if self.drift is None else self.drift


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The frames engines are graded on, none of which calibrated.

    Attributes:
        recordings: the frames.
        labels: their ground truth; None grades by agreement with float.
        class_map: which classes answer to which labels.
    """

    recordings: Recordings
    labels: AnyLabels | None
    class_map: ClassMap | None

    def __post_init__(self) -> None:
        """Labels mean nothing without a class map.

        Raises:
            ValueError: one was given without the other.
        """
        if (self.labels is None) != (self.class_map is None):
            raise ValueError("evaluation: labels and class_map go together")


class Examination:
    """Grades engines against the float engine on the same frames."""

    def __init__(self, spec: ModelSpec, evaluation: Evaluation, reference: Engine) -> None:
        """Run the float engine on all frames; its results are what the others are compared with.

        Raises:
            LabelError: labels that do not fit, or that float finds nothing of.
            CalibrationError: without labels, float reports nothing that could be lost.
        """
        self._spec = spec
        self._evaluation = evaluation
        self.frames = frames_again(evaluation.recordings)
        self._threshold = DRIFTING_SCORE if evaluation.labels is None else LOWEST_SCORE
        self._reference = self.results(spec, reference)
        self._task_score = self._score_of(self._reference)
        self.reference = Grade(0.0, 1.0, self._scores(self._reference))

    def telling(self, count: int) -> Recordings:
        """At most `count` of the frames on which the float engine reports something, evenly over the recording."""
        recordings = self._evaluation.recordings
        pairs = zip(recordings.chosen, self._reference, strict=True)
        told = [frame for frame, result in pairs if agreement([result], [result]).reference.sum()]
        return Recordings(recordings.paths, tuple(evenly(told, count)))

    @classmethod
    def unlabelled(cls, spec: ModelSpec, recordings: Recordings, reference: Engine) -> Examination:
        """An examination by agreement alone.

        Raises:
            CalibrationError: float reports nothing that could be lost.
        """
        return cls(spec, Evaluation(recordings, None, None), reference)

    @property
    def recordings(self) -> Recordings:
        """The frames."""
        return self._evaluation.recordings

    @property
    def identity(self) -> tuple[JsonValue, ...]:
        """What a grade depends on beside the two engines, as a key."""
        evaluation = self._evaluation
        labels = None if evaluation.labels is None else digest_of(evaluation.labels.path)
        classes = None if evaluation.class_map is None else repr(evaluation.class_map)
        frames = [frame.pixels_sha256 for frame in evaluation.recordings.chosen]
        return (sha256_of_bytes(self._spec.to_yaml().encode()), *frames, labels, classes)

    @property
    def metric(self) -> str:
        """What a loss is a loss of, in words."""
        return "what float reports" if self._evaluation.labels is None else self._task_name

    @property
    def _task_name(self) -> str:
        return "AP50" if self._spec.task == "detection" else "mIoU"

    def results(self, spec: ModelSpec, engine: Engine, advance: Callable[[], None] = no_progress) -> list[Result]:
        """What an engine says about every frame."""
        pipeline = Pipeline(spec, engine, deadline_ns=NO_DEADLINE_NS, score_threshold=self._threshold)
        results = []
        for frame in self.frames():
            results.append(_result_of(pipeline, frame))
            advance()
        return results

    def grade(self, results: Sequence[Result]) -> Grade:
        """Grade what an engine said about every frame."""
        scores = self._scores(results)
        agreed = scores["agreement"]
        task = agreed if self._evaluation.labels is None else scores[self._task_name]
        apart = drift(self._reference, results)
        loss = (self._task_score - task) / self._task_score
        return Grade(loss, agreed, scores, drift=None if math.isnan(apart) else apart)

    def _scores(self, results: Sequence[Result]) -> dict[str, float]:
        agreed = agreement(self._reference, results)
        figures = {"agreement": total_agreement(agreed), "kept": agreed.share, "ghosts": agreed.ghosts}
        if self._evaluation.labels is not None:
            figures |= self._task_figures(results)
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    def _score_of(self, reference: Sequence[Result]) -> float:
        """The float engine's own score, refused where it leaves nothing to lose."""
        if self._evaluation.labels is not None:
            score = self._task_figures(reference)[self._task_name]
            if score <= 0.0:
                raise LabelError(
                    f"{self._evaluation.labels.path}: the float model finds none of the labelled objects "
                    f"({self.metric} 0), so a loss has no meaning; correct the ModelSpec or give a class map"
                )
            return score
        if not agreement(reference, reference).reference.sum():
            raise CalibrationError(
                f"evaluation: the float model reports nothing with a score of {AGREED_SCORE} or more on "
                f"{len(reference)} frames, so nothing can be compared; correct the ModelSpec, or give --recording "
                "with objects in it"
            )
        return 1.0

    def _task_figures(self, results: Sequence[Result]) -> dict[str, float]:
        labels, class_map = self._evaluation.labels, self._evaluation.class_map
        if labels is None or class_map is None:
            raise ValueError("evaluation: has no labels")
        truths = labels.of_all(self._evaluation.recordings.chosen)
        classes = self._spec.classes
        if self._spec.task == "detection":
            matches = match_detections(
                cast("Sequence[Detections]", results),
                cast("Sequence[LabelledFrame | None]", truths),
                class_map=class_map,
                classes=classes,
            ).accuracy()
            return {"AP50": matches.ap50, **{f"AP50 {name}": group.ap50 for name, group in matches.groups.items()}}
        pixels = match_masks(
            cast("Sequence[SegmentationMap]", results),
            cast("Sequence[LabelledMask | None]", truths),
            class_map=class_map,
            classes=classes,
        ).accuracy()
        return {"mIoU": pixels.miou, **{f"IoU {name}": value for name, value in pixels.groups.items()}}


def read_labels(spec: ModelSpec, path: Path) -> AnyLabels:
    """The ground truth of the spec's task.

    Raises:
        LabelError: nothing of the kind is there, or it cannot be read.
    """
    return read_objects(path) if spec.task == "detection" else read_masks(path)


def frames_again(recordings: Recordings) -> Frames:
    """Start the frames anew at every call: from memory where they fit in 256 MiB, else decoded again."""
    first = next(iter(recordings.frames()), None)
    if first is None or first.pixels.nbytes * len(recordings) > HELD_BYTES:
        return recordings.frames
    held = tuple(recordings.frames())
    return lambda: held


def _result_of(pipeline: Pipeline, frame: Frame) -> Result:
    result = pipeline.step(frame).result
    if result is None:
        raise RuntimeError(f"frame {frame.name}: a lock-step pipeline skipped it")
    return result


def total_agreement(agreed: Agreement) -> float:
    """Share of what either engine says that both say, over all frames; 1 where neither says anything."""
    said = max(agreed.reference.sum(), agreed.candidate.sum())
    return float(agreed.agreed.sum() / said) if said else 1.0


def agreement_both_ways(agreed: Agreement) -> NDArray[np.float64]:
    """(F,): the same frame by frame. An engine that floods the road with ghosts agrees as little as a blind one."""
    said = np.maximum(agreed.reference, agreed.candidate)
    return np.where(said > 0, agreed.agreed / np.maximum(said, 1), 1.0)
