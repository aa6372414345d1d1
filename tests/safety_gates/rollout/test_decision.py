"""A look rolls back what is shown to do harm, advances what is shown harmless after its soak, and holds the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest

from perception.errors import RolloutError
from safety_gates.rollout.decision import Look, Outcome, json_of, judge_stage
from safety_gates.rollout.quantities import COLUMNS, VehicleTable
from safety_gates.rollout.stages import load_stages, stages_from_text
from tests.safety_gates.rollout.field import STAGES

PLAN = stages_from_text(STAGES, where="stages")
STAGE = PLAN.stage("30 %")
SOAKED = Look(1, 0, 24.0)


def table(vehicles=400, drawn=0.3, **candidates):
    """Vehicles alike before; `candidates` are factors on the candidate's columns, or values where control has 0."""
    random = np.random.default_rng(3)
    candidate = random.random(vehicles) < drawn
    usual = 1e-3 * np.exp(random.normal(0, 0.8, vehicles))
    now, before = ({name: np.zeros(vehicles) for name in COLUMNS} for _ in range(2))
    for period in (now, before):
        period["drives"][:] = 10
        period["frames"][:] = 1e5
        period["misses"] = random.poisson(usual * 1e5).astype(float)
        period["misses_expected"][:] = 100
        period["output_drift"] = random.uniform(0.1, 0.3, vehicles)
        period["output_expected"][:] = 0.2
    for name, value in candidates.items():
        now[name] = np.where(candidate, now[name] * value if now[name].any() else value, now[name])
    return VehicleTable(candidate, now, before)


def judged(at=SOAKED, stage=STAGE, **changes):
    return judge_stage(PLAN, stage, table(**changes), at=at)


def test_a_harmless_candidate_that_soaked_advances():
    found = judged()
    assert found.outcome is Outcome.ADVANCE
    assert "all 4 criteria" in found.reason


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({"misses": 2.0}, "deadline_misses"),
        ({"output_drift": 2.0}, "output_drift"),
        ({"crashed": 1.0}, "crashes"),
        ({"silent": 1.0}, "silence"),
    ],
)
def test_each_criterion_rolls_back_on_its_own_harm_soaked_or_not(changes, blamed):
    for at in (SOAKED, Look(1, 0, 1.0)):
        found = judged(at, **changes)
        assert found.outcome is Outcome.ROLLBACK
        assert [each.quantity for each in found.findings if each.outcome is Outcome.ROLLBACK] == [blamed]
        assert blamed in found.reason


def test_a_shadow_that_disagrees_in_most_vehicles_rolls_back():
    shadow = PLAN.stage("shadow")
    assert judged(stage=shadow, compared=1000.0, disagreed=150.0).outcome is Outcome.ADVANCE
    found = judged(stage=shadow, compared=1000.0, disagreed=250.0)
    assert found.outcome is Outcome.ROLLBACK
    assert "shadow_disagreement: 0.25 in the median vehicle, shown to be above 0.2" in found.reason


@pytest.mark.parametrize(
    ("stage", "changes", "quantity"),
    [
        ("30 %", {"output_drift": 0.0, "output_expected": 0.0}, "output_drift"),
        ("shadow", {"compared": 0.0}, "shadow_disagreement"),
    ],
)
def test_what_nobody_reported_holds_and_says_so(stage, changes, quantity):
    found = judged(stage=PLAN.stage(stage), **changes)
    assert found.outcome is Outcome.HOLD
    assert f"{quantity}: not reported by enough vehicles, not yet shown to be below" in found.reason


def test_better_than_control_is_no_harm():
    assert judged(misses=0.3, output_drift=0.5).outcome is Outcome.ADVANCE


@pytest.mark.parametrize(
    ("at", "changes", "missing"),
    [
        (Look(1, 0, 23.9), {}, "24 of 24 hours"),
        (SOAKED, {"drives": 0.0}, "0 of 5 vehicles"),
        (SOAKED, {"vehicles": 12, "drawn": 0.2}, "control vehicles"),
    ],
)
def test_before_it_has_soaked_a_stage_holds_and_says_what_is_missing(at, changes, missing):
    found = judged(at, **changes)
    assert found.outcome is Outcome.HOLD
    assert not found.soaked
    assert missing in found.reason


def test_too_few_vehicles_to_exclude_the_limit_hold():
    found = judged(vehicles=60, drawn=0.1, misses=1.3, at=Look(9, 8, 240.0))
    assert found.outcome is Outcome.HOLD
    assert "deadline_misses" in found.reason
    assert "not yet shown to be below 1.75" in found.reason


def test_one_crash_among_few_canaries_waits_for_a_person():
    few = table(vehicles=300, drawn=0.02)
    few.now["crashed"][np.flatnonzero(few.candidate)[0]] = 1.0
    found = judge_stage(PLAN, STAGE, few, at=SOAKED)
    assert found.outcome is Outcome.HOLD
    assert "crashes: 1 of 6 vehicles against 0 of 294 control" in found.reason
    assert "suspicious" in found.reason


def test_a_vehicle_in_a_loop_is_more_than_one_crash():
    plan, _ = load_stages(None)
    few = table(vehicles=1000, drawn=0.004)
    looping = np.flatnonzero(few.candidate)[:3]
    few.now["crashed"][looping] = 8.0
    few.now["crashed"][np.flatnonzero(~few.candidate)[:60]] = 1.0  # control crashes too, now and then
    found = judge_stage(plan, plan.stage("canary"), few, at=Look(2, 0, 24.0))
    assert [each.quantity for each in found.findings if each.outcome is Outcome.ROLLBACK] == ["crash_loops"]


def test_later_looks_ask_for_more():
    early, late = (judged(Look(number, number - 1, 24.0)).findings[2] for number in (1, 20))
    assert late.alpha == pytest.approx(early.alpha / 210)
    assert late.beta == pytest.approx(early.beta / 210)
    assert late.low < early.low < early.high < late.high


def test_a_judgement_survives_json_open_ends_too():
    document = json_of(judged(drawn=0.0))
    assert json.loads(json.dumps(document, allow_nan=False)) == document


class TestStageFile:
    def test_the_default_stages_are_those_the_project_promises(self):
        plan, _ = load_stages(None)
        assert [stage.name for stage in plan.stages] == ["shadow", "canary", "1 %", "10 %", "50 %", "100 %"]
        assert plan.false_rollback == 0.01

    @pytest.mark.parametrize(
        ("old", "new", "complaint"),
        [
            ("share: 0.3,", "share: 0.0, shadow: 0.1,", None),
            ("share: 0.3,", "share: 0.3, shadow: 0.1,", "candidates and shadows"),
            ("share: 1.0", "share: 0.2", "expected them to grow"),
            ("holdout: 0.1", "holdout: 0.0", "what the candidate is compared with"),
            ("quantity: silence", "quantity: crashes", "expected every name once"),
            ("quantity: silence", "quantity: weather", "expected one of crashes"),
            ("limit: 1.75", "limit: 1.05", "expected at least its harm"),
            ("quantity: silence,", "quantity: silence, limit: 2,", "expected neither harm nor limit"),
            ("false_rollback: 0.01", "false_rollback: 0", "greater than 0"),
            ("look_every_h: 24, soak", "look_every_h: 0, soak", "greater than 0"),
            ("shadow: 0.3,", "shadow: 0.3, least: 5,", "got share 0 and at least 5 vehicles"),
            ("holdout: 0.1", "holdout: 1.0", "less than 1"),
            ("name: 30 %,", "name: 30 %, limits: {silence: 3},", "expected one of deadline_misses"),
            ("name: 30 %,", "name: 30 %, limits: {deadline_misses: 1},", "with at least its harm"),
        ],
    )
    def test_a_stage_file_that_contradicts_itself_is_refused_in_one_line(self, old, new, complaint):
        text = STAGES.replace(old, new, 1)
        assert text != STAGES
        if complaint is None:
            stages_from_text(text, where="stages")
            return
        with pytest.raises(RolloutError, match=complaint) as refused:
            stages_from_text(text, where="stages")
        assert "\n" not in str(refused.value)

    def test_a_stage_may_have_a_limit_of_its_own(self):
        text = STAGES.replace("name: 30 %,", "name: 30 %, limits: {deadline_misses: 4.0},")
        plan = stages_from_text(text, where="stages")
        limits = {each.quantity: each.limit for each in plan.criteria_of(plan.stage("30 %"))}
        assert limits["deadline_misses"] == 4.0
        assert PLAN.criteria_of(STAGE)[2].limit == 1.75

    @pytest.mark.parametrize(
        ("vehicles", "shares"),
        [
            (1_000_000, [0.0, 0.008, 0.01, 0.1, 0.5, 1.0]),
            (10_000, [0.0, 0.008, 0.01, 0.1, 0.5, 1.0]),
            (1_000, [0.0, 15 / 950, 30 / 950, 0.1, 0.5, 1.0]),
            (100, [0.0, 15 / 95, 30 / 95, 30 / 95, 0.5, 1.0]),
            (10, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ],
    )
    def test_in_a_small_fleet_a_stage_has_its_least_vehicles_and_no_stage_fewer_than_the_one_before(
        self, vehicles, shares
    ):
        plan, _ = load_stages(None)
        assert [stage.share for stage in plan.for_fleet(vehicles).stages] == pytest.approx(shares)

    def test_a_file_that_is_not_there_is_told(self, tmp_path):
        with pytest.raises(RolloutError, match="no readable stage file"):
            load_stages(tmp_path / "stages.yaml")
