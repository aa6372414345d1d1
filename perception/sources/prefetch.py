"""Decoding ahead of whoever reads: while a network works on one frame, the next ones are being decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Generic, TypeVar

from perception.frame import Frame
from perception.sources.source import Camera, Recording, in_capture_order

FRAMES_AHEAD = 4
Item = TypeVar("Item")


class Prefetched:
    """A recording whose cameras are decoded ahead, each by a thread of its own.

    Memory: at most `frames_ahead + 1` decoded frames a camera beside the one being looked at. A thread lives as long
    as the iterator it feeds: it ends with the last frame, when the iterator is closed or dropped, and at `close`.
    """

    def __init__(self, recording: Recording, *, frames_ahead: int = FRAMES_AHEAD) -> None:
        """Wrap an open recording, which from now on is closed through this.

        Raises:
            ValueError: `frames_ahead` is below 1.
        """
        if frames_ahead < 1:
            raise ValueError(f"frames_ahead: got {frames_ahead}, expected at least 1")
        self.cameras: tuple[Camera, ...] = recording.cameras
        self._recording = recording
        self._frames_ahead = frames_ahead
        self._running: set[Ahead[Frame]] = set()

    def frames(self) -> Generator[Frame]:
        """See `FrameSource.frames`. A failure arrives after the frames that were decoded before it."""
        lanes = [self.camera_frames(camera.camera_id) for camera in self.cameras]
        try:
            yield from in_capture_order(lanes)
        finally:
            for lane in lanes:
                lane.close()

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        ahead = Ahead(self._recording.camera_frames(camera_id), self._frames_ahead, name=f"decode {camera_id}")
        self._running.add(ahead)
        try:
            yield from ahead
        finally:
            ahead.stop()
            self._running.discard(ahead)

    def close(self) -> None:
        """See `FrameSource.close`. An iterator still in use raises RuntimeError at its next frame."""
        for ahead in tuple(self._running):
            ahead.stop()
        self._recording.close()


class Ahead(Generic[Item]):
    """One thread that makes items, one reader, and a few items between them."""

    def __init__(self, items: Generator[Item], most: int, *, name: str) -> None:
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._make, args=(items, most), name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Ahead[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._stopped)
            if self._stopped:
                raise RuntimeError(f"{self._thread.name}: the source was closed while its frames were being read")
            if self._waiting:
                self._changed.notify()
                return self._waiting.popleft()
            if self._failure is not None:
                raise self._failure
            raise StopIteration

    def stop(self) -> None:
        """End the thread, which at most finishes the item in hand; a second call does nothing."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def _make(self, items: Generator[Item], most: int) -> None:
        try:
            with closing(items):
                for item in items:
                    if not self._handed_over(item, most):
                        break
        except BaseException as failure:  # noqa: BLE001  (carried to the thread that reads)
            self._failure = failure
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _handed_over(self, item: Item, most: int) -> bool:
        """Wait for room and put the item there; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < most or self._stopped)
            if self._stopped:
                return False
            self._waiting.append(item)
            self._changed.notify()
            return True
