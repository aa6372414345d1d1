"""One picture of one camera, with the instant at which the sensor took it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture.

    Attributes:
        pixels: (H, W, 3) uint8, BGR. Owned by the source; a holder may keep it, nobody may write to it.
        camera_id: name of the camera within its recording.
        frame_id: position in the camera's sequence, from 0; gaps mean lost frames.
        captured_ns: the sensor's timestamp in nanoseconds, on the recording's own clock.
        name: where the picture lies inside its recording, for people and for labels (a file's stem, or the frame_id).
    """

    pixels: NDArray[np.uint8]
    camera_id: str
    frame_id: int
    captured_ns: int
    name: str

    def __post_init__(self) -> None:
        """Refuse what is no colour picture.

        Raises:
            ValueError: `pixels` is not (H, W, 3) uint8 with at least one pixel.
        """
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or self.pixels.size == 0:
            raise ValueError(f"pixels: got {self.pixels.dtype} {self.pixels.shape}, expected uint8 (H, W, 3)")

    @property
    def height_px(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width_px(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])
