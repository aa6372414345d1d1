"""Which source pixels make one resized pixel, and with which weights: the CPU's rules as numbers.

They are OpenCV's, but for most pictures that shrink by `area`: libswscale shrinks those.

A resize is separable: one pixel is a weighted sum over a few columns and rows. With the weights in tables, one small
GPU kernel serves every interpolation, and the tables can be compared with OpenCV on any machine.

Source: opencv/opencv `modules/imgproc/src/resize.cpp` (`resize`, `computeResizeAreaTab`, `interpolateCubic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.area import is_near_opencv
from perception.engines.area_taps import area_taps
from perception.geometry import SizePx

Interpolation: TypeAlias = Literal["linear", "area", "nearest", "cubic"]
_CUBIC_A = -0.75
_SWSCALE_ONES = (1 << 14, 1 << 12)  # along x and along y
_SLIVER = 1e-3  # of a pixel, which OpenCV leaves out


@dataclass(frozen=True, slots=True)
class Taps:
    """One axis.

    Attributes:
        first: (N,) int32, the first source index of each resized one; indices outside the picture are clamped.
        weights: (N, K) float32, for `first` and the K - 1 indices after it; each row sums to 1.
    """

    first: NDArray[np.int32]
    weights: NDArray[np.float32]


def resize_taps(source_size_px: SizePx, content_size_px: SizePx, interpolation: Interpolation) -> tuple[Taps, Taps]:
    """Taps along x and along y.

    Args:
        source_size_px: width and height of the source picture.
        content_size_px: width and height it is resized to.
        interpolation: as in `PictureInput`.
    """
    sides = tuple(zip(source_size_px, content_size_px, strict=True))
    if is_by_swscale(source_size_px, content_size_px, interpolation):
        x, y = (_of_swscale(*side, one) for side, one in zip(sides, _SWSCALE_ONES, strict=True))
    elif interpolation == "area" and all(source >= content for source, content in sides):
        x, y = (_area(source, content) for source, content in sides)
    elif interpolation == "area":
        x, y = (_area_enlarging(source, content) for source, content in sides)
    else:
        rule = {"linear": _linear, "nearest": _nearest, "cubic": _cubic}[interpolation]
        x, y = (rule(source, content) for source, content in sides)
    return x, y


def is_by_swscale(source_size_px: SizePx, content_size_px: SizePx, interpolation: Interpolation) -> bool:
    """Whether the CPU resizes by libswscale."""
    return interpolation == "area" and is_near_opencv(source_size_px, content_size_px)


def _of_swscale(source: int, content: int, one: int) -> Taps:
    first, weights = area_taps(source, content, one)
    return _taps(first, weights / one)


def _positions(source: int, content: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Whole and fractional source position of each resized pixel's centre."""
    centres = (np.arange(content) + 0.5) * (source / content) - 0.5
    whole = np.floor(centres).astype(np.int64)
    return whole, centres - whole


def _linear(source: int, content: int) -> Taps:
    """OpenCV computes these positions in single precision; its 11 bits a weight show it."""
    centres = ((np.arange(content) + 0.5) * (1 / (content / source)) - 0.5).astype(np.float32)
    whole = np.floor(centres)
    return _two(whole.astype(np.int64), (centres - whole).astype(np.float64), source)


def _two(whole: NDArray[np.int64], fraction: NDArray[np.float64], source: int) -> Taps:
    outside = (whole < 0) | (whole >= source - 1)
    fraction = np.where(outside, 0.0, fraction)
    return _taps(np.clip(whole, 0, source - 1), np.stack((1 - fraction, fraction), axis=1))


def _nearest(source: int, content: int) -> Taps:
    """Asked of OpenCV itself, whose releases round differently: a row of indices, resized."""
    ramp = np.arange(source, dtype=np.float32)[None]
    whole = cv2.resize(ramp, (content, 1), interpolation=cv2.INTER_NEAREST)[0]
    return _taps(whole.astype(np.int64), np.ones((content, 1)))


def _cubic(source: int, content: int) -> Taps:
    whole, t = _positions(source, content)
    a = _CUBIC_A
    before = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    here = ((a + 2) * t - (a + 3)) * t * t + 1
    after = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) ** 2 + 1
    return _taps(whole - 1, np.stack((before, here, after, 1 - before - here - after), axis=1))


def _area(source: int, content: int) -> Taps:
    """Each resized pixel covers `source / content` source pixels; those it covers in part count in part.

    Summed in float32 in the order of the indices, this is OpenCV's result to the bit; so are its dropped slivers.
    """
    scale = _area_scale(source, content)
    starts = np.arange(content) * scale
    ends = starts + scale
    cell = np.minimum(scale, source - starts)
    last = np.minimum(np.floor(ends), source - 1)
    whole = np.minimum(np.ceil(starts), last)
    first = whole - (whole - starts > _SLIVER)
    indices = first[:, None] + np.arange(int((last - first).max()) + 1)
    tail = np.minimum(np.minimum(ends - last, 1), cell)
    tail[ends - last <= _SLIVER] = 0
    covered = np.select(
        [indices < whole[:, None], indices < last[:, None], indices == last[:, None]],
        [(whole - starts)[:, None], 1.0, tail[:, None]],
    )
    used = int(np.flatnonzero(covered.any(axis=0))[-1]) + 1
    return _taps(first, covered[:, :used] / cell[:, None])


def _area_scale(source: int, content: int) -> float:
    return 1 / (content / source)  # as OpenCV rounds it: 1 / (1 / 49) is no whole number


def is_mean(source_size_px: SizePx, content_size_px: SizePx) -> bool:
    """Whether `area` shrinks both sides by whole numbers: OpenCV then takes plain means, in integers."""
    scales = (_area_scale(*side) for side in zip(source_size_px, content_size_px, strict=True))
    return all(scale >= 1 and scale.is_integer() for scale in scales)


def _area_enlarging(source: int, content: int) -> Taps:
    """OpenCV's `area` where a side grows is a linear rule of its own, which it is asked for: positions on a ramp.

    A second row that grows too makes OpenCV take that rule.
    """
    ramp = np.arange(source, dtype=np.float32)[None]
    positions = cv2.resize(ramp, (content, 2), interpolation=cv2.INTER_AREA)[0].astype(np.float64)
    whole = np.floor(positions).astype(np.int64)
    return _two(whole, positions - whole, source)


def _taps(first: NDArray[np.int64], weights: NDArray[np.float64]) -> Taps:
    return Taps(first.astype(np.int32), np.ascontiguousarray(weights, np.float32))
