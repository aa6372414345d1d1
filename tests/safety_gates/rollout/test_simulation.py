"""A simulated fleet is the same for the same seed, and the campaign finishes what an interruption left."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perception.errors import OutputError, RolloutError
from perception.terminal import Terminal
from safety_gates.rollout.simulation.campaign import CASES, Order, campaign, case_of, simulate
from safety_gates.rollout.simulation.fleet import (
    HOURLY,
    FleetModel,
    Regression,
    SimulatedFleet,
    drawn_places,
    numbers_of,
)
from safety_gates.rollout.simulation.study import Study, runs_path, study
from safety_gates.rollout.stages import load_stages, stages_from_text
from tests.disk import room_for
from tests.safety_gates.rollout.field import STAGES

PLAN = stages_from_text(STAGES, where="stages")


def orders(case, runs, vehicles=600):
    return [Order(STAGES, case, vehicles, 1, run) for run in range(runs)]


def fleet(size=3000, **regression):
    places = drawn_places(size, 0.1, np.random.default_rng(4))
    return SimulatedFleet(places, model=FleetModel(), regression=Regression(**regression), seed=5)


def test_the_same_order_gives_the_same_rollout():
    order = orders("misses_doubled", 1)[0]
    assert simulate(order) == simulate(order)


def test_harmless_candidates_complete_and_harmful_ones_do_not():
    assert {simulate(order).ended for order in orders("none", 6)} == {"complete"}
    for case in ("misses_doubled", "crash_loop"):
        assert "complete" not in {simulate(order).ended for order in orders(case, 4)}


def test_a_crash_loop_on_the_default_stages_ends_in_the_canary():
    _, text = load_stages(None)
    runs = [simulate(Order(text, "crash_loop", 2000, 3, run)) for run in range(3)]
    assert {(run.ended, run.stage) for run in runs} == {("rolled_back", "canary")}
    assert max(run.exposure for run in runs) < 0.02


def test_the_regression_is_the_one_that_was_ordered():
    driven = fleet(misses=2.0, crash_loop=0.5)
    driven.begin(PLAN.stages[0])
    driven.drive(24)
    driven.begin(PLAN.stages[1])
    for _ in range(4):
        table = driven.drive(24)
    rates = [
        table.now["misses"][group].sum() / table.now["misses_expected"][group].sum()
        for group in (table.candidate, ~table.candidate)
    ]
    assert rates[0] / rates[1] == pytest.approx(2.0, rel=0.15)
    crashed = table.now["crashed"][table.candidate].sum() / table.now["drives"][table.candidate].sum()
    assert crashed == pytest.approx(0.5, abs=0.05)


def test_the_fleet_drives_by_day_reports_late_and_loses_little():
    driven = fleet()
    driven.begin(PLAN.stages[0])
    night = driven.drive(5).now["drives"].sum()
    day = driven.drive(12).now["drives"].sum() - night
    assert day > 8 * night
    assert HOURLY.sum() == pytest.approx(1.0)
    for _ in range(10):
        table = driven.drive(24)
    expected = 4.0 * 3000 * (driven.hours / 24)
    assert 0.9 * expected < table.now["drives"].sum() < 1.02 * expected
    assert np.std(table.now["drives"]) > 0.5 * np.mean(table.now["drives"])


class TestCampaign:
    def test_an_interrupted_campaign_goes_on_where_it_was(self, tmp_path):
        wanted, log = orders("crash_loop", 6), tmp_path / "runs.jsonl"
        whole = campaign(wanted, log=log, workers=1)
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(lines[:3]) + lines[3][:20])
        made = []
        assert campaign(wanted, log=log, workers=1, on_run=lambda: made.append(1)) == whole
        assert len(made) == 6
        assert sorted(log.read_bytes().splitlines(keepends=True)) == sorted(lines)

    def test_two_processes_give_what_one_gives(self, tmp_path):
        wanted = orders("crash_loop", 4)
        one, two = (campaign(wanted, log=tmp_path / f"{n}.jsonl", workers=n) for n in (1, 2))
        assert one == two

    def test_on_a_full_disk_finished_runs_stay(self, tmp_path):
        wanted, log = orders("crash_loop", 4), tmp_path / "runs.jsonl"
        with room_for(300), pytest.raises(OutputError, match="free space"):
            campaign(wanted, log=log, workers=1)
        kept = log.read_bytes().count(b"\n")
        assert 0 < kept < 4
        assert len(campaign(wanted, log=log, workers=1)) == 4

    def test_other_stages_and_other_seeds_do_not_mix(self, tmp_path):
        first = Study(STAGES, ("none",), (100,), 1, 1)
        others = (Study(STAGES + "# changed\n", ("none",), (100,), 1, 1), Study(STAGES, ("none",), (100,), 1, 2))
        assert len({runs_path(each, tmp_path, "none", 100) for each in (first, *others)}) == 3

    def test_a_study_writes_its_summary(self, tmp_path):
        wanted = Study(STAGES, ("none", "crash_loop"), (500,), 2, 1)
        summaries = study(wanted, tmp_path, workers=1, terminal=Terminal(quiet=True))
        written = json.loads((tmp_path / "summary.json").read_text())
        assert (
            [each["case"] for each in written["summaries"]]
            == [each.case for each in summaries]
            == ["none", "crash_loop"]
        )
        assert summaries[1].stopped == summaries[1].caught + summaries[1].held

    def test_a_regression_and_a_fleet_of_ones_own_are_what_is_simulated(self, tmp_path):
        quiet = Terminal(quiet=True)
        mild, none = (
            study(Study(STAGES, (case,), (500,), 3, 1, model), tmp_path, workers=1, terminal=quiet)[0]
            for case, model in (("misses=6,crash_loop=0.3", "drives_per_day=8"), ("misses=1", "drives_per_day=8"))
        )
        assert (mild.rolled_back, none.rolled_back) == (1.0, 0.0)
        assert case_of("misses=6,crash_loop=0.3").regression == Regression(misses=6.0, crash_loop=0.3)
        driven = SimulatedFleet(
            drawn_places(2000, 0.1, np.random.default_rng(1)),
            model=numbers_of(FleetModel, "drives_per_day=8"),
            regression=Regression(),
            seed=1,
        )
        driven.begin(PLAN.stages[0])
        driven.drive(24)
        assert driven.drive(24).now["drives"].sum() == pytest.approx(8 * 2 * 2000 * 0.85, rel=0.15)

    @pytest.mark.parametrize(
        ("case", "model", "complaint"),
        [
            ("doom", "", "--case doom: expected one of none, misses_doubled"),
            ("mises=2", "", "mises=2: expected NAME=NUMBER, 0 to 1,000,000, with a name of misses, crashes"),
            ("misses=inf", "", "misses=inf: expected NAME=NUMBER"),
            ("misses=-1", "", "misses=-1: expected NAME=NUMBER"),
            ("none", "miss_rate=high", "miss_rate=high: expected NAME=NUMBER"),
            ("none", "offline=1", "offline=1, lost=0.01; expected above 0"),
            ("none", "fate_shape=0", "got 0, expected more"),
            ("none", "drives=1", "with a name of drives_per_day"),
        ],
    )
    def test_a_word_that_is_no_case_or_number_is_refused_before_anything_is_made(
        self, tmp_path, case, model, complaint
    ):
        wanted = Study(STAGES, ("none", case), (100,), 1, 1, model)
        with pytest.raises(RolloutError, match=complaint):
            study(wanted, tmp_path / "out", workers=1, terminal=Terminal(quiet=True))
        assert not (tmp_path / "out").exists()

    def test_no_runs_is_misuse(self, tmp_path):
        with pytest.raises(RolloutError, match="expected at least 1"):
            study(Study(STAGES, ("none",), (100,), 0, 1), tmp_path, workers=1, terminal=Terminal(quiet=True))


def test_every_case_says_what_is_wrong():
    assert all(case.says for case in CASES.values())
