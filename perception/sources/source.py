"""The protocol every source of frames follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from perception.frame import Frame


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a source.

    Attributes:
        camera_id: its name within the recording.
        width_px: width of its pictures.
        height_px: height of its pictures.
        rate_hz: nominal frame rate; None where the recording does not say.
        frame_count: number of frames, None where only reading to the end would tell.
    """

    camera_id: str
    width_px: int
    height_px: int
    rate_hz: float | None
    frame_count: int | None


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
