"""The tests err as often as they say, whatever the figures look like and however often they are looked at."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from safety_gates.rollout.randomization import (
    Draw,
    Rates,
    best_ratio,
    higher_rate,
    lower_rate,
    more_events,
    mostly_above,
    mostly_below,
    ratio_interval,
    spent,
)


def drawn(random, vehicles, share):
    return random.random(vehicles) < share


def rates(candidate, count, exposure=None, count_before=None):
    """Rates with equal exposures unless told otherwise."""
    exposure = np.full(len(count), 1e5) if exposure is None else exposure
    before = np.zeros(len(count)) if count_before is None else count_before
    return Rates(
        candidate, count.astype(float), exposure, before.astype(float), exposure * (before.sum() > 0), rare=True
    )


def heavy_tailed(random, vehicles, drives=10):
    """Miss rates that differ from vehicle to vehicle beyond reason, one in fifty a hundredfold."""
    usual = 1e-3 * np.exp(random.normal(0, 1.2, vehicles)) * np.where(random.random(vehicles) < 0.02, 100, 1)
    return np.minimum(usual, 0.9)


class TestSpending:
    def test_all_looks_together_spend_alpha_and_no_more(self):
        assert sum(spent(0.01, look) for look in range(1, 100_000)) == pytest.approx(0.01, rel=1e-4)

    def test_there_is_no_look_zero(self):
        with pytest.raises(ValueError, match="expected 1 or more"):
            spent(0.01, 0)


class TestEvents:
    @pytest.mark.parametrize(("hit", "events"), [(0, 0), (0, 3), (1, 1), (3, 3), (2, 10)])
    def test_p_is_the_share_of_draws_that_give_so_many_or_more(self, hit, events):
        expected = sum(hypergeom.pmf(n, 40, 8, events) for n in range(hit, events + 1))
        assert more_events(Draw(hit, 8, events - hit, 32)) == pytest.approx(expected)

    def test_two_of_two_canaries_that_crash_are_beyond_chance_and_one_is_not(self):
        assert more_events(Draw(1, 5, 0, 995)) == pytest.approx(0.005)
        assert more_events(Draw(2, 5, 0, 995)) < 3e-5


class TestRates:
    @pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
    def test_without_harm_five_percent_of_draws_reach_five_percent(self, share):
        random = np.random.default_rng(int(100 * share))
        found = []
        for _ in range(400):
            count = random.poisson(heavy_tailed(random, 400) * 1e5)
            found.append(higher_rate(rates(drawn(random, 400, share), count), 1.0))
        assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5

    def test_at_the_limit_five_percent_are_called_harmless(self):
        random = np.random.default_rng(11)
        found = []
        for _ in range(400):
            candidate, usual = drawn(random, 400, 0.2), heavy_tailed(random, 400)
            count = random.poisson(np.where(candidate, 1.75, 1) * usual * 1e4)
            found.append(lower_rate(rates(candidate, count, np.full(400, 1e4)), 1.75))
        assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5

    def test_drives_of_one_vehicle_that_share_a_fate_do_not_look_like_many_vehicles(self):
        random = np.random.default_rng(12)
        found = []
        for _ in range(300):
            fate = random.gamma(0.5, 2.0, 300)  # all of a vehicle's drives are good, or all are bad
            found.append(higher_rate(rates(drawn(random, 300, 0.1), random.poisson(100 * fate)), 1.0))
        assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5

    def test_looking_every_day_for_two_months_errs_as_rarely_as_promised(self):
        random = np.random.default_rng(13)
        false = 0
        for _ in range(150):
            candidate, usual = drawn(random, 200, 0.1), heavy_tailed(random, 200)
            total = np.zeros(200)
            for look in range(1, 61):
                total += random.poisson(usual * 1e4 * random.gamma(2, 0.5, 200))
                if higher_rate(rates(candidate, total, np.full(200, 1e4 * look)), 1.0) <= spent(0.1, look):
                    false += 1
                    break
        assert false / 150 <= 0.1 + 3 * (0.1 * 0.9 / 150) ** 0.5

    def test_what_was_before_explains_most_of_the_difference(self):
        random = np.random.default_rng(14)
        candidate, usual = np.arange(400) < 8, heavy_tailed(random, 400)
        random.shuffle(candidate)
        now = random.poisson(np.where(candidate, 2, 1) * usual * 1e5)
        before = random.poisson(usual * 1e5)
        alone, adjusted = (higher_rate(rates(candidate, now, count_before=each), 1.0) for each in (None, before))
        assert adjusted < 1e-5 < alone

    def test_the_interval_holds_the_ratio_and_the_estimate_lies_in_it(self):
        random = np.random.default_rng(15)
        candidate, usual = drawn(random, 2000, 0.3), heavy_tailed(random, 2000)
        found = rates(candidate, random.poisson(np.where(candidate, 2, 1) * usual * 1e5))
        low, high = ratio_interval(found, 0.001, 0.001)
        assert low < 2.0 < high
        assert low < best_ratio(found) < high
        assert high / low < 2

    def test_one_liar_moves_a_decision_no_further_than_one_vehicle_can(self):
        random = np.random.default_rng(16)
        candidate = np.arange(1000) < 10
        count = random.poisson(heavy_tailed(random, 1000) * 1e5)
        honest = higher_rate(rates(candidate, count), 1.0)
        count[0] = 10**9
        assert higher_rate(rates(candidate, count), 1.0) > honest / 100

    def test_nobody_and_everybody_drawn_prove_nothing(self):
        for candidate in (np.zeros(50, bool), np.ones(50, bool)):
            found = rates(candidate, np.arange(50))
            assert (higher_rate(found, 1.0), lower_rate(found, 1.0)) == (0.5, 0.5)

    def test_a_fleet_without_a_single_miss_proves_nothing_and_breaks_nothing(self):
        assert higher_rate(rates(np.arange(50) < 10, np.zeros(50)), 1.0) == 0.5


class TestLevels:
    def test_p_counts_vehicles_and_not_how_far_they_are_off(self):
        assert mostly_above(np.array([0.9] * 10), 0.1) == pytest.approx(2**-10)
        assert mostly_above(np.array([0.11] * 10), 0.1) == pytest.approx(2**-10)
        assert mostly_below(np.array([0.09] * 10), 0.1) == pytest.approx(2**-10)

    def test_a_vehicle_on_the_limit_is_above_it(self):
        assert mostly_above(np.array([0.1]), 0.1) == 0.5
        assert mostly_below(np.array([0.1]), 0.1) == 1.0

    def test_without_vehicles_nothing_is_shown(self):
        assert mostly_above(np.array([]), 0.1) == mostly_below(np.array([]), 0.1) == 1.0
