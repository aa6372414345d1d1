"""Frames on their way from the cameras to the engines: one thread a camera, nothing waits for the engines.

A camera's thread hands its frame over itself: it enters the loop, which starts the engine from there. A thread between
them would cost every frame one more wake-up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from perception.camera_health import Ailment, CameraHealth
from perception.deadline.jobs import Arrival
from perception.deadline.slots import Slots
from perception.frame import Frame
from perception.sources.source import FrameSource

LEAD_NS = 150_000_000
"""Recorded frames are due so long after the start, so that the first ones are decoded when their time comes."""


_ROOM_S = 0.001
_MARGIN, _LEAST_AHEAD_NS = 4, 1_000_000
"""A recorded frame is looked at so many times the longest look before it is due: sooner, the look would hold the
interpreter while the frame before it comes back from its engine."""
ALL_CAMERAS = "all cameras"


class Pace:
    """When recorded frames are due on this machine's clock. With `speed` None a frame is due when it comes: live."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._lock = threading.Lock()
        self._first_captured_ns: int | None = None
        self._started_ns = 0

    @property
    def is_live(self) -> bool:
        """Whether frames come when they come."""
        return self._speed is None

    def start(self, first_captured_ns: int) -> None:
        """The clock of the recording begins with this instant."""
        with self._lock:
            if self._first_captured_ns is None:
                self._first_captured_ns = first_captured_ns
                self._started_ns = time.perf_counter_ns() + LEAD_NS

    def due_ns(self, captured_ns: int) -> int:
        """The instant of capture on `time.perf_counter_ns`; a live frame's clock is that one already."""
        if self._speed is None:
            return captured_ns
        return self._started_ns + int((captured_ns - (self._first_captured_ns or 0)) / self._speed)

    def recorded_ns(self, now_ns: int) -> int:
        """The inverse: an instant of `time.perf_counter_ns` on the recording's clock, which runs at its own speed."""
        if self._speed is None:
            return now_ns
        return (self._first_captured_ns or 0) + int((now_ns - self._started_ns) * self._speed)


class Delivery:
    """Threads that deliver: each calls whoever accepts its frames."""

    def __init__(
        self, source: FrameSource, slots: Slots, pace: Pace, *, limit: int | None = None, patient: bool = False
    ) -> None:
        """Prepare; `start` begins.

        Args:
            source: each of its cameras is read by a thread of its own, where it can be read by itself.
            slots: where pixels go.
            pace: when recorded frames are due.
            limit: deliver at most so many frames of all cameras together.
            patient: wait for room where there is none, instead of delivering a frame without its pixels.
        """
        self.failures: deque[tuple[str, BaseException]] = deque()
        self.failed: list[BaseException] = []
        self.health = {
            camera.camera_id: CameraHealth(size_px=(camera.width_px, camera.height_px), rate_hz=camera.rate_hz)
            for camera in source.cameras
        }
        self._slots, self._pace = slots, pace
        self._limit, self._patient = limit, patient
        self._shifts_ns: dict[str, int] = {}
        self._ahead_ns = dict.fromkeys(self.health, _LEAST_AHEAD_NS)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._accept: Callable[[Arrival], None] = lambda _: None
        self._threads = [
            threading.Thread(target=self._deliver, args=(name, frames), name=name, daemon=True)
            for name, frames in lanes_of(source).items()
        ]

    def has_ended(self, camera_id: str) -> bool:
        """Whether no more frames of this camera will come."""
        return not any(thread.is_alive() for thread in self._threads if thread.name in (camera_id, ALL_CAMERAS))

    def is_overdue(self, camera_id: str, now_ns: int) -> bool:
        """Whether a camera that has not ended should have given a frame by now."""
        return self.health[camera_id].overdue(self._pace.recorded_ns(now_ns)) and not self.has_ended(camera_id)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return not any(thread.is_alive() for thread in self._threads)

    def start(self, accept: Callable[[Arrival], None]) -> None:
        """Begin to deliver: `accept` is called with every arrival, from its camera's thread."""
        self._accept = accept
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; each at most finishes the frame in hand."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _deliver(self, name: str, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                if not self._granted() or not self._delivered(frame):
                    break
        except BaseException as failure:  # noqa: BLE001  (carried to the loop's thread)
            self.failures.append((name, failure))

    def _granted(self) -> bool:
        """Whether one more frame may be delivered."""
        if self._limit is None:
            return True
        with self._lock:
            self._limit -= 1
            return self._limit >= 0

    def _delivered(self, frame: Frame) -> bool:
        """Look at the frame and copy it just before its time comes; then hand it over. False: nobody wants it."""
        self._pace.start(frame.captured_ns)
        captured_ns = self._pace.due_ns(frame.captured_ns)
        if not self._pace.is_live and self._stopped_until(captured_ns - self._ahead_ns[frame.camera_id]):
            return False
        now_ns = time.perf_counter_ns()
        arrived_ns = now_ns if self._pace.is_live else max(captured_ns, now_ns)
        ailments = self.health[frame.camera_id].observe(frame, arrived_ns=self._pace.recorded_ns(arrived_ns))
        if self._pace.is_live:
            captured_ns = self._corrected(
                frame.camera_id, captured_ns, arrived_ns, jumped=Ailment.CLOCK_JUMP in ailments
            )
        slot = self._slots.put(frame.pixels)
        while slot is None and self._patient and frame.pixels.nbytes <= self._slots.slot_bytes:
            if self._stopped.wait(_ROOM_S):
                return False
            slot = self._slots.put(frame.pixels)
        looked_ns = time.perf_counter_ns() - now_ns
        self._ahead_ns[frame.camera_id] = max(
            _LEAST_AHEAD_NS, _MARGIN * looked_ns, self._ahead_ns[frame.camera_id] * 7 // 8
        )
        if self._stopped_until(captured_ns):
            return False
        arrived_ns = arrived_ns if self._pace.is_live else time.perf_counter_ns()
        self._accept(Arrival(frame, slot, captured_ns, arrived_ns, ailments))
        return True

    def _stopped_until(self, due_ns: int) -> bool:
        """Wait for an instant; whether the end came before it."""
        return self._stopped.wait(max(0, due_ns - time.perf_counter_ns()) / 1e9)

    def _corrected(self, camera_id: str, captured_ns: int, arrived_ns: int, *, jumped: bool) -> int:
        """When a live frame was captured; from a leap of its camera's clock on, counted from that frame's arrival.

        What is lost is the time on the way, which is short; ages off by the leap would be worth nothing.
        """
        if jumped:
            self._shifts_ns[camera_id] = arrived_ns - captured_ns
        return min(arrived_ns, captured_ns + self._shifts_ns.get(camera_id, 0))


def lanes_of(source: FrameSource) -> dict[str, Iterator[Frame]]:
    """One iterator a camera; where cameras cannot be read apart, one for all."""
    by_camera = getattr(source, "camera_frames", None)
    if by_camera is None:
        return {ALL_CAMERAS: source.frames()}
    return {camera.camera_id: by_camera(camera.camera_id) for camera in source.cameras}
