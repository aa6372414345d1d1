"""Plans in a repository: every profile rolls by itself, and of one profile one rollout at a time."""

from __future__ import annotations

import pytest

from perception.agent.index import rollout_name
from perception.agent.wanted import Vehicle
from perception.errors import RolloutError
from safety_gates.publishing.repository import read_target
from safety_gates.rollout.moving import command
from safety_gates.rollout.publication import published_release, publisher, refuse_misfits
from safety_gates.rollout.rollout import Beginning, publish, start
from tests.perception.agent.fleet import Road, Works, served
from tests.perception.builders import null_package
from tests.perception.fleet import NOW_NS, new_key
from tests.safety_gates.rollout.field import STAGES

ONE, OTHER = "x86_cpu", "x86_other"
STAGES = STAGES.replace("holdout: 0.1", "holdout: 0.000001")


@pytest.fixture
def works(tmp_path):
    return Works.founded(tmp_path / "works")


@pytest.fixture
def key():
    return new_key()


def two_releases(works, profile):
    """Control, which is offered, and candidate."""
    indexes = []
    for number in (1, 2):
        folder = works.folder / f"{profile}-{number}"
        works.factory.package_at(
            folder, lambda package, n=number: null_package(package, service_ms=0.1 * n, profile=profile)
        )
        indexes.append(works.publish_folder(folder, offer=number == 1))
    return [index.name for index in indexes]


def begun(works, name, releases, key):
    """A rollout that has begun and is published."""
    control, candidate = (published_release(works.repository, each) for each in releases)
    refuse_misfits(works.repository, candidate, control)
    rollout = start(works.folder / name, Beginning(name, STAGES, candidate, control), key, now_ns=NOW_NS)
    publish(rollout, publisher(works.repository, works.keyring))
    return rollout


def moved(works, rollout, key, *actions):
    """By hand, published after each step."""
    for action in actions:
        rollout = command(rollout, action, "by hand", key, now_ns=NOW_NS + 10**9)
        publish(rollout, publisher(works.repository, works.keyring))
    return rollout


def published_plan(works, profile):
    return read_target(works.repository, works.state, rollout_name(profile))


def test_two_profiles_roll_at_once_and_neither_moves_the_other(works, key, tmp_path):
    releases = {profile: two_releases(works, profile) for profile in (ONE, OTHER)}
    with served(works.repository) as url:
        roads = {profile: Road(tmp_path / profile, works, url) for profile in releases}
        for profile, road in roads.items():
            road.vehicle = Vehicle("V1", profile)
            road.commit()
        rollouts = {profile: begun(works, f"of {profile}", releases[profile], key) for profile in releases}
        advanced = moved(works, rollouts[ONE], key, "advance", "advance")
        roads[ONE].commit()
        roads[OTHER].update()
        assert [roads[each].release for each in (ONE, OTHER)] == [releases[ONE][1], releases[OTHER][0]]
        before = published_plan(works, OTHER)
        moved(works, advanced, key, "rollback")
        for road in roads.values():
            road.update()
        assert [roads[each].release for each in (ONE, OTHER)] == [releases[ONE][0], releases[OTHER][0]]
        assert published_plan(works, OTHER) == before


def test_a_second_rollout_of_a_profile_waits_until_the_first_is_over(works, key):
    releases = two_releases(works, ONE)
    first = begun(works, "first", releases, key)
    version = works.state.version
    with pytest.raises(RolloutError, match=r"rollouts/x86_cpu\.json: rollout first is in stage 'shadow'; finish it"):
        begun(works, "second", releases, key)
    assert works.state.version == version
    assert not (works.folder / "second").exists()
    moved(works, first, key, "rollback")
    begun(works, "second", releases, key)
    assert b'"second"' in published_plan(works, ONE)


def test_a_rollout_that_is_over_does_not_come_back_over_the_next_one(works, key):
    """As when its timer still runs."""
    releases = two_releases(works, ONE)
    first = moved(works, begun(works, "first", releases, key), key, "rollback")
    second = begun(works, "second", releases, key)
    for actions in ((), ("advance", "advance")):
        second = moved(works, second, key, *actions)
        before = works.state.version
        with pytest.raises(RolloutError, match="second"):
            publish(first, publisher(works.repository, works.keyring))
        assert works.state.version == before


def test_candidate_and_control_of_two_profiles_are_refused(works):
    control, _ = two_releases(works, ONE)
    _, candidate = two_releases(works, OTHER)
    with pytest.raises(RolloutError, match="got a release for x86_cpu, expected x86_other as the candidate's"):
        begun(works, "mixed", [control, candidate], new_key())
    assert not (works.folder / "mixed").exists()
