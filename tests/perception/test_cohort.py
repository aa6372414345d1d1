"""A vehicle's place in a rollout is sticky, nested and drawn evenly."""

from __future__ import annotations

import json

import pytest

from perception.cohort import RolloutPlan, assignment, place
from perception.errors import RolloutError

STAGES = [
    {"name": "shadow", "share": 0.0, "shadow": 0.2},
    {"name": "1 %", "share": 0.01},
    {"name": "10 %", "share": 0.1},
    {"name": "100 %", "share": 1.0},
]
PLACE = 0.3262068590251257
FLEET = [f"vehicle-{number:05d}" for number in range(6_000)]


def plan(**changes):
    fields = {
        "format": "tollgate-rollout/1",
        "rollout": "november",
        "salt": "00112233445566778899aabbccddeeff",
        "serial": 0,
        "state": "rolling",
        "stage": "shadow",
        "stages": STAGES,
        "holdout": 0.05,
        "candidate": {"name": "detector 2", "sha256": "b" * 64},
        "control": {"name": "detector 1", "sha256": "a" * 64},
    }
    return RolloutPlan.from_bytes(json.dumps(fields | changes).encode())


def role_of(stage, **changes):
    chosen = plan(stage=stage, **changes)
    return {vehicle: assignment(chosen, vehicle).role for vehicle in FLEET}


def having(roles, role):
    return {vehicle for vehicle, its in roles.items() if its == role}


def test_a_vehicle_in_1_percent_stays_in_at_10_and_100():
    small, large, all_ = (having(role_of(stage), "candidate") for stage in ("1 %", "10 %", "100 %"))
    assert small < large < all_
    assert len(all_) == len(FLEET) - len(having(role_of("100 %"), "holdout"))


@pytest.mark.parametrize(("stage", "share"), [("1 %", 0.01), ("10 %", 0.1)])
def test_the_share_is_met_within_its_scatter(stage, share):
    expected = share * 0.95 * len(FLEET)
    assert abs(len(having(role_of(stage), "candidate")) - expected) < 4 * expected**0.5


def test_the_hold_out_keeps_control_in_every_stage():
    groups = [having(role_of(stage["name"]), "holdout") for stage in STAGES]
    assert all(group == groups[0] for group in groups)
    assert abs(len(groups[0]) - 300) < 4 * 300**0.5
    assert assignment(plan(stage="100 %"), min(groups[0])).release.name == "detector 1"


def test_shadow_drives_control_and_carries_the_candidate_beside_it():
    roles = role_of("shadow")
    assert having(roles, "candidate") == set()
    given = assignment(plan(), min(having(roles, "shadow")))
    assert (given.release.name, given.shadow.name) == ("detector 1", "detector 2")
    assert assignment(plan(stage="1 %"), min(having(role_of("1 %"), "candidate"))).shadow is None


def test_shadow_is_drawn_independently_of_the_candidates():
    candidates = having(role_of("10 %"), "candidate")
    in_shadow = candidates & having(role_of("shadow"), "shadow")
    assert abs(len(in_shadow) / len(candidates) - 0.2) < 0.07


def test_after_a_rollback_everyone_is_control():
    assert set(role_of("10 %", state="rolled_back").values()) == {"control"}


def test_another_salt_draws_other_vehicles():
    first, second = (having(role_of("10 %", salt=salt), "candidate") for salt in ("aa" * 16, "bb" * 16))
    assert 0.04 < len(first & second) / len(first) < 0.16


def test_the_place_is_the_one_every_later_version_must_give():
    assert place("00112233445566778899aabbccddeeff", "vehicle-00000", "share") == PLACE


def test_a_plan_survives_its_bytes_and_ignores_fields_of_newer_factories():
    original = plan()
    assert RolloutPlan.from_bytes(original.to_bytes()) == original
    assert plan(weather="sunny") == original


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stage": "50 %"}, "expected one of shadow, 1 %, 10 %, 100 %"),
        ({"stages": [STAGES[2], STAGES[1]], "stage": "1 %"}, "share shrinks from 0.1 to 0.01"),
        ({"stages": [STAGES[1], STAGES[1]], "stage": "1 %"}, "expected every name once"),
        ({"stages": []}, "at least 1 item"),
        ({"holdout": 1.5}, "less than or equal to 1"),
        ({"salt": "short"}, "salt"),
        ({"candidate": {"name": "x", "sha256": "a" * 64}}, "is the control release"),
        ({"format": "tollgate-rollout/2"}, "tollgate-rollout/1"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes, complaint):
    with pytest.raises(RolloutError, match=complaint):
        plan(**changes)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe", b'{"format": "tollgate-rollout/1"}', plan().to_bytes()[:-20]]
)
def test_bytes_that_are_no_plan_are_refused_in_one_line(content):
    with pytest.raises(RolloutError, match="no rollout plan") as refused:
        RolloutPlan.from_bytes(content)
    assert "\n" not in str(refused.value)


def test_an_empty_id_is_misuse():
    with pytest.raises(ValueError, match="expected the id of a vehicle"):
        assignment(plan(stage="10 %"), "")
