"""Which interval of real numbers 8 bits should cover, tensor by tensor, learnt from calibration frames.

Each tensor leaves a histogram of fixed size, however many frames pass (`compile.observation`). A range rule reads an
interval off the histogram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 4096
MOST_COUNTED = 1 << 18
TAP_MEMORY_BYTES = 256 << 20
LEVELS = 256
NARROWING = np.geomspace(1.0, 0.02, 80)
"""Shares of the greatest magnitude that are tried where a rule weighs rounding against clipping."""


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of real numbers, `low` ≤ 0 ≤ `high`: zero must have an exact code, for padding."""

    low: float
    high: float

    @classmethod
    def hull(cls, ranges: Iterable[Range]) -> Range:
        """The smallest interval that holds them all."""
        members = tuple(ranges)
        return cls(min(member.low for member in members), max(member.high for member in members))


class Histogram:
    """Counts of one tensor's values in 4096 equal bins over −limit … limit, and its exact extremes.

    When a value falls outside, the limit doubles and neighbouring bins merge: memory never grows. Of a large tensor
    every n-th value is counted, n odd so that it walks through all columns; the extremes are always of all values.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of one frame.

        Raises:
            ValueError: a value is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))
        if self.limit == 0.0:
            self.counts[BINS // 2] += len(values.ravel()[:: values.size // MOST_COUNTED | 1])
            return
        counted = values.ravel()[:: values.size // MOST_COUNTED | 1]
        bins = (counted / np.float32(self.limit) * np.float32(BINS / 2) + np.float32(BINS / 2)).astype(np.intp)
        counts = np.bincount(bins, minlength=BINS + 1)
        counts[BINS - 1] += counts[BINS]
        self.counts += counts[:BINS]

    def quantile(self, share: float) -> float:
        """The value below which `share` of all values lie, to a bin's width, never outside the extremes."""
        cumulated = np.cumsum(self.counts)
        position = int(np.searchsorted(cumulated, share * cumulated[-1]))
        edge = (position + (share > 0.5)) * 2 * self.limit / BINS - self.limit
        return float(np.clip(edge, self.low, self.high))

    def _reach(self, magnitude: float) -> None:
        if self.limit == 0.0 and magnitude > 0.0:
            self.limit = magnitude
        while magnitude > self.limit > 0.0:
            merged = self.counts.reshape(BINS // 2, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 4 : 3 * BINS // 4] = merged
            self.limit *= 2


RangeRule = Callable[[Histogram], Range]


def min_max(histogram: Histogram) -> Range:
    """Everything seen."""
    return Range(min(histogram.low, 0.0), max(histogram.high, 0.0))


def percentile(histogram: Histogram, share: float) -> Range:
    """All but the outermost values: `share` of them stay inside, what is cut is split evenly between both ends."""
    tail = (1.0 - share) / 2
    return Range(min(histogram.quantile(tail), 0.0), max(histogram.quantile(1.0 - tail), 0.0))


def least_squares(histogram: Histogram) -> Range:
    """What leaves the least mean squared error, of rounding inside and of clipping outside."""
    values, counts = _counted(histogram)

    def error(interval: Range) -> float:
        step = (interval.high - interval.low) / LEVELS
        outside = values - np.clip(values, interval.low, interval.high)
        return float((counts * np.where(outside == 0, step**2 / 12, outside**2)).sum())

    return min(_narrowed(histogram), key=error)


def least_entropy(histogram: Histogram) -> Range:
    """Whose 256 levels tell most of the distribution: least Kullback-Leibler divergence.

    Source: Migacz 2017, "8-bit Inference with TensorRT".
    """
    values, counts = _counted(histogram)

    def divergence(interval: Range) -> float:
        inside = (values >= interval.low) & (values <= interval.high)
        if not inside.any():
            return np.inf
        kept, mass = values[inside], counts[inside].astype(np.float64)
        step = max((interval.high - interval.low) / LEVELS, np.finfo(np.float64).tiny)
        levels = np.clip((kept - interval.low) / step, 0, LEVELS - 1).astype(np.intp)
        told = (np.bincount(levels, mass) / np.maximum(np.bincount(levels), 1))[levels]
        mass[0] += counts[values < interval.low].sum()
        mass[-1] += counts[values > interval.high].sum()
        mass, told = mass / mass.sum(), told / told.sum()
        return float((mass * np.log(mass / told)).sum())

    return min(_narrowed(histogram), key=divergence)


def _counted(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Middles of the bins that hold values, and how many they hold."""
    held = np.flatnonzero(histogram.counts)
    return (held + 0.5) * 2 * histogram.limit / BINS - histogram.limit, histogram.counts[held]


def _narrowed(histogram: Histogram) -> list[Range]:
    """Everything seen, then less and less of it, the farthest from zero first."""
    whole = min_max(histogram)
    limits = [float(share) * max(-whole.low, whole.high) for share in NARROWING]
    return [Range(max(whole.low, -limit), min(whole.high, limit)) for limit in limits]


RANGE_RULES: dict[str, RangeRule] = {
    "minmax": min_max,
    "percentile_99.999": lambda histogram: percentile(histogram, 0.99999),
    "percentile_99.99": lambda histogram: percentile(histogram, 0.9999),
    "percentile_99.9": lambda histogram: percentile(histogram, 0.999),
    "percentile_99.5": lambda histogram: percentile(histogram, 0.995),
    "mse": least_squares,
    "entropy": least_entropy,
}


def groups_within(sizes_bytes: Mapping[str, int], limit_bytes: int) -> list[tuple[str, ...]]:
    """Consecutive names whose sizes add up to at most the limit; one that is larger alone stands alone."""
    groups: list[list[str]] = []
    filled = 0
    for name, size in sizes_bytes.items():
        if not groups or filled + size > limit_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return [tuple(group) for group in groups]
