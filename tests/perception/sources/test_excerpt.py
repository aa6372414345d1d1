from __future__ import annotations

from itertools import pairwise

import pytest

from perception.errors import SourceError
from perception.sources.excerpt import Excerpt
from tests.perception.builders import ListSource, frames_of

OFFSET_NS = 1_000_000_000


def two_cameras() -> ListSource:
    frames = frames_of("a", 10, offset_ns=OFFSET_NS) + frames_of("b", 10, offset_ns=OFFSET_NS + 3_000_000)
    return ListSource(sorted(frames, key=lambda frame: frame.captured_ns))


def ids(excerpt: Excerpt, camera: str = "a") -> list[int]:
    return [frame.frame_id for frame in excerpt.frames() if frame.camera_id == camera]


@pytest.mark.parametrize(
    ("start_s", "duration_s", "expected"),
    [
        (0.0, None, list(range(10))),
        (0.03, None, [3, 4, 5, 6, 7, 8, 9]),
        (0.031, None, [4, 5, 6, 7, 8, 9]),
        (0.0, 0.03, [0, 1, 2]),
        (0.0, 0.031, [0, 1, 2, 3]),
        (0.05, 0.02, [5, 6]),
        (0.09, 5.0, [9]),
    ],
)
def test_a_part_is_counted_from_the_first_frame_in_recorded_time(start_s, duration_s, expected):
    assert ids(Excerpt(two_cameras(), start_s=start_s, duration_s=duration_s)) == expected


@pytest.mark.parametrize(("start_s", "duration_s"), [(0.2, None), (0.0951, 0.001)])
def test_a_part_without_frames_is_refused(start_s, duration_s):
    with pytest.raises(SourceError, match="no frame lies between"):
        list(Excerpt(two_cameras(), start_s=start_s, duration_s=duration_s).frames())


def test_laps_go_on_in_time_and_identity():
    frames = list(Excerpt(two_cameras(), start_s=0.02, duration_s=0.03, laps=3).frames())
    for camera in "ab":
        own = [frame for frame in frames if frame.camera_id == camera]
        assert all(b.frame_id - a.frame_id == 1 for a, b in pairwise(own))
        assert all(0 < b.captured_ns - a.captured_ns <= 20_000_000 for a, b in pairwise(own))
    assert all(a.captured_ns < b.captured_ns for a, b in pairwise(frames))
    assert [frame.name for frame in frames if frame.camera_id == "a"] == ["2", "3", "4"] * 3


def test_one_lone_frame_can_be_played_again_and_again():
    frames = list(Excerpt(ListSource(frames_of("a", 1)), laps=3).frames())
    assert [(frame.frame_id, frame.captured_ns) for frame in frames] == [(0, 0), (1, 100_000_000), (2, 200_000_000)]


def test_the_count_is_stated_where_it_is_known():
    assert [camera.frame_count for camera in Excerpt(two_cameras(), laps=2).cameras] == [20, 20]
    assert [camera.frame_count for camera in Excerpt(two_cameras(), start_s=0.01).cameras] == [None, None]
