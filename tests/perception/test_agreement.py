"""What two engines both say, object by object and cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from perception.agreement import Said, agreed_on
from perception.results import Detections, SegmentationMap


def found(*objects):
    """Objects as (left_px, score, class), 10 px wide."""
    boxes = [[left, 0, left + 10, 10] for left, _, _ in objects]
    scores, classes = [score for _, score, _ in objects], [label for _, _, label in objects]
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.float32(scores), np.int32(classes))


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (found((0, 0.9, 0), (50, 0.8, 1)), Said(2, 2, 2)),
        (found((3, 0.5, 0), (50, 0.8, 1)), Said(2, 2, 2)),
        (found((4, 0.5, 0), (50, 0.8, 1)), Said(1, 2, 2)),
        (found((0, 0.9, 1), (50, 0.8, 1)), Said(1, 2, 2)),
        (found((0, 0.9, 0), (50, 0.29, 1)), Said(1, 2, 1)),
        (found(), Said(0, 2, 0)),
    ],
    ids=["the same", "moved to IoU .54", "moved to IoU .43", "another class", "below the score", "nothing"],
)
def test_an_object_is_agreed_to_by_score_class_and_overlap(candidate, said):
    got = agreed_on(found((0, 0.9, 0), (50, 0.8, 1)), candidate)
    assert got == said
    assert got.apart == said.reference + said.candidate - 2 * said.agreed


def test_one_box_answers_for_one():
    assert agreed_on(found((0, 0.9, 0), (1, 0.8, 0)), found((0, 0.9, 0))) == Said(1, 2, 1)


def test_masks_agree_cell_by_cell_and_kinds_do_not_mix():
    ours, theirs = np.zeros((2, 3), np.uint8), np.eye(2, 3, dtype=np.uint8)
    assert agreed_on(SegmentationMap(ours, 3, 2), SegmentationMap(theirs, 3, 2)) == Said(4, 6, 6)
    with pytest.raises(ValueError, match="different sizes"):
        agreed_on(SegmentationMap(ours, 3, 2), found())
    with pytest.raises(ValueError, match="detections from one engine"):
        agreed_on(found(), SegmentationMap(ours, 3, 2))
