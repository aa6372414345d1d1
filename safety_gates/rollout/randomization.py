"""Tests that rest on the draw itself: who got the candidate was decided by a salted hash and by nothing else.

If the candidate changes nothing, every vehicle would have reported the same with either release, so any other draw
could have given the same figures: the tests ask how rare the real draw is among all draws. That makes them exact in
what they need. No distribution of the figures is assumed, one vehicle counts once however much it drives, and drives
of one vehicle may depend on each other in any way. A vehicle that lies moves a rank test by one rank.

A figure may be looked at again and again: look number k spends `spent(alpha, k)` of the error probability, and all
looks together never more than alpha, whatever the dependence between them.

Source: Fisher 1935, "The Design of Experiments", chapter 2 (randomization test; the hypergeometric distribution for
two groups that had an event or not); van der Waerden 1952, "Order tests for the two-sample problem and their power",
Indagationes Mathematicae 14 (normal scores); Rosenbaum 2002, "Covariance adjustment in randomized experiments and
observational studies", Statistical Science 17 (ranks of residuals); Lan & DeMets 1983, "Discrete sequential boundaries
for clinical trials", Biometrika 70 (spending); Jennison & Turnbull 1989, "Interim analyses: the repeated confidence
interval approach", JRSS B 51 (intervals by inverting the tests). Checked by simulation in the tests and in
docs/rollout.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]
from scipy.stats import binom, hypergeom, rankdata  # type: ignore[import-untyped]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_RANKED = 20_000
WIDEST_RATIO = 32.0
BISECTIONS = 14
LENT = 0.1


def spent(alpha: float, look: int) -> float:
    """What look number `look` (from 1) may spend of alpha: alpha / (k (k + 1)), which adds up to alpha over all looks.

    Raises:
        ValueError: no such look.
    """
    if look < 1:
        raise ValueError(f"look: got {look}, expected 1 or more")
    return alpha / (look * (look + 1))


@dataclass(frozen=True, slots=True)
class Draw:
    """Vehicles that had an event, among those drawn for the candidate and among the others."""

    hit: int
    drawn: int
    hit_control: int
    controls: int


def more_events(draw: Draw) -> float:
    """How likely a draw is that gives the candidate so many of the vehicles with an event, or more."""
    everyone, events = draw.drawn + draw.controls, draw.hit + draw.hit_control
    return float(hypergeom.sf(draw.hit - 1, everyone, draw.drawn, events))


def mostly_above(shares: Floats, limit: float) -> float:
    """How likely so many vehicles above `limit` are, or more, if at most half of all vehicles are above it.

    The sign test. A vehicle that sits on the limit is above it.
    """
    return float(binom.sf(np.count_nonzero(shares >= limit) - 1, len(shares), 0.5)) if len(shares) else 1.0


def mostly_below(shares: Floats, limit: float) -> float:
    """The other direction: how likely so many vehicles below `limit` are, if at most half of all are below it."""
    return float(binom.sf(np.count_nonzero(shares < limit) - 1, len(shares), 0.5)) if len(shares) else 1.0


@dataclass(frozen=True, slots=True)
class Rates:
    """A rate of every vehicle: now, and before the candidate came, which explains most of why vehicles differ.

    Attributes:
        candidate: (N,) whether the vehicle was drawn.
        count, exposure: (N,) so many in so much, now.
        count_before, exposure_before: (N,) the same before; 0 where nothing is known.
        rare: whether counts are of rare events.
    """

    candidate: Flags
    count: Floats
    exposure: Floats
    count_before: Floats
    exposure_before: Floats
    rare: bool

    def driven(self) -> Rates:
        """Only vehicles that drove, at most `MOST_RANKED` of each group: the first, in an order blind to the draw."""
        kept = np.zeros(len(self.candidate), bool)
        for group in (self.candidate, ~self.candidate):
            kept[np.flatnonzero(group & (self.exposure > 0))[:MOST_RANKED]] = True
        return Rates(
            self.candidate[kept],
            self.count[kept],
            self.exposure[kept],
            self.count_before[kept],
            self.exposure_before[kept],
            rare=self.rare,
        )

    def residuals(self, ratio: float) -> Floats:
        """(N,) log rates less what the time before explains, as if the candidate's counts were divided by `ratio`."""
        before = _log_rates(self.count_before, self.exposure_before, self.rare)
        plain = _log_rates(self.count, self.exposure, self.rare)
        slope = _slope(before, plain)
        if ratio == 1.0:
            return plain - slope * before
        count = np.where(self.candidate, self.count / ratio, self.count)
        pooled = _pooled(self.count, self.exposure)
        return _log_rates(count, self.exposure, self.rare, pooled) - slope * before


def higher_rate(rates: Rates, ratio: float) -> float:
    """How likely the candidate's ranks are so high if its rates are `ratio` times what they would be without it."""
    return float(ndtr(-_score(rates, ratio)))


def lower_rate(rates: Rates, ratio: float) -> float:
    """How likely the candidate's ranks are so low if its rates are `ratio` times what they would be without it."""
    return float(ndtr(_score(rates, ratio)))


def ratio_interval(rates: Rates, low_alpha: float, high_alpha: float) -> tuple[float, float]:
    """Every ratio that neither test rejects; an end beyond 1/32 or 32 is open (0 or infinite)."""
    low = _smallest(lambda ratio: higher_rate(rates, ratio) > low_alpha)
    high = _smallest(lambda ratio: lower_rate(rates, ratio) <= high_alpha)
    return (0.0 if low <= 1 / WIDEST_RATIO else low, math.inf if high >= WIDEST_RATIO else high)


def best_ratio(rates: Rates) -> float:
    """The ratio that makes both groups alike (Hodges & Lehmann 1963)."""
    return _smallest(lambda ratio: _score(rates, ratio) <= 0)


def _score(rates: Rates, ratio: float) -> float:
    """Sum of the candidate's normal scores in standard deviations of all draws; 0 where nothing can be told."""
    total, drawn = len(rates.candidate), int(rates.candidate.sum())
    if drawn == 0 or drawn == total:
        return 0.0
    scores = ndtri(rankdata(rates.residuals(ratio)) / (total + 1))
    scores -= scores.mean()
    variance = drawn * (total - drawn) / (total * (total - 1)) * float(scores @ scores)
    return float(scores[rates.candidate].sum()) / math.sqrt(variance) if variance > 0 else 0.0


def _smallest(holds: Callable[[float], bool]) -> float:
    """The smallest ratio from which on `holds` is true, by bisection of its logarithm between 1/32 and 32."""
    low, high = -math.log(WIDEST_RATIO), math.log(WIDEST_RATIO)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(math.exp(middle)) else (middle, high)
    return math.exp(high)


def _log_rates(count: Floats, exposure: Floats, rare: bool, pooled: float | None = None) -> Floats:
    """Every vehicle is lent some exposure at the pooled rate, so that the luck of a few drives makes no extreme rank.

    Lent is a share of the mean exposure, and of rare events enough for one.
    """
    pooled = _pooled(count, exposure) if pooled is None else pooled
    if pooled == 0.0:
        return np.zeros(len(count))
    lent = max(LENT * float(exposure.mean()), 1 / pooled if rare else 0.0)
    rates: Floats = np.log((count + pooled * lent) / (exposure + lent))
    return rates


def _pooled(count: Floats, exposure: Floats) -> float:
    total = float(exposure.sum())
    return float(count.sum()) / total if total > 0 else 0.0


def _slope(before: Floats, now: Floats) -> float:
    centred = before - before.mean()
    square = float(centred @ centred)
    return float(centred @ now) / square if square > 0 else 0.0
