"""The weights by which libswscale shrinks by area, in its own whole numbers: what `perception.area` does on the CPU.

A source pixel counts as far as a resized one covers it, with ramps instead of edges; slivers are left out, and what
rounding to a whole number leaves is carried to the next weight. Source: FFmpeg `libswscale/utils.c`, initFilter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ONE_PIXEL, _WEIGHT_BITS = 1 << 16, 46
_SLIVER = 0.002
_NEARLY_THE_SAME = 10

Integers = NDArray[np.int64]


def area_taps(source: int, content: int, one: int) -> tuple[Integers, Integers]:
    """For each of `content` resized pixels the first source index, (N,), and whole weights that sum to `one`, (N, K).

    Args:
        source: pixels of the side.
        content: pixels it shrinks to.
        one: 16384 along x and 4096 along y.
    """
    step = (source * _ONE_PIXEL + content // 2) // content
    if abs(step - _ONE_PIXEL) < _NEARLY_THE_SAME:
        return np.arange(content), np.full((content, 1), one, np.int64)
    size = 1 - -source // content
    centres = step - _ONE_PIXEL + 2 * step * np.arange(content)  # in half pixels of 16 bits
    first = np.trunc((centres - (size - 2) * _ONE_PIXEL) / (2 * _ONE_PIXEL)).astype(np.int64)
    distances = np.abs((first[:, None] + np.arange(size)) * 2 * _ONE_PIXEL - centres[:, None]) << 13
    beyond_half = distances * content // source - (1 << 29)
    covered = np.clip((1 << 45) - beyond_half * step, 0, 1 << _WEIGHT_BITS)
    whole = 1 << (54 - min((source // content).bit_length() - 1, 8))
    first, weights = _without_slivers(first, covered * (whole >> _WEIGHT_BITS), _SLIVER * whole)
    return first, _rounded(weights, one)


def _without_slivers(first: Integers, weights: Integers, most: float) -> tuple[Integers, Integers]:
    """Leading weights that are little together go, and as many trailing ones as every row can spare.

    No pixel begins after the one that follows it.
    """
    count = weights.shape[1]
    begins = first + (weights.cumsum(axis=1) <= most).sum(axis=1)
    leading = np.minimum.accumulate(begins[::-1])[::-1] - first
    columns = leading[:, None] + np.arange(count)
    shifted = np.take_along_axis(weights, np.minimum(columns, count - 1), axis=1) * (columns < count)
    trailing = (shifted[:, ::-1].cumsum(axis=1) <= most).sum(axis=1)
    return first + leading, shifted[:, : count - int(trailing.min())]


def _rounded(weights: Integers, one: int) -> Integers:
    units = np.maximum((weights.sum(axis=1) + one // 2) // one, 1)
    rounded, error = np.empty_like(weights), np.zeros_like(units)
    for column in range(weights.shape[1]):
        wanted = weights[:, column] + error
        rounded[:, column] = np.sign(wanted) * ((np.abs(wanted) + units // 2) // units)
        error = wanted - rounded[:, column] * units
    return rounded
