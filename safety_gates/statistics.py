"""How sure a figure is: intervals for percentiles, proportions and average precision. Each function names its source.

Every interval is two-sided at `CONFIDENCE` unless told otherwise: of many repetitions of the measurement, that share
of the intervals holds the true figure. Coverage is checked by simulation in tests/safety_gates/test_statistics.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom, t  # type: ignore[import-untyped]

CONFIDENCE = 0.95
RESAMPLES = 1000
LEAST_IN_TAIL = 5  # draws beyond each end of an interval, or the end is noise
SEED = 20240229
LEAST_FRAMES = 30


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true figure lies, with the stated confidence. An open end is infinite: the samples cannot bound it."""

    low: float
    high: float
    confidence: float = CONFIDENCE


def percentile(samples: NDArray[np.float64], quantile: float) -> float:
    """The smallest sample that at least `quantile` of all samples do not exceed; NaN without samples.

    An observed value, never an interpolated one: Hyndman & Fan 1996, "Sample quantiles in statistical packages",
    definition 1.
    """
    if len(samples) == 0:
        return math.nan
    rank = max(1, math.ceil(quantile * len(samples)))
    return float(np.sort(samples)[rank - 1])


def percentile_interval(samples: NDArray[np.float64], quantile: float, confidence: float = CONFIDENCE) -> Interval:
    """Interval between two order statistics of independent samples; no assumption about their distribution.

    An end that no sample can bound is infinite: p99 at 95 % has an upper end from 368 samples on.

    Source: David & Nagaraja 2003, "Order Statistics", 3rd edition, section 7.1.
    """
    ordered = np.sort(samples)
    count, tail = len(ordered), (1 - confidence) / 2
    below = binom.cdf(np.arange(count), count, quantile)  # P(at most k samples lie under the true percentile)
    low_rank = int(np.searchsorted(below, tail, side="right"))
    high_rank = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    low = float(ordered[low_rank - 1]) if low_rank >= 1 else -math.inf
    high = float(ordered[high_rank - 1]) if high_rank <= count else math.inf
    return Interval(low, high, confidence)


def samples_for_percentile(quantile: float, confidence: float = CONFIDENCE) -> int:
    """How many samples `percentile_interval` needs before its upper end is finite: `quantile ** n <= tail`."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(quantile))


def proportion_interval(successes: float, trials: float, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a proportion of independent trials; counts need not be whole (effective counts).

    Source: Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26.
    """
    if trials <= 0:
        return Interval(0.0, 1.0, confidence)
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = float(beta.ppf(tail, successes, failures + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, failures)) if failures > 0 else 1.0
    return Interval(low, high, confidence)


def clustered_proportion_interval(
    successes: NDArray[np.int64], trials: NDArray[np.int64], confidence: float = CONFIDENCE
) -> Interval:
    """Interval of a proportion whose trials come in clusters: objects of one frame succeed and fail together.

    The exact binomial interval at the effective sample size: trials divided by how much more the clusters scatter than
    independent trials would, corrected for the degrees of freedom. Never narrower than independent trials allow.

    Args:
        successes: (F,) successes in each cluster.
        trials: (F,) trials in each cluster.
        confidence: share of intervals that hold the truth.

    Source: Korn & Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24.
    """
    held = trials > 0
    clusters, total = int(held.sum()), int(trials.sum())
    if clusters < 2:
        return Interval(0.0, 1.0, confidence)
    share = float(successes.sum() / total)
    effective = _effective_trials(successes[held], trials[held], share)
    tail = (1 - confidence) / 2
    shrink = (t.ppf(tail, total - 1) / t.ppf(tail, clusters - 1)) ** 2
    kept = float(effective * shrink)
    return proportion_interval(share * kept, kept, confidence)


def simultaneous_confidence(intervals: int, confidence: float = CONFIDENCE) -> float:
    """The confidence each of several intervals needs so that all of them hold the truth at once with `confidence`.

    Source: Dunn 1961, "Multiple comparisons among means", JASA 56 (Bonferroni's inequality): whatever they depend on.
    """
    return 1 - (1 - confidence) / max(1, intervals)


def paired_loss_interval(
    lost: NDArray[np.int64], won: NDArray[np.int64], trials: NDArray[np.int64], confidence: float = CONFIDENCE
) -> Interval:
    """Interval of how much smaller a share became between two methods tried on the same things, in clusters.

    The share lost less the share won, each bounded by `clustered_proportion_interval` at half the error: a method that
    lost nothing on few things may still lose something. Wider than an interval for independent pairs; never open.

    Args:
        lost: (F,) things on which the first method succeeds and the second fails, in each cluster.
        won: (F,) the other way round.
        trials: (F,) things in each cluster.
        confidence: share of intervals that hold the truth.

    Source: the difference of marginals in McNemar 1947, "Note on the sampling error of the difference between
    correlated proportions", Psychometrika 12; joined by Bonferroni's inequality.
    """
    each = simultaneous_confidence(2, confidence)
    losses = clustered_proportion_interval(lost, trials, each)
    wins = clustered_proportion_interval(won, trials, each)
    return Interval(losses.low - wins.high, losses.high - wins.low, confidence)


def bootstrap_intervals(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    frames: int,
    confidence: float = CONFIDENCE,
    *,
    seed: int = SEED,
    lowest: float = 0.0,
) -> tuple[Interval, ...]:
    """Percentile bootstrap of shares over frames: a frame is drawn whole, since its objects belong together.

    Speaks of other frames drawn like these. Neighbouring frames of one drive resemble each other, so the interval says
    less about another drive than its width suggests. Fewer than `LEAST_FRAMES` bound nothing. Where every draw gives
    the same share, as for a model without a flaw, the draws know nothing of rarer flaws: the interval then leaves room
    for the share of flawed frames that could have stayed unseen, by the exact binomial bound.

    Args:
        statistic: takes (F,) how often each frame was drawn, answers (K,) shares; NaN among them is left out.
            For a difference between two methods it answers the difference, so that both are drawn on the same frames.
        frames: how many frames there are.
        confidence: share of intervals that hold the truth.
        seed: of the draws; the same seed gives the same intervals.
        lowest: the least a share can be: 0, or -1 for a difference of two. The most is 1.

    Returns:
        K intervals; one that the frames cannot bound is open at both ends.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; paired by frames as in chapter 8;
    for few samples Hesterberg 2015, "What teachers should know about the bootstrap", The American Statistician 69; for
    the unseen `proportion_interval`.
    """
    shares = bootstrap_shares(statistic, frames, confidence, seed=seed)
    return intervals_of_shares(shares, frames, confidence, lowest=lowest)


def bootstrap_shares(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    frames: int,
    confidence: float = CONFIDENCE,
    *,
    seed: int = SEED,
) -> NDArray[np.float64]:
    """(R, K) the shares of each draw; see `bootstrap_intervals`."""
    return np.array([statistic(draw) for draw in bootstrap_draws(frames, confidence, seed=seed)])


def bootstrap_draws(frames: int, confidence: float = CONFIDENCE, *, seed: int = SEED) -> NDArray[np.int64]:
    """(R, F) how often each draw took each frame. R grows with the confidence: a tail needs draws that lie in it."""
    generator = np.random.default_rng(seed)
    resamples = max(RESAMPLES, math.ceil(LEAST_IN_TAIL / ((1 - confidence) / 2)))
    draws = [np.bincount(generator.integers(frames, size=frames), minlength=frames) for _ in range(resamples)]
    return np.array(draws, np.int64)


def intervals_of_shares(
    shares: NDArray[np.float64], frames: int, confidence: float = CONFIDENCE, *, lowest: float = 0.0
) -> tuple[Interval, ...]:
    """The K intervals of (R, K) drawn shares; see `bootstrap_intervals`."""
    return tuple(_central(column[~np.isnan(column)], frames, confidence, lowest) for column in shares.T)


def _central(shares: NDArray[np.float64], frames: int, confidence: float, lowest: float) -> Interval:
    if len(shares) == 0 or frames < LEAST_FRAMES:
        return Interval(-math.inf, math.inf, confidence)
    tail = (1 - confidence) / 2
    low, high = (float(end) for end in np.quantile(shares, [tail, 1 - tail]))
    unseen = 1 - proportion_interval(frames, frames, confidence).low if low == high else 0.0
    return Interval(max(lowest, low - unseen), min(1.0, high + unseen), confidence)


def _effective_trials(successes: NDArray[np.int64], trials: NDArray[np.int64], share: float) -> float:
    """Trials of an independent sample that would scatter as these clusters do (ratio estimator, Taylor linearised)."""
    total, clusters = float(trials.sum()), len(trials)
    scatter = float(np.sum((successes - share * trials) ** 2)) * clusters / (clusters - 1) / total**2
    if scatter == 0.0:
        return total
    return min(total, share * (1 - share) / scatter)
