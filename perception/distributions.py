"""What a drive looks like, in a few hundred counts: pictures, and what the model says about them.

A release carries the same counts over the frames it was published with. How far a drive lies from them is one figure,
the Jensen–Shannon divergence averaged over the parts. Counts say nothing about where a vehicle was or what it saw.

Parts of the input, 16 bins each, one count a frame: `brightness` (mean of all channels), `contrast` (its standard
deviation), `colour` (red less blue) and `detail` (difference of neighbouring pixels, logarithmic). Parts of the output:
`objects` a frame, their `scores` in steps of 0.05 and their `classes`, where a frame without objects counts as one
"nothing" in both; of masks the `classes` of some cells.

Source: Lin 1991, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37; for watching a model
by histograms of its inputs and scores, Breck et al. 2019, "Data validation for machine learning", MLSys.
"""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from perception.agreement import AGREED_SCORE
from perception.results import Result, SegmentationMap
from perception.telemetry_record import Counted, Drift, jensen_shannon

EVERY = 4
"""Frames of a camera, of which one is looked at: neighbours show the same scene."""

LEAST_FRAMES = 100
"""Looked-at frames below which nothing is said: chance alone would look like drift."""

PICTURE_BINS, MOST_OBJECTS, SCORE_STEP, MOST_CLASSES = 16, 16, 0.05, 128
SCORE_BINS = math.ceil((1 - AGREED_SCORE) / SCORE_STEP)
_ROWS, _COLUMNS, _CELLS = 24, 32, 1024  # looked at in a picture, and in a mask


class InputCounts:
    """Histograms of pictures."""

    def __init__(self) -> None:
        self._frames = 0
        self._parts = {
            name: np.zeros(PICTURE_BINS, np.int64) for name in ("brightness", "contrast", "colour", "detail")
        }

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Count one picture, (H, W, 3) BGR, by some of its pixels."""
        rows = np.linspace(0, pixels.shape[0] - 1, _ROWS).astype(np.intp)[:, None]
        columns = np.linspace(0, max(0, pixels.shape[1] - 2), _COLUMNS).astype(np.intp)
        some = pixels[rows, columns].astype(np.float32)
        beside = pixels[rows, np.minimum(columns + 1, pixels.shape[1] - 1)]
        blue, _, red = some.reshape(-1, 3).mean(axis=0)
        width = 256 / PICTURE_BINS
        bins = {
            "brightness": some.mean() / width,
            "contrast": some.std() / (width / 2),
            "colour": (red - blue + 128) / width,
            "detail": 2 * math.log2(1 + float(np.abs(some - beside).mean())),
        }
        for name, value in bins.items():
            self._parts[name][min(PICTURE_BINS - 1, max(0, int(value)))] += 1
        self._frames += 1

    def counted(self) -> Counted:
        """What was counted so far."""
        return _counted(self._frames, self._parts)


class OutputCounts:
    """Histograms of what a model says; objects from a score of `AGREED_SCORE` on."""

    def __init__(self) -> None:
        self._frames = 0
        self._objects = np.zeros(MOST_OBJECTS + 1, np.int64)
        self._scores = np.zeros(SCORE_BINS + 1, np.int64)
        self._classes = np.zeros(MOST_CLASSES + 1, np.int64)

    def add(self, result: Result) -> None:
        """Count what was said about one frame."""
        self._frames += 1
        if isinstance(result, SegmentationMap):
            cells = result.class_ids.ravel()
            cells = cells[:: max(1, cells.size // _CELLS)]
            self._classes += np.bincount(np.minimum(cells, MOST_CLASSES - 1), minlength=MOST_CLASSES + 1)
            return
        some = int(np.count_nonzero(result.scores >= AGREED_SCORE))  # the best come first
        self._objects[min(MOST_OBJECTS, some)] += 1
        if some == 0:
            self._scores[-1] += 1
            self._classes[-1] += 1
            return
        steps = ((result.scores[:some] - AGREED_SCORE) / SCORE_STEP).astype(np.intp)
        self._scores += np.bincount(np.minimum(steps, SCORE_BINS - 1), minlength=SCORE_BINS + 1)
        classes = np.minimum(result.class_ids[:some], MOST_CLASSES - 1)
        self._classes += np.bincount(classes, minlength=MOST_CLASSES + 1)

    def counted(self) -> Counted:
        """What was counted so far."""
        return _counted(self._frames, {"objects": self._objects, "scores": self._scores, "classes": self._classes})


def drift_of(counted: Counted | None, reference: Counted | None) -> Drift | None:
    """How far a drive lies from the reference; None where nothing can be said.

    That is: no reference, fewer than `LEAST_FRAMES` in one of both, or bins of another release of Tollgate.
    """
    if counted is None or reference is None or min(counted.frames, reference.frames) < LEAST_FRAMES:
        return None
    if _shape(counted) != _shape(reference):
        return None
    pairs = [(counts, reference.parts[name]) for name, counts in counted.parts.items()]
    apart = [jensen_shannon(ours, theirs) for ours, theirs in pairs if any(ours) or any(theirs)]
    return Drift(counts=tuple(chain(*counted.parts.values())), divergence=math.fsum(apart) / len(apart))


def _shape(counted: Counted) -> dict[str, int]:
    return {name: len(counts) for name, counts in counted.parts.items()}


def _counted(frames: int, parts: dict[str, NDArray[np.int64]]) -> Counted:
    return Counted(frames=frames, parts={name: tuple(counts.tolist()) for name, counts in parts.items()})
