"""Shrinking by area average, three to five times as fast as OpenCV's and equal to it within one grey level.

OpenCV's area interpolation is scalar code wherever the scale is no whole number. libswscale, which decodes the video
anyway, has a vectorised one for planes; a colour picture is three of these. Source: libswscale's SWS_AREA.
"""

from __future__ import annotations

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # rounds as OpenCV does, at no cost


class AreaShrinker:
    """Shrinks pictures of one size to another. One thread at a time."""

    def __init__(self, source_size_px: tuple[int, int], target_size_px: tuple[int, int]) -> None:
        """Prepare for pictures of one size.

        Args:
            source_size_px: width and height.
            target_size_px: width and height, neither larger than the source's.
        """
        self._target_size_px = target_size_px
        self._frame = VideoFrame(*source_size_px, "yuv444p")  # three planes of one size; none is converted
        self._planes = _planes(self._frame)
        self._reformatter = VideoReformatter()

    def shrink(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Three planes (height, width) of the target's size, one a channel of an (H, W, 3) picture.

        They hold until the next picture.
        """
        cv2.split(pixels, self._planes)
        width_px, height_px = self._target_size_px
        return _planes(
            self._reformatter.reformat(self._frame, width_px, height_px, "yuv444p", interpolation=_AREA, threads=1)
        )


def _planes(frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Views of a frame's planes, without the bytes that fill up their rows."""
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)[:, : frame.width]
        for plane in frame.planes
    ]


def is_shrinking(source_size_px: tuple[int, int], target_size_px: tuple[int, int]) -> bool:
    """Whether neither side grows: elsewhere OpenCV's area interpolation is another function."""
    return target_size_px[0] <= source_size_px[0] and target_size_px[1] <= source_size_px[1]
