"""Objects followed from frame to frame, to see where a detector flickers or takes one thing for another.

Not a tracker to drive with: it is built to keep an object's identity as long as anybody could, so that what it still
loses is the detector's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from perception.agreement import overlaps_of
from perception.results import Detections

OVERLAP = 0.3
REACH = 0.5  # of a box's diagonal: how far a box may jump and still be the same object's
SIZES = 2.0  # how many times larger or smaller it may be then

Boxes = NDArray[np.float32]
Affinity = Callable[[Boxes, Boxes], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What happened to the objects that were followed, frame by frame, each (F,) int64.

    Attributes:
        seen: objects reported.
        missing: reports that were missing inside an object's life, counted where it came back.
        blinks: objects reported in this frame and in no other.
        breaks: objects whose class changed or whose box jumped since they were seen last.
    """

    seen: NDArray[np.int64]
    missing: NDArray[np.int64]
    blinks: NDArray[np.int64]
    breaks: NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Track:
    """An object that is followed: its last box, how it moves in one frame, and since when it was not seen."""

    box_px: Boxes
    class_id: int
    born: int
    last: int
    step_px: Boxes
    reports: int = 1

    def predicted_px(self, position: int) -> Boxes:
        moved: Boxes = self.box_px + self.step_px * (position - self.last)
        return moved


def follow(frames: Sequence[Detections], *, memory: int) -> Steadiness:
    """Follow the objects of one camera.

    Args:
        frames: its results in order of capture.
        memory: for how many frames an object may be missing and still come back as itself.
    """
    counts = Steadiness(*np.zeros((4, len(frames)), np.int64))
    tracks: list[_Track] = []
    for position, found in enumerate(frames):
        counts.seen[position] = len(found)
        free = _continue(tracks, found, position, counts)
        for index in free:
            box = found.boxes_px[index]
            tracks.append(_Track(box, int(found.class_ids[index]), position, position, np.zeros_like(box)))
        ended = [track for track in tracks if position - track.last > memory]
        _count_blinks(ended, counts)
        tracks = [track for track in tracks if position - track.last <= memory]
    # What was first seen in the last frame may yet stay: it is no blink.
    _count_blinks([track for track in tracks if track.born < len(frames) - 1], counts)
    return counts


def _count_blinks(ended: Sequence[_Track], counts: Steadiness) -> None:
    for track in ended:
        if track.reports == 1 and track.born > 0:
            counts.blinks[track.born] += 1


def _continue(tracks: Sequence[_Track], found: Detections, position: int, counts: Steadiness) -> list[int]:
    """Give reports to the tracks they continue, surest first; returns those that continue none."""
    open_tracks, free = list(tracks), list(range(len(found)))
    for affinity, same_class, breaks in ((overlaps_of, True, 0), (overlaps_of, False, 1), (_nearness, True, 1)):
        for track, index in _paired(open_tracks, found, free, position, affinity, same_class=same_class):
            counts.missing[position] += position - track.last - 1
            counts.breaks[position] += breaks
            _move(track, found, index, position)
            open_tracks.remove(track)
            free.remove(index)
    return free


def _paired(
    tracks: Sequence[_Track],
    found: Detections,
    free: Sequence[int],
    position: int,
    affinity: Affinity,
    *,
    same_class: bool,
) -> list[tuple[_Track, int]]:
    """The assignment with the largest sum of affinities, without pairs that have none."""
    if not tracks or not free:
        return []
    alike = affinity(np.stack([track.predicted_px(position) for track in tracks]), found.boxes_px[free])
    alike[alike < OVERLAP] = 0.0
    if same_class:
        alike[np.array([track.class_id for track in tracks])[:, None] != found.class_ids[free][None, :]] = 0.0
    rows, columns = linear_sum_assignment(alike, maximize=True)
    return [(tracks[row], free[column]) for row, column in zip(rows, columns, strict=True) if alike[row, column] > 0]


def _move(track: _Track, found: Detections, index: int, position: int) -> None:
    box = found.boxes_px[index]
    step = (box - track.box_px) / (position - track.last)
    track.step_px = step if track.reports == 1 else (track.step_px + step) / 2
    track.box_px, track.class_id, track.last = box, int(found.class_ids[index]), position
    track.reports += 1


def _nearness(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """(N, M) 1 for boxes of like size whose centres lie within `REACH` of the first one's diagonal, else 0."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (first, second)]
    sizes = [np.maximum(np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6) for boxes in (first, second)]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2) / sizes[0][:, None]
    ratio = sizes[0][:, None] / sizes[1][None]
    near: NDArray[np.float64] = ((apart <= REACH) & (ratio <= SIZES) & (ratio >= 1 / SIZES)).astype(np.float64)
    return near
