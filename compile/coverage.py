"""Whether the calibration frames look like the frames that graded: how bright, how rich in contrast, how near.

A range learnt by day says nothing of the night. Where the evaluation holds what never calibrated, its grade already
shows what that costs; where it does not, no grade does. So both are told apart here, in figures and in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.recordings import NEAR_DUPLICATE, SurveyedFrame, distances, stacked

BINS = 16
MARGIN = NEAR_DUPLICATE
"""Grey levels by which a frame must lie outside what calibrated before it counts: less is not seen either."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One quantity over the calibration frames and over the evaluation frames, in grey levels.

    Attributes:
        edges: of the bins, ascending.
        calibration: frames a bin.
        evaluation: frames a bin.
        least, most: over the calibration frames.
        below, above: evaluation frames outside of that by more than `MARGIN`.
    """

    edges: tuple[float, ...]
    calibration: tuple[int, ...]
    evaluation: tuple[int, ...]
    least: float
    most: float
    below: int
    above: int

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "edges": list(self.edges),
            "calibration": list(self.calibration),
            "evaluation": list(self.evaluation),
            "least": self.least,
            "most": self.most,
            "below": self.below,
            "above": self.above,
        }


@dataclass(frozen=True, slots=True)
class Nearness:
    """How far evaluation frames are from the nearest calibration frame: mean difference of thumbnails, in grey levels.

    Attributes:
        edges: of the bins, ascending.
        evaluation: frames a bin.
        median: over the evaluation frames.
        limit: the farthest that a calibration frame is from its nearest other one.
        beyond: evaluation frames farther than that.
        farthest_frame: name of the evaluation frame least like any calibration frame.
        farthest: how far that one is.
    """

    edges: tuple[float, ...]
    evaluation: tuple[int, ...]
    median: float
    limit: float
    beyond: int
    farthest_frame: str
    farthest: float

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "edges": list(self.edges),
            "evaluation": list(self.evaluation),
            "median": self.median,
            "limit": self.limit,
            "beyond": self.beyond,
            "farthest_frame": self.farthest_frame,
            "farthest": self.farthest,
        }


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well the calibration covers the evaluation.

    Attributes:
        verdict: for people, one sentence.
    """

    calibration_frames: int
    evaluation_frames: int
    brightness: Spread
    contrast: Spread
    nearest: Nearness
    verdict: str

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "calibration_frames": self.calibration_frames,
            "evaluation_frames": self.evaluation_frames,
            "brightness": self.brightness.document(),
            "contrast": self.contrast.document(),
            "nearest": self.nearest.document(),
            "verdict": self.verdict,
        }


def coverage_of(calibration: Sequence[SurveyedFrame], evaluation: Sequence[SurveyedFrame]) -> Coverage:
    """Compare the frames that calibrated with those that graded.

    Raises:
        ValueError: fewer than two calibration frames, or no evaluation frame.
    """
    if len(calibration) < 2 or not evaluation:
        raise ValueError(
            f"coverage: got {len(calibration)} calibration and {len(evaluation)} evaluation frames, "
            "expected at least 2 and 1"
        )
    brightness = _spread(calibration, evaluation, brightness_of)
    contrast = _spread(calibration, evaluation, lambda frame: frame.contrast)
    nearest = _nearness(calibration, evaluation)
    verdict = _verdict(len(evaluation), brightness, contrast, nearest)
    return Coverage(len(calibration), len(evaluation), brightness, contrast, nearest, verdict)


def brightness_of(frame: SurveyedFrame) -> float:
    """Mean grey level, 0 to 255."""
    return float(frame.thumbnail.mean())


def _spread(
    calibration: Sequence[SurveyedFrame],
    evaluation: Sequence[SurveyedFrame],
    quantity: Callable[[SurveyedFrame], float],
) -> Spread:
    seen, asked = (np.array([quantity(frame) for frame in frames]) for frames in (calibration, evaluation))
    edges = np.histogram_bin_edges(np.concatenate([seen, asked]), BINS)
    least, most = float(seen.min()), float(seen.max())
    return Spread(
        edges=tuple(edges.tolist()),
        calibration=_counts(seen, edges),
        evaluation=_counts(asked, edges),
        least=least,
        most=most,
        below=int((asked < least - MARGIN).sum()),
        above=int((asked > most + MARGIN).sum()),
    )


def _nearness(calibration: Sequence[SurveyedFrame], evaluation: Sequence[SurveyedFrame]) -> Nearness:
    seen = stacked(calibration)
    away = np.array([float(distances(frame.thumbnail, seen).min()) for frame in evaluation])
    limit = max(
        float(np.delete(distances(frame.thumbnail, seen), position).min()) for position, frame in enumerate(calibration)
    )
    edges = np.linspace(0.0, max(float(away.max()), limit), BINS + 1)
    farthest = int(away.argmax())
    return Nearness(
        edges=tuple(edges.tolist()),
        evaluation=_counts(away, edges),
        median=float(np.median(away)),
        limit=limit,
        beyond=int((away > limit).sum()),
        farthest_frame=evaluation[farthest].name,
        farthest=float(away[farthest]),
    )


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.histogram(values, edges)[0].tolist())


def _verdict(frames: int, brightness: Spread, contrast: Spread, nearest: Nearness) -> str:
    outside = [
        (brightness.below, "darker"),
        (brightness.above, "brighter"),
        (contrast.below, "lower in contrast"),
        (contrast.above, "higher in contrast"),
    ]
    said = [
        f"{count} {'is' if count == 1 else 'are'} {how} than anything that calibrated"
        for count, how in outside
        if count
    ]
    if nearest.beyond:
        look = "looks" if nearest.beyond == 1 else "look"
        said.append(f"{nearest.beyond} {look} less like any calibration frame than those look like each other")
    if not said:
        return (
            f"all {frames} evaluation frames are as bright and rich in contrast as what calibrated, and near its frames"
        )
    first, *others = said
    count, words = first.split(" ", 1)
    noun = "evaluation frame" if frames == 1 else "evaluation frames"
    return ", ".join([f"{count} of {frames} {noun} {words}", *others])
