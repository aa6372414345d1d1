"""A rollout's plan as a target of the release repository: vehicles see it as part of signed metadata, or not at all.

Each profile has a target of its own, so that several profiles roll at once; of one profile, one rollout at a time.
Going back is a newer version of the metadata that names the older release. So the vehicles' protection against
rollback stays in force for everybody who cannot sign new metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perception.agent.index import rollout_name
from perception.cohort import ReleaseRef, RolloutPlan
from perception.errors import RolloutError
from safety_gates.publishing.keyring import Keyring
from safety_gates.publishing.releases import published, release_names
from safety_gates.publishing.repository import Change, change, read_state, read_target
from safety_gates.rollout.rollout import Publish
from safety_gates.rollout.stages import RolloutFile

DRIFTS = ("input_drift", "output_drift")


def publisher(repository: Path, keyring: Keyring) -> Publish:
    """What puts a plan into a repository; a plan that is there already is left alone.

    It raises RolloutError where another rollout moves the vehicles of the profile.
    """

    def put(content: bytes) -> None:
        state, plan = read_state(repository), RolloutPlan.from_bytes(content)
        target = rollout_name(published(repository, state, plan.candidate.name).profile)
        there = read_target(repository, state, target)
        if there == content:
            return
        if there is not None:
            _refuse_another(plan, RolloutPlan.from_bytes(there), target)
        change(repository, keyring, Change(add={target: content}, expected_version=state.version))

    return put


def refuse_misfits(repository: Path, candidate: ReleaseRef, control: ReleaseRef) -> None:
    """Refuse a beginning that cannot be published: releases of two profiles, or of one that is rolling already.

    Raises:
        RolloutError: so it is.
        ReleaseError: the repository has no such release.
    """
    state = read_state(repository)
    profiles = [published(repository, state, release.name).profile for release in (candidate, control)]
    if profiles[0] != profiles[1]:
        raise RolloutError(
            f"control {control.name}: got a release for {profiles[1]}, expected {profiles[0]} as the candidate's; "
            "each profile has a rollout of its own"
        )
    there = read_target(repository, state, rollout_name(profiles[0]))
    if there is not None:
        _refuse_another(None, RolloutPlan.from_bytes(there), rollout_name(profiles[0]))


def _refuse_another(plan: RolloutPlan | None, there: RolloutPlan, target: str) -> None:
    """A rollout takes another one's place only when it begins (None: is about to), and only once that one is over."""
    if plan is not None and plan.salt == there.salt:
        return
    over = there.state == "rolled_back" or there.stage == there.stages[-1].name
    if not over:
        raise RolloutError(
            f"{target}: rollout {there.rollout} is in stage {there.stage!r}; finish it or roll it back first"
        )
    if plan is not None and plan.serial > 0:
        raise RolloutError(
            f"{target}: vehicles follow rollout {there.rollout} by now, {plan.rollout} was before it; nothing was "
            "published"
        )


def refuse_unmeasured_drift(repository: Path, releases: Sequence[ReleaseRef], stages: RolloutFile) -> None:
    """Refuse stages that watch drift for releases whose drives cannot tell it: they would hold for ever.

    Raises:
        RolloutError: a release of the repository has no reference, and the stages watch drift.
    """
    watched = [each.quantity for each in stages.criteria if each.quantity in DRIFTS]
    state = read_state(repository)
    for release in releases if watched else ():
        if release.name in release_names(state) and published(repository, state, release.name).reference is None:
            raise RolloutError(
                f"release {release.name}: was published without a reference, and the stages watch "
                f"{' and '.join(watched)}, which would never be known; judge, sign and publish it anew with a "
                "longer --frames-of, or leave these criteria out of --stages"
            )


def published_release(repository: Path, name: str) -> ReleaseRef:
    """A release of the repository, by its name.

    Raises:
        ReleaseError: there is none of that name.
        RolloutError: the name is too strange for a plan.
    """
    index = published(repository, read_state(repository), name)
    try:
        return ReleaseRef(name=index.name, sha256=index.package_sha256)
    except ValueError as error:
        raise RolloutError(f"release {name!r}: cannot stand in a plan; publish it under a plainer name") from error
