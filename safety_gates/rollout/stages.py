"""The rollout's YAML: stages, what is watched in each, and how often it may be wrong. `docs/rollout.md` explains it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.cohort import Name, Share
from perception.errors import RolloutError
from safety_gates.rollout.quantities import QUANTITIES

DEFAULT = "default"
REFUSAL = Refusal(RolloutError, "docs/rollout.md")
Probability = Annotated[float, Field(gt=0.0, lt=0.5)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Criterion(_Strict):
    """What one quantity must show.

    Attributes:
        quantity: name in `QUANTITIES`.
        harm: what is shown to be above it rolls back. A ratio to control, or a share for shadow disagreement.
        limit: only what is shown to be below it advances. None for events: those advance unless suspicious.
        why: for the log and the page.
    """

    quantity: str
    harm: float = Field(default=1.0, gt=0.0)
    limit: float | None = Field(default=None, gt=0.0)
    why: str = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_its_quantity(self) -> Criterion:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"quantity: got {self.quantity!r}, expected one of {', '.join(QUANTITIES)}")
        wants_limit = QUANTITIES[self.quantity].kind != "event"
        if wants_limit and (self.limit is None or self.limit < self.harm):
            raise ValueError(f"{self.quantity}: got limit {self.limit}, expected at least its harm, {self.harm:g}")
        if not wants_limit and (self.limit is not None or self.harm != 1.0):
            raise ValueError(f"{self.quantity}: is an event, expected neither harm nor limit")
        return self


class Soak(_Strict):
    """What must have been driven before nothing found counts as good news; `controls` are vehicles to compare with."""

    hours: float = Field(gt=0.0)
    vehicles: int = Field(ge=1)
    drives: int = Field(ge=1)
    controls: int = Field(default=20, ge=1)


class Stage(_Strict):
    """One stage.

    Attributes:
        share: of vehicles that run the candidate.
        least: so many vehicles run it at least, where the share of the fleet is fewer.
        shadow: of the others, how many run it beside the control release.
        look_every_h: hours between two looks; what is looked at more rarely needs less evidence.
        limits: wider or narrower limits than the criteria's, in this stage: few vehicles can show little.
    """

    name: Name
    share: Share
    least: int = Field(default=0, ge=0)
    shadow: Share = 0.0
    look_every_h: float = Field(gt=0.0)
    soak: Soak
    limits: dict[str, Annotated[float, Field(gt=0.0)]] = {}


class RolloutFile(_Strict):
    """The whole file.

    Attributes:
        holdout: share of the fleet that keeps the control release.
        false_rollback: probability that a harmless candidate is rolled back, all stages, criteria and looks together.
        false_advance: probability that a stage advances although one quantity is at its limit.
        suspicion: an event this unlikely holds the stage, until later drives make it likely or a person moves it.
    """

    format: Literal["tollgate-stages/1"]
    name: str = Field(min_length=1)
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)]
    false_rollback: Probability
    false_advance: Probability
    suspicion: Probability
    stages: tuple[Stage, ...] = Field(min_length=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> RolloutFile:
        for names in ([each.name for each in self.stages], [each.quantity for each in self.criteria]):
            if len(set(names)) < len(names):
                raise ValueError(f"got {', '.join(names)}, expected every name once")
        shares = [stage.share for stage in self.stages]
        if shares != sorted(shares) or shares[-1] == 0.0:
            raise ValueError(f"stages: got shares {shares}, expected them to grow and to end above 0")
        for stage in self.stages:
            if stage.share == 0 and stage.least > 0:
                raise ValueError(
                    f"stage {stage.name}: got share 0 and at least {stage.least} vehicles, expected a share"
                )
            if stage.share > 0 and stage.shadow > 0:
                raise ValueError(f"stage {stage.name}: has candidates and shadows, expected one of the two")
            self._check_limits(stage)
        if self.holdout == 0.0 and shares[-1] == 1.0:
            raise ValueError("holdout: got 0, expected more: at 100 % it is what the candidate is compared with")
        return self

    def _check_limits(self, stage: Stage) -> None:
        harms = {each.quantity: each.harm for each in self.criteria if each.limit is not None}
        for quantity, limit in stage.limits.items():
            if limit < harms.get(quantity, float("inf")):
                raise ValueError(
                    f"stage {stage.name}: got limit {limit:g} for {quantity}, expected one of "
                    f"{', '.join(harms)} with at least its harm"
                )

    @property
    def alpha(self) -> float:
        """What one criterion may spend on false rollbacks in one stage."""
        return self.false_rollback / (len(self.stages) * len(self.criteria))

    def for_fleet(self, vehicles: int) -> RolloutFile:
        """The same for a fleet of that size: no stage expects fewer vehicles than its `least` or than one before."""
        stages: list[Stage] = []
        for stage in self.stages:
            wanted = max(stage.share, stage.least / (vehicles * (1 - self.holdout)))
            share = max([min(1.0, wanted), *(before.share for before in stages)])
            stages.append(stage.model_copy(update={"share": share}))
        return self.model_copy(update={"stages": tuple(stages)})

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            KeyError: there is none.
        """
        return {stage.name: stage for stage in self.stages}[name]

    def criteria_of(self, stage: Stage) -> tuple[Criterion, ...]:
        """What is watched in a stage: shadow quantities only where a shadow runs."""
        watched = (each for each in self.criteria if stage.shadow > 0 or QUANTITIES[each.quantity].kind != "level")
        return tuple(
            each.model_copy(update={"limit": stage.limits[each.quantity]}) if each.quantity in stage.limits else each
            for each in watched
        )


def load_stages(path: Path | None) -> tuple[RolloutFile, str]:
    """A stage file and its text, or the default one for None.

    Raises:
        RolloutError: unreadable or wrong.
    """
    if path is None:
        text = (files("safety_gates.rollout") / f"{DEFAULT}.yaml").read_text(encoding="utf-8")
        return stages_from_text(text, where=f"stages {DEFAULT}"), text
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RolloutError(f"{path}: no readable stage file ({error}); leave --stages out for the default") from error
    return stages_from_text(text, where=str(path)), text


def stages_from_text(text: str, *, where: str) -> RolloutFile:
    """Parse and check.

    Raises:
        RolloutError: no YAML, an unknown field, or stages that contradict themselves.
    """
    return model_from_yaml(RolloutFile, text, where=where, refusal=REFUSAL)
