"""What an engine itself says, standing for what is there where nobody labelled it.

An object that a detector shows in one frame and not in the next is flicker, and says nothing of where things are. So
an object counts where the next `CONFIRMING` frames of its camera show it too; what they do not show is neither right
nor wrong. Later frames alone confirm: earlier results, which are held against this, had no part in choosing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compile.labels import LabelledFrame, LabelledMask, LabelledObject
from perception.agreement import AGREED_IOU, overlaps_of
from perception.model_spec import ModelSpec
from perception.results import Detections, Result, SegmentationMap

CONFIRMING = 2


def own_truth(results: Sequence[Result], spec: ModelSpec) -> list[LabelledFrame | LabelledMask | None]:
    """One a frame, from the score threshold of the ModelSpec on; None for the last frames, which nothing confirms.

    Args:
        results: of one camera, in order of capture.
        spec: of the model that they are from.
    """
    truths: list[LabelledFrame | LabelledMask | None] = [None] * len(results)
    for position in range(len(results) - CONFIRMING):
        now, *later = results[position : position + CONFIRMING + 1]
        truths[position] = (
            _OwnMask(Path(), now.class_ids) if isinstance(now, SegmentationMap) else _own(now, later, spec)
        )
    return truths


@dataclass(frozen=True, slots=True)
class _OwnMask(LabelledMask):
    """What the engine drew itself, where a labelled mask would lie in a file."""

    class_ids: NDArray[np.uint8]

    def values(self) -> NDArray[np.uint8]:
        """See `LabelledMask.values`."""
        return self.class_ids


def _own(now: Detections, later: Sequence[Result], spec: ModelSpec) -> LabelledFrame:
    shown = now.at_least(spec.decoding.score_threshold)
    confirmed = np.ones(len(shown), np.bool_)
    for result in later:
        if isinstance(result, Detections):
            confirmed &= _shown_too(shown, result.at_least(spec.decoding.score_threshold))
    rows = zip(shown.class_ids.tolist(), shown.boxes_px.tolist(), confirmed.tolist(), strict=True)
    return LabelledFrame(tuple(LabelledObject(spec.classes[k], tuple(box), ignore=not sure) for k, box, sure in rows))


def _shown_too(ours: Detections, theirs: Detections) -> NDArray[np.bool_]:
    """(N,) which of our objects another frame shows: the same class, and boxes that overlap."""
    alike = overlaps_of(ours.boxes_px, theirs.boxes_px) * (ours.class_ids[:, None] == theirs.class_ids)
    found: NDArray[np.bool_] = alike.max(axis=1, initial=0.0) >= AGREED_IOU
    return found
