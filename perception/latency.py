"""Durations in bounded memory: percentiles with the number of samples they rest on.

A histogram with buckets that grow with the value (Source: G. Tene, HdrHistogram, hdrhistogram.org: linear sub-buckets
inside each power of two). With 256 of them a bucket is at most 1/256 of its value wide, and a percentile is reported
as the upper end of its bucket: never too small, at most 0.4 % too large. Minimum, maximum, count and mean are exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

SUB_BUCKETS = 256
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
SAMPLES_BEYOND = 10


def samples_needed(percent: float) -> int:
    """Fewest samples that carry a percentile: ten of them must be expected beyond it.

    The number of samples beyond the true percentile is binomial. With ten expected, the share of durations that really
    lie beyond the reported value is, with 95 % confidence, between 0.48 and 1.71 times the nominal share; with one
    expected it would be anything from 0.03 to 3.7 times. p50 needs 20 samples, p99 1,000, p99.9 10,000.

    Source: confidence of order statistics, H. A. David and H. N. Nagaraja, Order Statistics, 3rd ed. 2003, section 7.1;
    the two factors are the 2.5 % and 97.5 % points of the gamma distribution of shape 10, divided by 10.

    Args:
        percent: above 0 and below 100.

    Raises:
        ValueError: no such percentile.
    """
    if not 0 < percent < 100:
        raise ValueError(f"percentile: got {percent}, expected more than 0 and less than 100 (%)")
    return math.ceil(SAMPLES_BEYOND / (1 - Fraction(str(percent)) / 100))


class LatencyRecorder:
    """Collects durations in nanoseconds; memory does not grow with their number.

    At most 14,336 buckets exist for durations up to 292 years; a camera pipeline fills a few hundred.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._total_ns = 0
        self._min_ns: int | None = None
        self._max_ns: int | None = None
        self._buckets: Counter[int] = Counter()

    def record(self, duration_ns: int) -> None:
        """Add one duration.

        Raises:
            ValueError: it is negative.
        """
        if duration_ns < 0:
            raise ValueError(f"duration: got {duration_ns} ns, expected at least 0; read one steady clock")
        self.samples += 1
        self._total_ns += duration_ns
        self._min_ns = duration_ns if self._min_ns is None else min(self._min_ns, duration_ns)
        self._max_ns = duration_ns if self._max_ns is None else max(self._max_ns, duration_ns)
        self._buckets[_bucket(duration_ns)] += 1

    def merge(self, other: LatencyRecorder) -> None:
        """Add all durations of another recorder; the result is the same as if all had been recorded here."""
        self.samples += other.samples
        self._total_ns += other._total_ns
        self._min_ns = min(_present(self._min_ns, other._min_ns), default=None)
        self._max_ns = max(_present(self._max_ns, other._max_ns), default=None)
        self._buckets.update(other._buckets)

    @property
    def min_ns(self) -> int:
        """The smallest duration, exactly.

        Raises:
            ValueError: nothing was recorded.
        """
        return self._measured(self._min_ns)

    @property
    def max_ns(self) -> int:
        """The largest duration, exactly.

        Raises:
            ValueError: nothing was recorded.
        """
        return self._measured(self._max_ns)

    @property
    def mean_ns(self) -> float:
        """The mean, exactly.

        Raises:
            ValueError: nothing was recorded.
        """
        return self._measured(self._total_ns if self.samples else None) / self.samples

    def percentile_ns(self, percent: float) -> int:
        """The smallest duration that at least `percent` of all samples do not exceed, to 0.4 % (never too small).

        It is given however few the samples are; to show it to people, see `percentile_or_none_ns`.

        Args:
            percent: 0 to 100.

        Raises:
            ValueError: nothing was recorded, or no such percentile.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile: got {percent}, expected 0 to 100 (%)")
        largest_ns = self.max_ns
        rank = max(1, math.ceil(Fraction(str(percent)) / 100 * self.samples))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(_upper_end_ns(bucket), largest_ns)
        raise RuntimeError(f"histogram holds {seen} samples, expected {self.samples}")

    def percentile_or_none_ns(self, percent: float) -> int | None:
        """The percentile, or None where the samples are too few to carry it (`samples_needed`)."""
        return self.percentile_ns(percent) if self.samples >= samples_needed(percent) else None

    def to_dict(self) -> dict[str, float | int | None]:
        """Milliseconds with the sample count: `samples, min_ms, mean_ms, p50_ms, p90_ms, p99_ms, p99_9_ms, max_ms`.

        What the samples do not carry is None.
        """
        carried = {
            f"p{percent:g}_ms".replace(".", "_"): _milliseconds(self.percentile_or_none_ns(percent))
            for percent in PERCENTILES
        }
        return {
            "samples": self.samples,
            "min_ms": _milliseconds(self._min_ns),
            "mean_ms": _milliseconds(self.mean_ns if self.samples else None),
            **carried,
            "max_ms": _milliseconds(self._max_ns),
        }

    def state(self) -> dict[str, object]:
        """Everything recorded, as JSON can hold it; `of_state` is its inverse."""
        extremes = (self._min_ns, self._max_ns)
        return {"total_ns": self._total_ns, "extremes_ns": extremes, "buckets": sorted(self._buckets.items())}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> LatencyRecorder:
        """A recorder as it was when `state` was asked."""
        recorder = cls()
        recorder._total_ns = state["total_ns"]
        recorder._min_ns, recorder._max_ns = state["extremes_ns"]
        recorder._buckets = Counter({int(bucket): int(count) for bucket, count in state["buckets"]})
        recorder.samples = sum(recorder._buckets.values())
        return recorder

    def _measured(self, value_ns: int | None) -> int:
        if value_ns is None:
            raise ValueError("latency: nothing was recorded, expected at least 1 sample")
        return value_ns


def _bucket(duration_ns: int) -> int:
    """Index of the bucket; the order of indices is the order of durations."""
    shift = max(0, duration_ns.bit_length() - SUB_BUCKETS.bit_length())
    return shift * SUB_BUCKETS + (duration_ns >> shift)


def _upper_end_ns(bucket: int) -> int:
    """The largest duration that falls into a bucket."""
    shift = max(0, bucket // SUB_BUCKETS - 1)
    return ((bucket - shift * SUB_BUCKETS + 1) << shift) - 1


def _present(*values: int | None) -> Iterable[int]:
    return (value for value in values if value is not None)


def _milliseconds(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6
