"""Which release the signed metadata wants on this vehicle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perception.agent.index import CURRENT, Current, parse_document
from perception.agent.trust import Repository


@dataclass(frozen=True, slots=True)
class Vehicle:
    """Who this vehicle is.

    Attributes:
        vehicle_id: its own, for the rollout's cohorts; never leaves it unsigned.
        profile: name of the hardware profile it satisfies.
    """

    vehicle_id: str
    profile: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this vehicle shall do.

    Attributes:
        release: name of a release.
        role: "drive" runs it; "shadow" fills the other slot with it and leaves the one in use alone.
    """

    release: str
    role: Literal["drive", "shadow"] = "drive"


def wanted_release(repository: Repository, vehicle: Vehicle, folder: Path) -> Wanted | None:
    """What the repository wants of this vehicle; None where it has nothing for its profile.

    Raises:
        VerificationError: a signed document cannot be read.
        UpdateError: the server cannot be reached.
    """
    content = repository.document(CURRENT, folder)
    if content is None:
        return None
    release = parse_document(Current, content, where=CURRENT).releases.get(vehicle.profile)
    return None if release is None else Wanted(release)
