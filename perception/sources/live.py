"""Cameras that run: each is read by a thread of its own, which never waits for who looks at the frames.

A reader gets the newest frame of each camera; what it was too slow for is counted in `frame_id`, whose gaps mean lost
frames, as everywhere. A device that disappears is opened again, ever more slowly up to `RETRY_MOST_S`, until it is back
or the source is closed: to the reader that is a gap. Only a camera that cannot be opened at the beginning is an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.source import Camera, Clock

RETRY_FIRST_S, RETRY_MOST_S = 0.2, 2.0
FIRST_PICTURE_S = 15.0
"""How long a camera may take to its first picture when the source is opened."""

_CLOCK_WINDOW_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture as a device gave it.

    Attributes:
        pixels: (H, W, 3) uint8 BGR, nobody's to write to any more.
        captured_ns: when it was taken, on `time.monotonic_ns`.
        lost: pictures that the device knows to have lost just before it.
    """

    pixels: NDArray[np.uint8]
    captured_ns: int
    lost: int = 0


Device: TypeAlias = Callable[[], Generator[Shot]]
"""Opens a camera and gives its pictures as they come. Raises SourceError where it cannot be opened or is gone."""


class LiveSource:
    """One or more running cameras as a source of frames, which ends when it is closed."""

    is_live = True

    def __init__(self, devices: Mapping[str, Device], *, rates_hz: Mapping[str, float] | None = None) -> None:
        """Start every camera and wait for its first picture.

        Args:
            devices: camera → how to open it.
            rates_hz: camera → frame rate that was asked of it, where one was.

        Raises:
            SourceError: a camera cannot be opened, or shows nothing within `FIRST_PICTURE_S`.
        """
        self._changed = threading.Condition()
        self._newest: dict[str, Frame] = {}
        self._closed = False
        self._lanes = [_Lane(name, device, self._deliver) for name, device in devices.items()]
        try:
            for lane in self._lanes:
                lane.wait_for_first()
        except BaseException:
            self.close()
            raise
        self.cameras: tuple[Camera, ...] = tuple(
            replace(lane.camera, rate_hz=(rates_hz or {}).get(lane.camera_id)) for lane in self._lanes
        )

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`: in order of arrival, the newest of each camera; a later call goes on from now."""
        while (frame := self._next_of(self._newest)) is not None:
            yield frame

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """The newest frames of one camera; `frames` does not see those that are taken here."""
        while (frame := self._next_of((camera_id,))) is not None:
            yield frame

    def gaps(self) -> dict[str, int]:
        """Camera → how often it disappeared and came back."""
        return {lane.camera_id: lane.gaps for lane in self._lanes}

    def close(self) -> None:
        """See `FrameSource.close`. Waits for the devices to be let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.stop()

    def _next_of(self, cameras: Collection[str]) -> Frame | None:
        """The frame that has waited longest among these cameras; None when the source was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(name in cameras for name in self._newest))
            if self._closed:
                return None
            return self._newest.pop(next(name for name in self._newest if name in cameras))

    def _deliver(self, frame: Frame) -> None:
        with self._changed:
            self._newest[frame.camera_id] = frame
            self._changed.notify_all()


class _Lane:
    """One camera and the thread that reads it."""

    def __init__(self, camera_id: str, device: Device, deliver: Callable[[Frame], None]) -> None:
        self.camera_id = camera_id
        self.gaps = 0
        self._device, self._deliver = device, deliver
        self._next_id, self._last_ns, self._period_ns = 0, 0, 0
        self._size: tuple[int, int] | None = None
        self._failure: SourceError | None = None
        self._settled, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {camera_id}", daemon=True)
        self._thread.start()

    @property
    def camera(self) -> Camera:
        """As the source states it, once the first picture is there."""
        width_px, height_px = self._size or (0, 0)
        return Camera(self.camera_id, width_px, height_px, None, None, Clock.MONOTONIC)

    def wait_for_first(self) -> None:
        """Wait for the first picture.

        Raises:
            SourceError: the camera cannot be opened, or shows nothing.
        """
        if not self._settled.wait(FIRST_PICTURE_S):
            raise SourceError(
                f"camera {self.camera_id}: showed no picture within {FIRST_PICTURE_S:g} s; check that it runs"
            )
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let the device go; a second call does nothing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        while not self._stopped.is_set():
            try:
                self._read()
                wait_s = RETRY_FIRST_S
            except SourceError as error:
                if self._size is None:
                    self._failure = error
                    self._settled.set()
                    return
            if self._stopped.wait(wait_s):
                return
            wait_s = min(2 * wait_s, RETRY_MOST_S)

    def _read(self) -> None:
        """Deliver until the device ends."""
        with closing(self._device()) as shots:
            for position, shot in enumerate(shots):
                if self._stopped.is_set():
                    return
                returned = position == 0 and self._size is not None
                self.gaps += returned
                self._take(shot, missed=self._missed(shot) if returned else shot.lost)

    def _take(self, shot: Shot, *, missed: int) -> None:
        captured_ns = max(shot.captured_ns, self._last_ns + 1)
        if self._size is not None and missed == 0:
            step_ns = captured_ns - self._last_ns
            self._period_ns = step_ns if not self._period_ns else round(0.9 * self._period_ns + 0.1 * step_ns)
        frame_id = self._next_id + missed
        self._deliver(Frame(shot.pixels, self.camera_id, frame_id, captured_ns, f"{frame_id:06d}"))
        self._next_id, self._last_ns = frame_id + 1, captured_ns
        self._size = (shot.pixels.shape[1], shot.pixels.shape[0])
        self._settled.set()

    def _missed(self, shot: Shot) -> int:
        """Frames that would have come while the device was gone; at least one, so that the gap shows."""
        away_ns = shot.captured_ns - self._last_ns
        return max(1, round(away_ns / self._period_ns) - 1) if self._period_ns else 1


class SenderClock:
    """Turns a sender's timestamps into instants of `time.monotonic_ns`.

    A picture cannot arrive before it was taken, so the least delay seen between stamp and arrival is taken as none:
    what comes late, in a burst after a stall, is dated back to when it was taken. The least of the last 10 to 20 s
    counts, so that clocks of different speed do not drift apart. The delay that every picture has stays unknown.
    """

    def __init__(self) -> None:
        self._least_ns: list[int] = []
        self._window_until_ns = 0

    def captured_ns(self, stamp_ns: int, arrived_ns: int) -> int:
        """The instant of a stamp, never after its arrival."""
        apart_ns = arrived_ns - stamp_ns
        if arrived_ns >= self._window_until_ns:
            self._least_ns = [*self._least_ns[-1:], apart_ns]
            self._window_until_ns = arrived_ns + _CLOCK_WINDOW_NS
        self._least_ns[-1] = min(self._least_ns[-1], apart_ns)
        return stamp_ns + min(self._least_ns)


def now_ns() -> int:
    """The clock that live frames are dated on."""
    return time.monotonic_ns()
