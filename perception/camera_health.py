"""Is a camera well? Each frame is looked at once, cheaply, before any network sees it.

What can be wrong, and when it is flagged at the latest (a frame is flagged together with its arrival):

============  =================================================================================  ====================
ailment       what it means                                                                      detection delay
============  =================================================================================  ====================
BLACK         nearly no sample is brighter than the sensor's noise                               this frame
SATURATED     most samples are at the end of the scale                                           this frame
TORN          a part of the rows is an earlier picture's, or was never written                   this frame
WRONG_SIZE    not the size that the camera announced                                             this frame
DUPLICATE     the picture before, again                                                          this frame
FROZEN        the same picture for the third time                                                3rd equal frame
OUT_OF_ORDER  captured before a frame that came earlier                                          this frame
CLOCK_JUMP    the camera's clock leapt against this machine's                                    this frame
GAP           no frame for more than 1.5 periods (`overdue` says so without the next frame)      1.5 periods
RATE_DRIFT    frames come more than 5 % faster or slower than announced                          33 frames
BLURRED       fine detail is lost all over the picture                                           10 frames
DIRTY         some places lost their texture while the others kept it                            150 frames
============  =================================================================================  ====================

Everything rests on every 16th row of the green channel, which carries most of the luminance. Sharpness is a ratio of
differences at one pixel's distance to those at eight, which brightness and contrast leave alone; it is compared with
what the camera itself showed before. A camera that was never sharp is caught by an absolute limit.

A picture whose every sample equals the one before counts as a repetition: sensor noise never repeats, though a
synthetic or strongly compressed recording of a standing scene may.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import median
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame

_ROW_STEP, _COLUMN_STEP, _FAR_COLUMNS = 16, 4, 2  # near: 1 px apart, far: 8 px
_CELLS_Y, _CELLS_X = 4, 8
_MOVED_SHARE, _TEXTURED, _RICH = 0.25, 24, 4.0
Samples: TypeAlias = NDArray[np.uint8]
_WINDOW = 33


class Ailment(str, Enum):
    """What a camera can suffer from; see the module."""

    BLACK = "black"
    SATURATED = "saturated"
    TORN = "torn"
    WRONG_SIZE = "wrong size"
    DUPLICATE = "duplicate"
    FROZEN = "frozen"
    OUT_OF_ORDER = "out of order"
    CLOCK_JUMP = "clock jump"
    GAP = "gap"
    RATE_DRIFT = "rate drift"
    BLURRED = "blurred"
    DIRTY = "dirty"


UNFIT = frozenset({Ailment.BLACK, Ailment.SATURATED, Ailment.TORN, Ailment.WRONG_SIZE, Ailment.FROZEN})
"""A picture with one of these shows nothing that may be acted upon; with any other it does, with care."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Where well ends.

    Attributes:
        dark_level: samples up to this value (0..255) are the sensor's noise.
        bright_level: samples from this value on are saturated.
        lit_share: a picture with fewer brighter samples is BLACK.
        saturated_share: a picture with more saturated samples is SATURATED.
        torn_share: rows, as a share of all, that an earlier picture must have left behind.
        frozen_after: equal pictures in a row.
        gap_periods: a longer silence is a GAP.
        clock_jump_ns: a camera's clock may lead this machine's by so much more than it ever did.
        drift: relative difference of the frame rate.
        blur_ratio: sharpness, as a share of the camera's own, below which a picture is BLURRED.
        blur_floor: sharpness below which it is BLURRED whatever the camera showed before (0.125 has no detail at all).
        sharp_enough: sharpness at which it is never called BLURRED, however noisy, and so sharp, it was before.
        blurred_after: frames in a row.
        dirty_ratio: texture of a place, as a share of its own, below which it has lost it.
        dirty_cells: places of 32 that must have lost theirs.
        dirty_after: frames in a row.
    """

    dark_level: int = 20
    bright_level: int = 250
    lit_share: float = 0.002
    saturated_share: float = 0.6
    torn_share: float = 0.08
    frozen_after: int = 3
    gap_periods: float = 1.5
    clock_jump_ns: int = 100_000_000
    drift: float = 0.05
    blur_ratio: float = 0.6
    blur_floor: float = 0.16
    sharp_enough: float = 0.28
    blurred_after: int = 10
    dirty_ratio: float = 0.2
    dirty_cells: int = 2
    dirty_after: int = 150


class CameraHealth:
    """Watches one camera. One thread at a time; memory does not grow."""

    def __init__(
        self,
        *,
        size_px: tuple[int, int] | None = None,
        rate_hz: float | None = None,
        limits: HealthLimits | None = None,
    ) -> None:
        """Expect what the camera announced.

        Args:
            size_px: width and height; None takes the first frame's.
            rate_hz: frames a second; None learns it from the first frames.
            limits: where well ends.
        """
        self._limits = limits or HealthLimits()
        self._timing = _Timing(rate_hz, self._limits)
        self._picture = _Picture(size_px, self._limits)

    def observe(self, frame: Frame, *, arrived_ns: int | None = None) -> frozenset[Ailment]:
        """What is wrong with this frame; empty where it is well.

        Args:
            frame: the camera's next frame; not kept.
            arrived_ns: when it arrived, on this machine's steady clock; without it clock jumps forward go unseen.
        """
        found = self._timing.observe(frame, arrived_ns)
        found |= self._picture.observe(frame.pixels)
        return frozenset(found)

    def overdue(self, now_ns: int) -> bool:
        """Whether the next frame should have arrived by now; False as long as the rate or the last arrival is unknown.

        Args:
            now_ns: on the clock of `arrived_ns`.
        """
        return self._timing.overdue(now_ns)


class _Timing:
    """What timestamps and numbers of frames tell."""

    def __init__(self, rate_hz: float | None, limits: HealthLimits) -> None:
        self._limits = limits
        self._period_ns = None if not rate_hz else 1e9 / rate_hz
        self._steps_ns: deque[int] = deque(maxlen=_WINDOW)
        self._leads_ns: deque[int] = deque(maxlen=2 * _WINDOW)
        self._captured_ns: int | None = None
        self._arrived_ns: int | None = None
        self._frame_id = -1

    def observe(self, frame: Frame, arrived_ns: int | None) -> set[Ailment]:
        """What is wrong with when this frame was taken and came."""
        before_ns, id_before, arrived_before_ns = self._captured_ns, self._frame_id, self._arrived_ns
        self._arrived_ns = arrived_ns
        if before_ns is None:
            self._accept(frame, arrived_ns)
            return set()
        step_ns = frame.captured_ns - before_ns
        if step_ns == 0 or frame.frame_id == id_before:
            return {Ailment.DUPLICATE}
        if step_ns < 0 and frame.frame_id < id_before:
            return {Ailment.OUT_OF_ORDER}
        waited_ns = step_ns if arrived_ns is None or arrived_before_ns is None else arrived_ns - arrived_before_ns
        jumped = step_ns < 0 or self._leapt(frame.captured_ns, arrived_ns, step_ns - waited_ns)
        if jumped:
            self._leads_ns.clear()
            self._steps_ns.clear()
        self._accept(frame, arrived_ns)
        return {Ailment.CLOCK_JUMP} if jumped else self._paced(step_ns)

    def overdue(self, now_ns: int) -> bool:
        """See `CameraHealth.overdue`."""
        if self._arrived_ns is None or self._period_ns is None:
            return False
        return now_ns - self._arrived_ns > self._limits.gap_periods * self._period_ns

    def _accept(self, frame: Frame, arrived_ns: int | None) -> None:
        self._captured_ns, self._frame_id = frame.captured_ns, frame.frame_id
        if arrived_ns is not None:
            self._leads_ns.append(frame.captured_ns - arrived_ns)

    def _leapt(self, captured_ns: int, arrived_ns: int | None, gained_ns: int) -> bool:
        """Whether the camera's clock is further ahead than it ever was: delays on the way only ever make it lag."""
        if arrived_ns is None or not self._leads_ns:
            return False
        ahead_ns = captured_ns - arrived_ns - max(self._leads_ns)
        return min(gained_ns, ahead_ns) > self._limits.clock_jump_ns

    def _paced(self, step_ns: int) -> set[Ailment]:
        self._steps_ns.append(step_ns)
        full = len(self._steps_ns) == _WINDOW
        usual_ns = median(self._steps_ns) if full else None
        if self._period_ns is None:
            self._period_ns = usual_ns
        if self._period_ns is None:
            return set()
        found = set()
        if step_ns > self._limits.gap_periods * self._period_ns:
            found.add(Ailment.GAP)
        if usual_ns is not None and abs(self._period_ns / usual_ns - 1) > self._limits.drift:
            found.add(Ailment.RATE_DRIFT)
        return found


class _Picture:
    """What pixels tell."""

    def __init__(self, size_px: tuple[int, int] | None, limits: HealthLimits) -> None:
        self._limits = limits
        self._size_px = size_px
        self._earlier: deque[Samples] = deque(maxlen=2)
        self._repeats = self._blank_before = 0
        self._detail = _Detail(limits)

    def observe(self, pixels: NDArray[np.uint8]) -> set[Ailment]:
        """What is wrong with what is seen."""
        size_px = (pixels.shape[1], pixels.shape[0])
        self._size_px = self._size_px or size_px
        if size_px != self._size_px:
            self._earlier.clear()
            return {Ailment.WRONG_SIZE}
        rows = cv2.extractChannel(pixels[_ROW_STEP // 2 :: _ROW_STEP] if size_px[1] > _ROW_STEP else pixels, 1)
        columns = np.ascontiguousarray(rows[:, ::_COLUMN_STEP])
        found = self._exposed(columns)
        if not found:
            found |= self._repeated(rows)
            found |= set() if Ailment.FROZEN in found else self._detail.observe(rows, columns)
        self._earlier.append(rows)
        return found

    def _exposed(self, columns: Samples) -> set[Ailment]:
        lit = cv2.countNonZero(cv2.threshold(columns, self._limits.dark_level, 1, cv2.THRESH_BINARY)[1])
        if lit < self._limits.lit_share * columns.size:
            return {Ailment.BLACK}
        bright = cv2.countNonZero(cv2.threshold(columns, self._limits.bright_level - 1, 1, cv2.THRESH_BINARY)[1])
        return {Ailment.SATURATED} if bright > self._limits.saturated_share * columns.size else set()

    def _repeated(self, rows: Samples) -> set[Ailment]:
        """Rows that an earlier picture left behind: all of them, or a part."""
        blank, blank_before = _blank_rows(rows), self._blank_before
        self._blank_before = blank
        changes = [_changed_share(rows, earlier) for earlier in reversed(self._earlier) if earlier.shape == rows.shape]
        if changes and not changes[0].any():
            self._repeats += 1
            frozen = self._repeats + 1 >= self._limits.frozen_after
            return {Ailment.DUPLICATE, Ailment.FROZEN} if frozen else {Ailment.DUPLICATE}
        self._repeats = 0
        least = max(2, round(self._limits.torn_share * len(rows)))
        unwritten = bool(changes) and blank - blank_before >= least
        left_behind = any(_edge_run(changed, rows) >= least for changed in changes)
        return {Ailment.TORN} if unwritten or left_behind else set()


class _Detail:
    """Sharpness of the whole and texture of its places, against what the camera showed before."""

    _QUICK, _SLOW = 1 / 64, 1 / 2048

    def __init__(self, limits: HealthLimits) -> None:
        self._limits = limits
        self._usual_sharpness: float | None = None
        self._usual_texture: NDArray[np.float32] | None = None
        self._blurred_for = self._seen = 0
        self._plain_for = np.zeros((_CELLS_Y, _CELLS_X), np.int32)

    def observe(self, rows: Samples, columns: Samples) -> set[Ailment]:
        """Blur and dirt; nothing where the picture has no texture to judge by."""
        near = cv2.absdiff(columns, np.ascontiguousarray(rows[:, 1::_COLUMN_STEP][:, : columns.shape[1]]))
        far = cv2.absdiff(columns[:, _FAR_COLUMNS:], columns[:, :-_FAR_COLUMNS])
        contrast = cv2.mean(far)[0]
        if contrast < 1:
            return set()
        found = self._blurred(cv2.mean(near)[0] / contrast)
        return found | self._dirty(_cell_means(far))

    def _blurred(self, sharpness: float) -> set[Ailment]:
        limits = self._limits
        usual = self._usual_sharpness if self._usual_sharpness is not None else sharpness
        suspect = sharpness < max(limits.blur_floor, min(limits.sharp_enough, limits.blur_ratio * usual))
        self._usual_sharpness = usual + (self._SLOW if suspect else self._QUICK) * (sharpness - usual)
        self._blurred_for = self._blurred_for + 1 if suspect else 0
        return {Ailment.BLURRED} if self._blurred_for >= limits.blurred_after else set()

    def _dirty(self, texture: NDArray[np.float32]) -> set[Ailment]:
        """Places that are plain for long while most of the others are as they were."""
        limits = self._limits
        usual = texture if self._usual_texture is None else self._usual_texture
        plain = (texture < limits.dirty_ratio * usual) & (usual > _RICH)
        self._seen += 1
        pace = np.maximum(np.float32(1 / self._seen), np.where(plain, np.float32(self._SLOW), np.float32(1 / 256)))
        self._usual_texture = usual + pace * (texture - usual)
        everywhere = np.count_nonzero(plain) > plain.size // 2
        self._plain_for = np.where(plain, self._plain_for + (not everywhere), 0)
        dirty = np.count_nonzero(self._plain_for >= limits.dirty_after) >= limits.dirty_cells
        return {Ailment.DIRTY} if dirty else set()


def _cell_means(samples: Samples) -> NDArray[np.float32]:
    """(4, 8): the means of the picture's places; sums of bytes, which is cheaper than any resizing."""
    tops, lefts, sizes = _cells(samples.shape)
    sums = np.add.reduceat(np.add.reduceat(samples, tops, axis=0, dtype=np.uint32), lefts, axis=1)
    means: NDArray[np.float32] = np.divide(sums, sizes, dtype=np.float32)
    return means


@lru_cache(maxsize=64)
def _cells(shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Where the places begin, from above and from the left, and how many samples each has, at least one."""
    tops, lefts = (np.arange(cells) * side // cells for side, cells in zip(shape, (_CELLS_Y, _CELLS_X), strict=True))
    heights, widths = (np.diff(at, append=side).clip(1) for at, side in zip((tops, lefts), shape, strict=True))
    return tops, lefts, (heights[:, None] * widths).astype(np.float32)


def _changed_share(rows: Samples, earlier: Samples) -> NDArray[np.float32]:
    """(R,): the share of each row's samples that differ."""
    changed = cv2.threshold(cv2.absdiff(rows, earlier), 0, 1, cv2.THRESH_BINARY)[1]
    share: NDArray[np.float32] = cv2.reduce(changed, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    return share


def _edge_run(changed: NDArray[np.float32], rows: Samples) -> int:
    """How many textured rows from the upper or lower edge are unchanged, where the rest of the picture moved."""
    moved = changed > 0
    moved_rows = np.count_nonzero(moved)
    if moved_rows == 0 or 2 * np.count_nonzero(changed >= _MOVED_SHARE) < moved_rows:
        return 0
    first, last = int(moved.argmax()), len(moved) - int(moved[::-1].argmax())
    unmoved = rows[:first] if first >= len(moved) - last else rows[last:]
    if len(unmoved) == 0:
        return 0
    return int(np.count_nonzero(np.ptp(unmoved, axis=1) >= _TEXTURED))


def _blank_rows(rows: Samples) -> int:
    """How many rows at the lower edge hold one value only: memory that no picture was written to."""
    varied = np.ptp(rows, axis=1)[::-1] > 0
    return int(varied.argmax()) if varied.any() else len(rows)
