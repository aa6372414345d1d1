"""The policy: which claims a release must satisfy, each a limit with its unit, why it stands, its source and its owner.

A policy is YAML::

    format: tollgate-policy/1
    name: highway pilot, front camera
    limits:
      - claim: latency.deadline        # the name reports and releases use; once in a policy
        gate: latency                  # which gate measures it
        quantity: total_p99            # what of its quantities; the gate fixes the unit
        comparison: at_most
        limit: profile.deadline_ms     # a number, or a number of the package's hardware profile
        unit: ms
        why: a result after the deadline is used for a scene that has moved on
        source: hardware profile of the package
        owner: perception
    measuring:                         # optional: how gates measure, where they leave a choice
      robustness: {pictures: 32}

`docs/gates.md` lists every gate with its quantities, units and settings.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hw_profiles.profile import Profile
from hw_profiles.yaml_files import Refusal, model_from_fields, model_from_yaml
from perception.errors import PolicyError
from safety_gates.gates.gate import Comparison, Quantity
from safety_gates.gates.table import GATES, quantities_of, settings_of

DEFAULT_POLICY = "default"
REFUSAL = Refusal(PolicyError, "docs/gates.md")

FROM_PROFILE: dict[str, tuple[str, Callable[[Profile], float]]] = {
    "profile.deadline_ms": ("ms", lambda profile: profile.deadline_ms),
    "profile.preprocess_ms": ("ms", lambda profile: profile.budget.preprocess_ms),
    "profile.infer_ms": ("ms", lambda profile: profile.budget.infer_ms),
    "profile.postprocess_ms": ("ms", lambda profile: profile.budget.postprocess_ms),
}
_ADMITS: dict[Comparison, Callable[[float, float], bool]] = {"at_least": operator.ge, "at_most": operator.le}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One limit of a policy with its number resolved for one package."""

    claim: str
    gate: str
    quantity: str
    comparison: Comparison
    limit: float
    unit: str
    minimum_samples: int
    why: str
    source: str
    owner: str

    def admits(self, figure: float) -> bool:
        """Whether `figure` keeps the limit; the limit itself does."""
        return _ADMITS[self.comparison](figure, self.limit)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Strict):
    """One limit as it stands in the file.

    Attributes:
        minimum_samples: with fewer the claim is inconclusive, however good the figure.
    """

    claim: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")
    gate: str
    quantity: str
    comparison: Comparison
    limit: Annotated[float, Field(strict=True)] | str
    unit: str
    minimum_samples: int = Field(default=0, ge=0)
    why: str = Field(min_length=1)
    source: str = Field(min_length=1)
    owner: str = Field(min_length=1)

    def resolved(self, profile: Profile) -> Requirement:
        """The limit for a package of `profile`."""
        number = FROM_PROFILE[self.limit][1](profile) if isinstance(self.limit, str) else self.limit
        return Requirement(**{**self.model_dump(), "limit": number})


class Policy(_Strict):
    """A named, non-empty set of limits that fit the gates."""

    format: Literal["tollgate-policy/1"] = "tollgate-policy/1"
    name: str = Field(min_length=1)
    limits: tuple[Limit, ...]
    measuring: dict[str, dict[str, Annotated[float, Field(strict=True, gt=0)]]] = Field(default_factory=dict)

    @classmethod
    def from_yaml(cls, content: str, *, where: str) -> Policy:
        """Parse and check a policy.

        Raises:
            PolicyError: no YAML, unknown field, no limit, unknown gate or quantity, wrong unit, claim named twice.
        """
        return model_from_yaml(cls, content, where=where, refusal=REFUSAL).checked(where)

    @classmethod
    def from_fields(cls, fields: object, *, where: str) -> Policy:
        """The same from fields already read, as a judgement keeps them.

        Raises:
            PolicyError: as `from_yaml`.
        """
        return model_from_fields(cls, fields, where=where, refusal=REFUSAL).checked(where)

    def checked(self, where: str) -> Policy:
        """This policy, if every limit can be judged.

        Raises:
            PolicyError: no limit, unknown gate, quantity or setting, wrong unit or direction, claim named twice.
        """
        if not self.limits:
            raise PolicyError(
                f"{where}: has no limit, expected at least one; a policy that asks nothing passes nothing"
            )
        for limit in self.limits:
            _check(limit, where)
        for gate, settings in self.measuring.items():
            _check_settings(gate, settings, where)
        _refuse_repeated(self, where)
        return self

    def requirements(self, profile: Profile, task: str) -> tuple[Requirement, ...]:
        """The limits that apply to a package, resolved.

        Raises:
            PolicyError: none applies to a model of this task.
        """
        applicable = [limit for limit in self.limits if _quantity(limit).applies_to(task)]
        if not applicable:
            raise PolicyError(f"policy {self.name!r}: no limit applies to a {task} model; add one for it")
        return tuple(limit.resolved(profile) for limit in applicable)

    def left_out(self, task: str) -> tuple[str, ...]:
        """Claims that do not apply to a model of this task; a report lists them."""
        return tuple(limit.claim for limit in self.limits if not _quantity(limit).applies_to(task))


def load_policy(path: Path | None) -> Policy:
    """A policy file, or the default policy for None.

    Raises:
        PolicyError: unreadable or wrong.
    """
    if path is None:
        text = (files("safety_gates") / "policies" / f"{DEFAULT_POLICY}.yaml").read_text(encoding="utf-8")
        return Policy.from_yaml(text, where=f"policy {DEFAULT_POLICY}")
    try:
        return Policy.from_yaml(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: no readable policy ({error}); leave --policy out for the default one") from error


def _check(limit: Limit, where: str) -> None:
    place = f"{where}: claim {limit.claim}"
    if limit.gate not in GATES:
        raise PolicyError(f"{place}: gate {limit.gate!r} is unknown, expected one of {', '.join(GATES)}")
    known: Mapping[str, Quantity] = quantities_of(limit.gate)
    if limit.quantity not in known:
        raise PolicyError(
            f"{place}: gate {limit.gate} has no quantity {limit.quantity!r}, expected one of {', '.join(known)}"
        )
    if limit.unit != known[limit.quantity].unit:
        raise PolicyError(f"{place}: got unit {limit.unit!r}, {limit.quantity} is in {known[limit.quantity].unit!r}")
    if limit.comparison != known[limit.quantity].comparison:
        raise PolicyError(
            f"{place}: got {limit.comparison}, a limit on {limit.quantity} is {known[limit.quantity].comparison}"
        )
    if isinstance(limit.limit, str):
        _check_reference(limit, limit.limit, place)
    elif not math.isfinite(limit.limit):
        raise PolicyError(f"{place}: got limit {limit.limit}, expected a finite number of {limit.unit}")


def _check_settings(gate: str, settings: Mapping[str, float], where: str) -> None:
    if gate not in GATES:
        raise PolicyError(f"{where}: measuring: gate {gate!r} is unknown, expected one of {', '.join(GATES)}")
    known = settings_of(gate)
    if unknown := sorted(set(settings) - set(known)):
        raise PolicyError(
            f"{where}: measuring: gate {gate} has no setting {unknown[0]!r}, "
            f"expected {'one of ' + ', '.join(known) if known else 'none'}"
        )
    if endless := [name for name, value in settings.items() if not math.isfinite(value)]:
        raise PolicyError(f"{where}: {gate}.{endless[0]} is {settings[endless[0]]}, expected a finite number")


def _check_reference(limit: Limit, reference: str, place: str) -> None:
    if reference not in FROM_PROFILE:
        raise PolicyError(f"{place}: got limit {reference!r}, expected a number or one of {', '.join(FROM_PROFILE)}")
    if (unit := FROM_PROFILE[reference][0]) != limit.unit:
        raise PolicyError(f"{place}: {reference} is in {unit!r}, the claim is in {limit.unit!r}")


def _refuse_repeated(policy: Policy, where: str) -> None:
    claims = [limit.claim for limit in policy.limits]
    if repeated := sorted({claim for claim in claims if claims.count(claim) > 1}):
        raise PolicyError(f"{where}: claim {', '.join(repeated)} stands twice; give every claim its own name")


def _quantity(limit: Limit) -> Quantity:
    return quantities_of(limit.gate)[limit.quantity]
