"""The protocols every source of frames follows, and the order in which frames of several cameras come."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from perception.errors import SourceError
from perception.frame import Frame


class Clock(str, Enum):
    """Which clock `captured_ns` of a camera counts on."""

    SENSOR = "the sensor's stamp"
    LOG = "the time at which it was logged"
    FILE = "the time in the video file"
    NOMINAL = "made up from the frame rate"
    MONOTONIC = "this machine's monotonic clock"


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a source.

    Attributes:
        camera_id: its name within the recording.
        width_px: width of its pictures.
        height_px: height of its pictures.
        rate_hz: nominal frame rate; None where the recording does not say.
        frame_count: number of frames, None where only reading to the end would tell.
        clock: what its `captured_ns` are.
    """

    camera_id: str
    width_px: int
    height_px: int
    rate_hz: float | None
    frame_count: int | None
    clock: Clock = Clock.SENSOR


class FrameSource(Protocol):
    """Frames of one or more cameras, in order of capture. Opening checks what can be checked without decoding."""

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras, in a fixed order."""

    def frames(self) -> Iterator[Frame]:
        """All frames of all cameras in order of `captured_ns`; each call starts anew.

        Raises:
            SourceError: a frame cannot be decoded; what was yielded before stands.
        """

    def close(self) -> None:
        """Give everything back. A second call does nothing."""


class Recording(FrameSource, Protocol):
    """A source that lies on disk, so that each of its cameras can be read by itself."""

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """All frames of one camera in order of `captured_ns`; each call starts anew.

        `camera_id` is one of `cameras`. The generator gives back what it holds when it ends or is
        closed.

        Raises:
            SourceError: a frame cannot be decoded, or its time is not after the one before; what was yielded stands.
        """


def in_capture_order(cameras: Sequence[Iterator[Frame]]) -> Iterator[Frame]:
    """Merge the frames of several cameras by `captured_ns`; at equal times the camera named first comes first.

    Raises:
        SourceError: within one camera time does not advance.
    """
    return heapq.merge(*map(_advancing, cameras), key=lambda frame: frame.captured_ns)


def chosen_cameras(present: Sequence[str], wanted: Sequence[str], *, where: object) -> tuple[str, ...]:
    """The cameras to read, in the order of the recording; an empty wish means all.

    Raises:
        SourceError: a wanted camera is not in the recording.
    """
    if unknown := [name for name in wanted if name not in present]:
        raise SourceError(f"{where}: has no camera {unknown[0]!r}, it has {', '.join(present)}; choose one of these")
    return tuple(name for name in present if not wanted or name in wanted)


def _advancing(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames, as long as time advances."""
    last_ns = None
    for frame in frames:
        if last_ns is not None and frame.captured_ns <= last_ns:
            raise SourceError(
                f"camera {frame.camera_id}, frame {frame.frame_id} ({frame.name}): captured at {frame.captured_ns} ns, "
                f"expected later than the frame before it ({last_ns} ns); the timestamps are damaged: correct them"
            )
        last_ns = frame.captured_ns
        yield frame
