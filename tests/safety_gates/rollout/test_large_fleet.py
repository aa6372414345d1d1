"""A fleet drawn as counts of groups reports what one that is driven vehicle by vehicle reports, in distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from safety_gates.rollout.quantities import QUANTITIES
from safety_gates.rollout.simulation.campaign import MOST_ONE_BY_ONE, Order, simulate
from safety_gates.rollout.simulation.fleet import FleetModel, Regression, SimulatedFleet, drawn_places
from safety_gates.rollout.simulation.large import LargeFleet
from safety_gates.rollout.stages import load_stages, stages_from_text
from tests.safety_gates.rollout.field import STAGES

PLAN = stages_from_text(STAGES, where="stages")
SIZE, FLEETS = 3_000, 120
PANEL = "of the panel"  # right on average, scattered more
# Events often enough for their whole distribution to show, not only whether there was one.
MODEL = FleetModel(crash_rate=5e-3, fault_rate=2e-2, offline=0.3, lost=0.05)
WORSE = Regression(misses=1.2, crashes=2.0, faults=0.5, crash_loop=0.01, disagreement=1.5)


def one_by_one(seed):
    places = drawn_places(SIZE, PLAN.holdout, np.random.default_rng(seed))
    return SimulatedFleet(places, model=MODEL, regression=WORSE, seed=seed)


def as_counts(seed, model=MODEL):
    return LargeFleet(SIZE, model=model, regression=WORSE, plan=PLAN, seed=seed, panel=400)


def told(fleet):
    """What decisions read of two looks at each stage: figures by stage, look and name."""
    figures = {}
    for stage in PLAN.stages:
        fleet.begin(stage)
        for look in (1, 2):
            reports, where = fleet.drive(12), f"{stage.name}, look {look}"
            for name in ("crashes", "faults", "silence"):
                draw = reports.events(QUANTITIES[name])
                figures[where, name, "hit"], figures[where, name, "of"] = draw.hit, draw.drawn
                figures[where, name, "hit control"] = draw.hit_control
            evidence = reports.evidence(12.0 * look)
            for name in ("vehicles", "controls", "silent"):
                figures[where, name, ""] = getattr(evidence, name)
            for name in ("drives", "control_drives"):
                figures[where, name, PANEL] = getattr(evidence, name)
            figures[where, "misses", PANEL] = ratio_of(reports.rates(QUANTITIES["deadline_misses"]))
            if stage.shadow:
                figures[where, "disagreement", PANEL] = np.median(reports.levels(QUANTITIES["shadow_disagreement"]))
            figures[where, "exposure", ""] = fleet.exposure
    return figures


def ratio_of(rates):
    """Pooled rate of candidates to control's; 1 before anybody has the candidate."""
    if not rates.candidate.any():
        return 1.0
    one, other = (
        rates.count[group].sum() / rates.exposure[group].sum() for group in (rates.candidate, ~rates.candidate)
    )
    return one / other


@pytest.fixture(scope="module")
def both():
    return [[told(make(seed)) for seed in range(FLEETS)] for make in (one_by_one, as_counts)]


def test_every_figure_of_every_look_has_the_same_distribution(both):
    """Kolmogorov-Smirnov: some 90 figures, so that 1e-5 each is one false alarm in a thousand."""
    singles, counts = both
    assert singles[0].keys() == counts[0].keys()
    assert len(singles[0]) > 80
    for name in singles[0]:
        one, many = (np.array([figures[name] for figures in side], float) for side in both)
        if name[2] == PANEL:
            assert abs(one.mean() - many.mean()) <= 4.5 * np.hypot(one.std(), many.std()) / FLEETS**0.5, name
        else:
            assert ks_2samp(one, many).pvalue > 1e-5, (name, one.mean(), many.mean())


@pytest.mark.parametrize("change", [{"crash_rate": 7e-3}, {"offline": 0.4}])
def test_a_fleet_that_is_a_little_different_is_told_apart(both, change):
    others = [told(as_counts(seed, replace(MODEL, **change))) for seed in range(FLEETS)]
    figures = [name for name in others[0] if name[2] != PANEL]
    least = min(ks_2samp([f[name] for f in both[0]], [f[name] for f in others]).pvalue for name in figures)
    assert least < 1e-8


def test_larger_fleets_than_are_driven_one_by_one_end_as_those_do():
    _, text = load_stages(None)
    for case, ended in (("none", "complete"), ("crash_loop", "rolled_back")):
        run = simulate(Order(text, case, 100 * MOST_ONE_BY_ONE, 3, 1))
        assert run.ended == ended
        assert run == simulate(Order(text, case, 100 * MOST_ONE_BY_ONE, 3, 1))
    assert (run.stage, run.exposure < 0.01) == ("canary", True)
