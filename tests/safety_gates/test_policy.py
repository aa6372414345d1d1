"""A policy that asks for nothing, for the unknown or in the wrong unit is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hw_profiles.profile import load_profile
from perception.errors import PolicyError
from safety_gates.gates.table import GATES
from safety_gates.policy import Policy, load_policy

LIMIT = {
    "claim": "latency.deadline",
    "gate": "latency",
    "quantity": "total_p99",
    "comparison": "at_most",
    "limit": 33.3,
    "unit": "ms",
    "why": "late is lost",
    "source": "a test",
    "owner": "tests",
}


def _yaml(*limits):
    return yaml.safe_dump({"format": "tollgate-policy/1", "name": "of a test", "limits": list(limits)})


def _refused(text, match):
    with pytest.raises(PolicyError, match=match) as refusal:
        Policy.from_yaml(text, where="policy.yaml")
    assert "\n" not in str(refusal.value)


def test_a_policy_is_read_and_resolved():
    policy = Policy.from_yaml(_yaml(LIMIT), where="policy.yaml")
    (requirement,) = policy.requirements(load_profile("x86_cpu"), "detection")
    assert (requirement.claim, requirement.limit, requirement.unit) == ("latency.deadline", 33.3, "ms")


def test_a_limit_may_be_a_number_of_the_profile():
    profile = load_profile("x86_cpu")
    policy = Policy.from_yaml(_yaml({**LIMIT, "limit": "profile.deadline_ms"}), where="policy.yaml")
    assert policy.requirements(profile, "detection")[0].limit == profile.deadline_ms


def test_the_default_policy_can_be_used_as_it_is():
    policy, profile = load_policy(None), load_profile("x86_cpu")
    assert {limit.gate for limit in policy.limits} == set(GATES)
    for task, only in (("detection", "accuracy.ap50"), ("segmentation", "accuracy.miou")):
        claims = {requirement.claim for requirement in policy.requirements(profile, task)}
        assert only in claims
        assert claims | set(policy.left_out(task)) == {limit.claim for limit in policy.limits}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gate": "vibes"}, "claim latency.deadline: gate 'vibes' is unknown, expected one of accuracy, regression"),
        ({"quantity": "p101"}, "gate latency has no quantity 'p101', expected one of total_p50"),
        ({"unit": "s"}, "got unit 's', total_p99 is in 'ms'"),
        ({"comparison": "at_least"}, "a limit on total_p99 is at_most"),
        ({"limit": "profile.colour"}, "got limit 'profile.colour', expected a number or one of profile.deadline_ms"),
        ({"limit": float("nan")}, "got limit nan, expected a finite number of ms"),
        ({"limit": float("inf")}, "got limit inf, expected a finite number of ms"),
        ({"limit": True}, "limits.0.limit"),
        ({"why": ""}, "limits.0.why"),
        ({"claim": "Bad Name"}, "limits.0.claim"),
        ({"colour": "red"}, "limits.0.colour: is no field here"),
    ],
)
def test_a_limit_that_cannot_be_judged_is_refused(change, match):
    _refused(_yaml({**LIMIT, **change}), match)


def test_a_profile_number_of_another_unit_is_refused():
    ratio = {**LIMIT, "quantity": "missed", "unit": "ratio", "limit": "profile.deadline_ms"}
    _refused(_yaml(ratio), "profile.deadline_ms is in 'ms', the claim is in 'ratio'")


@pytest.mark.parametrize(
    ("measuring", "match"),
    [
        ({"vibes": {"pictures": 3}}, "measuring: gate 'vibes' is unknown"),
        ({"robustness": {"colour": 3}}, "gate robustness has no setting 'colour', expected one of pictures"),
        ({"parity": {"pictures": 3}}, "gate parity has no setting 'pictures', expected none"),
        ({"robustness": {"pictures": "many"}}, "measuring.robustness.pictures"),
        ({"robustness": {"pictures": 0}}, "measuring.robustness.pictures"),
        ({"robustness": {"pictures": float("inf")}}, "robustness.pictures is inf, expected a finite number"),
    ],
)
def test_a_setting_that_no_gate_has_is_refused(measuring, match):
    text = yaml.safe_dump({**yaml.safe_load(_yaml(LIMIT)), "measuring": measuring})
    _refused(text, match)


def test_an_empty_policy_is_refused():
    _refused(_yaml(), "has no limit, expected at least one")


def test_a_claim_named_twice_is_refused():
    _refused(_yaml(LIMIT, LIMIT), "claim latency.deadline stands twice")


@pytest.mark.parametrize("field", sorted(LIMIT))
def test_a_limit_without_one_of_its_fields_is_refused(field):
    _refused(_yaml({name: value for name, value in LIMIT.items() if name != field}), f"limits.0.{field}: is missing")


@pytest.mark.parametrize("text", ["[", "just words", "[1, 2]", "{}"])
def test_what_is_no_policy_is_refused(text):
    _refused(text, r"policy\.yaml: ")


def test_a_policy_without_a_limit_for_this_kind_of_model_is_refused():
    accuracy = {
        **LIMIT,
        "gate": "accuracy",
        "quantity": "miou",
        "comparison": "at_least",
        "limit": 0.5,
        "unit": "ratio",
    }
    policy = Policy.from_yaml(_yaml(accuracy), where="policy.yaml")
    with pytest.raises(PolicyError, match="no limit applies to a detection model"):
        policy.requirements(load_profile("x86_cpu"), "detection")


def test_a_missing_policy_file_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="no readable policy"):
        load_policy(Path(tmp_path) / "none.yaml")
