"""Which release the signed metadata wants on this vehicle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perception.agent.index import CURRENT, Current, parse_document, rollout_name
from perception.agent.journal import Place
from perception.agent.trust import Repository
from perception.cohort import ReleaseRef, RolloutPlan, assignment


@dataclass(frozen=True, slots=True)
class Vehicle:
    """Who this vehicle is.

    Attributes:
        vehicle_id: its own, for the rollout's cohorts.
        profile: name of the hardware profile it satisfies.
    """

    vehicle_id: str
    profile: str


@dataclass(frozen=True, slots=True)
class Named:
    """A release by its name, and the digest of its package where the signed document tells it."""

    name: str
    package_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this vehicle shall do.

    Attributes:
        drives: the release in use.
        shadow: what runs beside it in spare time; None where nothing does.
        place: in the rollout; None outside of one.
    """

    drives: Named
    shadow: Named | None = None
    place: Place | None = None


def wanted_release(repository: Repository, vehicle: Vehicle, folder: Path) -> Wanted | None:
    """What the repository wants of this vehicle: by its profile's rollout, else by the list of current releases.

    Returns:
        None where it has nothing for the vehicle's profile.

    Raises:
        RolloutError, VerificationError: a signed document cannot be read.
        UpdateError: the server cannot be reached.
    """
    plan = repository.document(rollout_name(vehicle.profile), folder)
    if plan is not None:
        return _by_plan(RolloutPlan.from_bytes(plan), vehicle.vehicle_id)
    content = repository.document(CURRENT, folder)
    if content is None:
        return None
    release = parse_document(Current, content, where=CURRENT).releases.get(vehicle.profile)
    return None if release is None else Wanted(Named(release))


def _by_plan(plan: RolloutPlan, vehicle_id: str) -> Wanted:
    mine = assignment(plan, vehicle_id)
    shadow = None if mine.shadow is None else _wish(mine.shadow)
    return Wanted(_wish(mine.release), shadow, Place(rollout=plan.rollout, role=mine.role))


def _wish(release: ReleaseRef) -> Named:
    return Named(release.name, release.sha256)
