"""Intervals cover what they claim: simulated, with the tolerance of the simulation stated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from safety_gates.statistics import (
    LEAST_FRAMES,
    bootstrap_draws,
    bootstrap_intervals,
    clustered_proportion_interval,
    paired_loss_interval,
    percentile,
    percentile_interval,
    proportion_interval,
    samples_for_percentile,
    simultaneous_confidence,
)

REPETITIONS = 600
# Three standard errors of a coverage of 0.95 estimated from REPETITIONS simulations.
MONTE_CARLO = 3 * math.sqrt(0.95 * 0.05 / REPETITIONS)


def _coverage(holds):
    return sum(holds) / len(holds)


def test_a_percentile_is_an_observed_value():
    samples = np.array([4.0, 1.0, 3.0, 2.0])
    assert percentile(samples, 0.5) == 2.0
    assert percentile(samples, 0.51) == 3.0
    assert percentile(samples, 1.0) == 4.0
    assert math.isnan(percentile(np.array([]), 0.5))


@pytest.mark.parametrize(("quantile", "needed"), [(0.5, 6), (0.99, 368), (0.999, 3688)])
def test_the_upper_end_of_a_percentile_is_finite_from_the_stated_sample_count_on(quantile, needed):
    assert samples_for_percentile(quantile) == needed
    assert math.isinf(percentile_interval(np.arange(needed - 1.0), quantile).high)
    assert math.isfinite(percentile_interval(np.arange(float(needed)), quantile).high)


def test_without_samples_nothing_bounds_a_percentile():
    interval = percentile_interval(np.array([]), 0.99)
    assert (interval.low, interval.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 31), (0.9, 200), (0.99, 500)])
def test_percentile_intervals_hold_the_true_percentile_as_often_as_they_say(quantile, count):
    generator = np.random.default_rng(1)
    truth = math.exp(-math.log(1 / quantile - 1))  # of the log-logistic distribution
    holds = []
    for _ in range(REPETITIONS):
        samples = np.exp(generator.logistic(size=count))
        interval = percentile_interval(samples, quantile)
        holds.append(interval.low <= truth <= interval.high)
    assert _coverage(holds) >= 0.95 - MONTE_CARLO


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"), [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (8, 10, 0.4439, 0.9748)]
)
def test_proportion_intervals_match_published_tables(successes, trials, low, high):
    interval = proportion_interval(successes, trials)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def test_without_trials_a_proportion_is_anything():
    interval = proportion_interval(0, 0)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_one_cluster_says_nothing_about_the_others():
    interval = clustered_proportion_interval(np.array([9, 0]), np.array([9, 0]))
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_clusters_without_a_failure_still_leave_doubt():
    interval = clustered_proportion_interval(np.full(20, 5), np.full(20, 5))
    assert interval.high == 1.0
    assert 0.95 < interval.low < 0.97  # independent: 0.964, less for the degrees of freedom


@pytest.mark.parametrize("correlated", [False, True])
def test_clustered_proportions_hold_the_truth_where_objects_of_a_frame_fail_together(correlated):
    generator = np.random.default_rng(2)
    holds, naive = [], []
    for _ in range(REPETITIONS):
        trials = generator.integers(1, 12, size=80)
        chance = generator.beta(4.5, 0.5, size=80) if correlated else np.full(80, 0.9)
        successes = generator.binomial(trials, chance)
        clustered = clustered_proportion_interval(successes, trials)
        plain = proportion_interval(successes.sum(), trials.sum())
        holds.append(clustered.low <= 0.9 <= clustered.high)
        naive.append(plain.low <= 0.9 <= plain.high)
    assert _coverage(holds) >= 0.95 - MONTE_CARLO
    if correlated:
        assert _coverage(naive) < 0.9  # the plant: what the clusters would hide


def test_the_bootstrap_holds_a_ratio_over_frames_nearly_as_often_as_it_says():
    """The percentile bootstrap is approximate: of 80 frames about 94 % of its intervals hold the truth."""
    generator = np.random.default_rng(3)
    holds = []
    for repetition in range(REPETITIONS // 3):
        trials = generator.integers(1, 12, size=80)
        successes = generator.binomial(trials, generator.beta(4.5, 0.5, size=80))
        (interval,) = bootstrap_intervals(
            lambda drawn, s=successes, t=trials: np.array([drawn @ s / (drawn @ t)]), 80, seed=repetition
        )
        holds.append(interval.low <= 0.9 <= interval.high)
    assert _coverage(holds) >= 0.94 - 3 * math.sqrt(0.94 * 0.06 / (REPETITIONS // 3))


def test_the_bootstrap_leaves_room_for_flaws_that_no_frame_showed():
    """Of 60 frames one in a hundred is flawed: more than half of the samples show none."""
    generator = np.random.default_rng(4)
    holds = []
    for repetition in range(REPETITIONS // 3):
        right = generator.binomial(1, 0.99, size=60)
        (interval,) = bootstrap_intervals(lambda drawn, r=right: np.array([drawn @ r / 60]), 60, seed=repetition)
        holds.append(interval.low <= 0.99 <= interval.high)
    assert _coverage(holds) >= 0.94 - 3 * math.sqrt(0.94 * 0.06 / (REPETITIONS // 3))


def test_equal_draws_are_bounded_as_the_binomial_of_all_frames():
    unseen = 1 - 0.025 ** (1 / 89)
    for share, low, high in ((1.0, 1 - unseen, 1.0), (0.0, 0.0, unseen), (0.5, 0.5 - unseen, 0.5 + unseen)):
        (interval,) = bootstrap_intervals(lambda _, s=share: np.array([s]), 89)
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_a_handful_of_frames_bounds_nothing():
    for frames, bounded in ((LEAST_FRAMES - 1, False), (LEAST_FRAMES, True)):
        (interval,) = bootstrap_intervals(lambda drawn: np.array([drawn[0] / drawn.sum()]), frames)
        assert math.isfinite(interval.low) is bounded


def test_the_bootstrap_is_repeatable_and_leaves_undefined_draws_out():
    def shares(draw):
        return np.array([draw[0] / draw[:2].sum() if draw[:2].sum() else math.nan, math.nan])

    assert bootstrap_intervals(shares, 40) == bootstrap_intervals(shares, 40)
    some, nothing = bootstrap_intervals(shares, 40)
    assert (some.low, some.high) == (0.0, 1.0)
    assert (nothing.low, nothing.high) == (-math.inf, math.inf)


def test_intervals_of_several_parts_hold_all_at_once():
    """Ten slices, each by itself right 95 times in 100, would hold together in 60."""
    generator = np.random.default_rng(5)
    truths = np.linspace(0.5, 0.95, 10)
    together, alone = [], []
    for _ in range(REPETITIONS):
        found = generator.binomial(80, truths)
        for confidence, holds in ((simultaneous_confidence(10), together), (0.95, alone)):
            intervals = [proportion_interval(count, 80, confidence) for count in found]
            holds.append(all(i.low <= truth <= i.high for i, truth in zip(intervals, truths, strict=True)))
    assert _coverage(together) >= 0.95 - MONTE_CARLO
    assert _coverage(alone) < 0.9  # the plant: what looking at ten slices would hide


@pytest.mark.parametrize(("lost", "won"), [(0.06, 0.02), (0.0, 0.0), (0.01, 0.01)])
def test_paired_losses_hold_the_truth_where_objects_of_a_frame_are_lost_together(lost, won):
    generator = np.random.default_rng(6)
    holds = []
    for _ in range(REPETITIONS // 2):
        trials = generator.integers(1, 9, size=60)
        chances = [generator.beta(share * 8, (1 - share) * 8, 60) if share else np.zeros(60) for share in (lost, won)]
        losses, wins = (generator.binomial(trials, chance) for chance in chances)
        interval = paired_loss_interval(losses, wins, trials)
        holds.append(interval.low <= lost - won <= interval.high)
    assert _coverage(holds) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / (REPETITIONS // 2))


def test_the_paired_bootstrap_holds_a_difference_that_two_separate_intervals_could_not_show():
    """Two engines on the same 80 frames, hard and easy ones: what is drawn for one is drawn for the other."""
    generator = np.random.default_rng(7)
    holds, widths, separate = [], [], []
    for repetition in range(REPETITIONS // 4):
        trials = generator.integers(2, 9, size=80)
        hard = generator.beta(4, 1, size=80)
        theirs = generator.binomial(trials, hard)
        ours = theirs - generator.binomial(theirs, 0.05)
        statistics = [lambda drawn, s=side, t=trials: drawn @ s / (drawn @ t) for side in (theirs, ours)]
        (interval,) = bootstrap_intervals(
            lambda drawn, s=statistics: np.array([s[0](drawn) - s[1](drawn)]), 80, seed=repetition, lowest=-1.0
        )
        each = [
            bootstrap_intervals(lambda d, one=one: np.array([one(d)]), 80, seed=repetition)[0] for one in statistics
        ]
        holds.append(interval.low <= 0.05 * 0.8 <= interval.high)
        widths.append(interval.high - interval.low)
        separate.append(each[0].high - each[1].low - (each[0].low - each[1].high))
    assert _coverage(holds) >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / (REPETITIONS // 4))
    assert np.median(widths) < np.median(separate) / 2


def test_tails_that_are_asked_for_hold_draws():
    assert len(bootstrap_draws(40)) == 1000
    assert len(bootstrap_draws(40, simultaneous_confidence(20))) >= 4000
    assert (bootstrap_draws(40).sum(axis=1) == 40).all()
