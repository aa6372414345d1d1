"""Which release a vehicle runs: read from signed metadata, decided on the vehicle, the same at every look.

A plan is a target of the release repository, one a profile. Whoever hands its bytes to `RolloutPlan.from_bytes` has
verified them; this module believes what it is given and asks no server. A vehicle's place is a number in [0, 1) drawn
from the rollout's salt and its id. It runs the candidate when that number is below the stage's share, so a vehicle that
has it at 1 % has it at 10 % too (nested), and always gets the same answer for the same plan (sticky). Three independent
numbers are drawn for share, shadow and hold-out; a new rollout has a new salt and so draws other vehicles first.

Precedence: hold-out, then candidate, then shadow, then control. The hold-out group keeps the control release in every
stage: at 100 % it is what the candidate is compared with.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hw_profiles.yaml_files import complaints_of
from perception.errors import RolloutError
from perception.files import json_bytes

FORMAT = "tollgate-rollout/1"
TARGET = "rollout.json"
SALT_BYTES = 16

Role = Literal["control", "candidate", "shadow", "holdout"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._%+-]{0,63}$")]
VehicleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Fields(BaseModel):
    """Unknown fields are ignored: a vehicle reads plans of newer factories."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReleaseRef(_Fields):
    """A release by name and by the digest that names its package."""

    name: Name
    sha256: Sha256


class StageShares(_Fields):
    """How much of the fleet takes part in one stage.

    Attributes:
        share: of vehicles that run the candidate, 0 to 1.
        shadow: of the others, how many run it beside the control release, 0 to 1.
    """

    name: Name
    share: Share
    shadow: Share = 0.0


class RolloutPlan(_Fields):
    """What vehicles of one profile follow.

    Attributes:
        rollout: name of the rollout; records carry it.
        salt: hexadecimal; what makes this rollout draw other vehicles than the last one.
        serial: grows by one with every published change.
        state: after a rollback every vehicle runs the control release.
        stage: name of the current stage.
        holdout: share of the fleet that keeps the control release throughout.
    """

    format: Literal["tollgate-rollout/1"]
    rollout: Name
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    serial: int = Field(ge=0)
    state: Literal["rolling", "rolled_back"]
    stage: Name
    stages: tuple[StageShares, ...] = Field(min_length=1)
    holdout: Share
    candidate: ReleaseRef
    control: ReleaseRef

    @classmethod
    def from_bytes(cls, content: bytes) -> RolloutPlan:
        """Parse verified bytes.

        Raises:
            RolloutError: no plan: a field is missing or wrong, a share shrinks, or the stage is not one of its stages.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise RolloutError(
                f"{TARGET}: no rollout plan: {complaints_of(error)}; publish it again with: tollgate rollout"
            ) from error

    def to_bytes(self) -> bytes:
        """The bytes to publish; `from_bytes` is the inverse."""
        return json_bytes(self.model_dump(mode="json"))

    @property
    def current(self) -> StageShares:
        """The shares of the current stage."""
        return next(stage for stage in self.stages if stage.name == self.stage)

    @model_validator(mode="after")
    def _is_consistent(self) -> RolloutPlan:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: got {', '.join(names)}, expected every name once")
        if self.stage not in names:
            raise ValueError(f"stage: got {self.stage!r}, expected one of {', '.join(names)}")
        for before, after in pairwise(self.stages):
            if after.share < before.share:
                raise ValueError(f"stage {after.name}: share shrinks from {before.share:g} to {after.share:g}")
        if self.candidate.sha256 == self.control.sha256:
            raise ValueError("candidate: is the control release, expected another one")
        return self


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one vehicle does in the current stage.

    Attributes:
        role: why.
        release: what drives.
        shadow: what runs beside it in spare time, for the role shadow only.
    """

    role: Role
    release: ReleaseRef
    shadow: ReleaseRef | None = None


def assignment(plan: RolloutPlan, vehicle_id: str) -> Assignment:
    """The vehicle's role and release; the same answer wherever and whenever it is asked.

    Raises:
        ValueError: the id is empty.
    """
    stage = plan.current
    if plan.state == "rolled_back":
        return Assignment("control", plan.control)
    if place(plan.salt, vehicle_id, "holdout") < plan.holdout:
        return Assignment("holdout", plan.control)
    if place(plan.salt, vehicle_id, "share") < stage.share:
        return Assignment("candidate", plan.candidate)
    if place(plan.salt, vehicle_id, "shadow") < stage.shadow:
        return Assignment("shadow", plan.control, plan.candidate)
    return Assignment("control", plan.control)


def place(salt: str, vehicle_id: str, draw: str) -> float:
    """The vehicle's number in [0, 1) for one of the independent draws; 53 bits of SHA-256.

    Raises:
        ValueError: the id is empty.
    """
    if not vehicle_id:
        raise ValueError("vehicle_id: is empty, expected the id of a vehicle")
    digest = hashlib.sha256("\0".join((salt, draw, vehicle_id)).encode()).digest()
    return math.ldexp(int.from_bytes(digest[:8], "big") >> 11, -53)


def new_salt() -> str:
    """A salt nobody could have chosen vehicles by."""
    return secrets.token_hex(SALT_BYTES)
