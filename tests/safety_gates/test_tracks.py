"""Objects followed by hand: what is counted as flicker, as a blink and as a break."""

from __future__ import annotations

import numpy as np
import pytest

from perception.results import Detections
from safety_gates.tracks import follow


def _seen(*objects):
    """Objects as (left, class) of boxes 20 px wide."""
    boxes = np.array([[left, 0, left + 20, 20] for left, _ in objects], np.float32).reshape(-1, 4)
    return Detections(boxes, np.full(len(objects), 0.9, np.float32), np.array([k for _, k in objects], np.int32))


def _counts(*frames, memory=5):
    steady = follow([_seen(*objects) for objects in frames], memory=memory)
    return {name: int(getattr(steady, name).sum()) for name in ("seen", "missing", "blinks", "breaks")}


def test_an_object_that_moves_steadily_does_not_flicker():
    moving = [[(4.0 * step, 0)] for step in range(10)]
    assert _counts(*moving) == {"seen": 10, "missing": 0, "blinks": 0, "breaks": 0}


def test_frames_in_which_an_object_is_missing_are_counted_when_it_comes_back():
    assert _counts([(0, 0)], [(0, 0)], [], [], [(0, 0)])["missing"] == 2


def test_an_object_that_went_for_good_is_not_missing():
    assert _counts([(0, 0)], [(0, 0)], [], [], [], memory=2) == {"seen": 2, "missing": 0, "blinks": 0, "breaks": 0}


def test_an_object_of_one_frame_is_a_blink_unless_the_recording_begins_or_ends_there():
    assert _counts([], [(0, 0)], [], [])["blinks"] == 1
    assert _counts([(0, 0)], [], [])["blinks"] == 0
    assert _counts([], [], [(0, 0)])["blinks"] == 0


def test_a_change_of_class_is_a_break_and_no_new_object():
    assert _counts([(0, 0)], [(0, 1)], [(0, 1)]) == {"seen": 3, "missing": 0, "blinks": 0, "breaks": 1}


def test_a_jump_within_reach_is_a_break():
    assert _counts([(0, 0)], [(0, 0)], [(13, 0)], [(13, 0)])["breaks"] == 1


def test_another_object_far_away_is_no_jump():
    assert _counts([(0, 0)], [(0, 0)], [(200, 0)], [(200, 0)])["breaks"] == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_objects_that_pass_each_other_keep_their_identity(order):
    frames = [[((5.0 * step), 0), (100 - 5.0 * step, 0)] for step in range(20)]
    assert _counts(*([frame[i] for i in order] for frame in frames))["breaks"] == 0
