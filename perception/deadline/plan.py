"""Which models look at which cameras, how often, by when, and what happens when they cannot.

A plan is a YAML file (`docs/runtime.md` explains it); `plan_of` makes the one of a single package. Paths in a plan are
relative to its file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.profile import Profile
from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.deadline.realtime import RealtimeWish
from perception.errors import SpecError
from perception.package import EnginePackage, open_package
from perception.pipeline import threads_of

_REFUSAL = Refusal(SpecError, "docs/runtime.md")
_MS = 1_000_000


class MissPolicy(str, Enum):
    """What is published for a frame that missed: the late result, nothing, or the last result with its age."""

    LATE = "late"
    SKIP = "skip"
    REUSE = "reuse"


class Criticality(str, Enum):
    """What may be taken from a model under overload: nothing, its rate and size, or everything."""

    CRITICAL = "critical"
    NORMAL = "normal"
    SHADOW = "shadow"


class Step(str, Enum):
    """A rung of the degradation ladder."""

    DROP_SHADOW = "drop_shadow"
    HALVE_RATES = "halve_rates"
    SMALLER_ENGINES = "smaller_engines"
    CAMERAS_OFF = "cameras_off"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelEntry(_Strict):
    """One model, as the file has it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    package: Path
    smaller: Path | None = None
    fallback: Path | None = None
    cameras: tuple[str, ...] = ()
    deadline_ms: float | None = Field(default=None, gt=0)
    period_ms: float = Field(default=0, ge=0)
    priority: int = 0
    criticality: Criticality = Criticality.CRITICAL
    on_miss: MissPolicy = MissPolicy.LATE
    score: float | None = Field(default=None, ge=0, le=1)


class Settings(_Strict):
    """How the loop runs; a plan's word goes before the profile's, and every default needs no privilege.

    Attributes:
        lanes: engine processes that work side by side.
        threads: threads of each engine; None shares the profile's among the lanes.
        pair_window_ms: frames of several cameras within it belong together; 0 pairs nothing.
        pair_tolerance_ms: sets further apart are counted as skewed.
        hang_after_ms: an engine that takes longer is killed; None is five deadlines, at least 500 ms.
        restarts: faults of one model within a minute before its fallback takes over.
        ladder: what is given up under overload, in this order.
        cameras_off: which cameras `cameras_off` turns off.
        cpus, fifo_priority, lock_memory, collect_garbage: see `RealtimeWish`.
        spin: see `hw_profiles.profile.RuntimeSettings`.
    """

    lanes: int = Field(default=1, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1)
    pair_window_ms: float = Field(default=0, ge=0)
    pair_tolerance_ms: float = Field(default=10, ge=0)
    hang_after_ms: float | None = Field(default=None, gt=0)
    restarts: int = Field(default=2, ge=1)
    ladder: tuple[Step, ...] = tuple(Step)
    cameras_off: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    fifo_priority: int | None = Field(default=None, ge=1, le=99)
    lock_memory: bool = False
    collect_garbage: bool = False
    spin: bool | None = None

    @classmethod
    def of(cls, profile: Profile, **more: object) -> Settings:
        """What the profile says, and what is said besides.

        Raises:
            ValueError: a field is unknown or out of its range.
        """
        said = profile.runtime
        if said is None:
            return cls.model_validate(more)
        numbers = {
            "lanes": said.lanes,
            "pair_window_ms": said.pair_window,
            "pair_tolerance_ms": said.pair_tolerance,
            "hang_after_ms": said.hang_after,
            "fifo_priority": said.fifo_priority,
        }
        by_profile: dict[str, object] = {
            name: quantity.value for name, quantity in numbers.items() if quantity is not None
        }
        names = ("cpus", "lock_memory", "collect_garbage", "spin")
        by_profile |= {name: getattr(said, name) for name in names}
        by_profile |= {} if said.ladder is None else {"ladder": said.ladder}
        return cls.model_validate({**by_profile, **more})


class PlanFile(_Strict):
    """The file."""

    format: Literal["tollgate-plan/1"] = "tollgate-plan/1"
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    settings: Settings = Settings()

    @model_validator(mode="after")
    def _contradicts_nothing(self) -> PlanFile:
        names = [model.name for model in self.models]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"models: got {', '.join(sorted(doubled))} twice, expected each name once")
        if all(model.criticality is Criticality.SHADOW for model in self.models):
            raise ValueError("models: got shadows only, expected at least one that is no shadow")
        if len(set(self.settings.ladder)) != len(self.settings.ladder):
            raise ValueError("settings.ladder: got a step twice, expected each once")
        return self


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model, ready to run.

    Attributes:
        packages: the package; then, where the plan has them, the smaller one and the fallback.
        smaller: position of the smaller package in `packages`; None where there is none.
        fallback: position of the fallback.
        cameras: whose frames it looks at; empty means all.
        deadline_ns: from capture to usable result.
        period_ns: it looks at a camera no more often; 0 at every frame.
        priority: of two frames due at the same instant the higher one goes first.
    """

    name: str
    packages: tuple[EnginePackage, ...]
    deadline_ns: int
    smaller: int | None = None
    fallback: int | None = None
    cameras: tuple[str, ...] = ()
    period_ns: int = 0
    priority: int = 0
    criticality: Criticality = Criticality.CRITICAL
    on_miss: MissPolicy = MissPolicy.LATE
    score: float | None = None

    def wants(self, camera_id: str) -> bool:
        """Whether it looks at this camera."""
        return not self.cameras or camera_id in self.cameras


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the loop is told."""

    models: tuple[ModelPlan, ...]
    settings: Settings

    @property
    def production(self) -> tuple[ModelPlan, ...]:
        """The models that are no shadows."""
        return tuple(model for model in self.models if model.criticality is not Criticality.SHADOW)

    @property
    def shadows(self) -> tuple[ModelPlan, ...]:
        """The candidates that run in slack only."""
        return tuple(model for model in self.models if model.criticality is Criticality.SHADOW)

    @property
    def profile(self) -> Profile:
        """The profile of the first package; all must be made for it."""
        return self.models[0].packages[0].profile

    @property
    def threads(self) -> int:
        """Threads of each engine."""
        return self.settings.threads or max(1, threads_of(self.profile) // self.settings.lanes)

    @property
    def hang_after_ns(self) -> int:
        """An engine that takes longer for one frame hangs."""
        if self.settings.hang_after_ms is not None:
            return int(self.settings.hang_after_ms * _MS)
        return max(500 * _MS, 5 * max(model.deadline_ns for model in self.models))

    @property
    def wish(self) -> RealtimeWish:
        """What engines and loop ask the kernel for."""
        asked = self.settings
        return RealtimeWish(
            asked.cpus, asked.fifo_priority, asked.lock_memory, asked.collect_garbage, asked.spin is True
        )


def plan_of(
    package: EnginePackage,
    *,
    shadow: EnginePackage | None = None,
    fallback: EnginePackage | None = None,
    score: float | None = None,
    settings: Settings | None = None,
) -> Plan:
    """The plan of one package that looks at every frame of every camera, by its profile's deadline."""
    deadline_ns = int(package.profile.deadline_ms * _MS)
    packages = (package,) if fallback is None else (package, fallback)
    position = None if fallback is None else 1
    models = [ModelPlan(package.manifest.name, packages, deadline_ns, fallback=position, score=score)]
    if shadow is not None:
        name = f"shadow.{shadow.manifest.name}"
        models.append(ModelPlan(name, (shadow,), deadline_ns, criticality=Criticality.SHADOW, score=score))
    return Plan(tuple(models), settings or Settings.of(package.profile))


def load_plan(path: Path, *, opener: Callable[[Path], EnginePackage] = open_package) -> Plan:
    """Read a plan and open every package it names.

    Args:
        path: the YAML file.
        opener: opens a package folder, or verifies a release.

    Raises:
        SpecError: no plan, or its packages are made for different profiles.
        PackageError: a package is missing or altered.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error}); expected a plan in YAML (docs/runtime.md)") from error
    file = model_from_yaml(PlanFile, text, where=str(path), refusal=_REFUSAL)
    models = tuple(_model(entry, path.parent, opener) for entry in file.models)
    said = file.settings.model_dump(exclude_unset=True)
    plan = Plan(models, Settings.of(models[0].packages[0].profile, **said))
    _refuse_other_profiles(plan, path)
    return plan


def _model(entry: ModelEntry, folder: Path, opener: Callable[[Path], EnginePackage]) -> ModelPlan:
    named = [entry.package, entry.smaller, entry.fallback]
    packages = tuple(opener(folder / path) for path in named if path is not None)
    deadline_ms = entry.deadline_ms or packages[0].profile.deadline_ms
    return ModelPlan(
        name=entry.name,
        packages=packages,
        deadline_ns=int(deadline_ms * _MS),
        smaller=None if entry.smaller is None else 1,
        fallback=None if entry.fallback is None else len(packages) - 1,
        cameras=entry.cameras,
        period_ns=int(entry.period_ms * _MS),
        priority=entry.priority,
        criticality=entry.criticality,
        on_miss=entry.on_miss,
        score=entry.score,
    )


def _refuse_other_profiles(plan: Plan, path: Path) -> None:
    profiles: Sequence[str] = [package.profile.name for model in plan.models for package in model.packages]
    if other := next((name for name in profiles if name != profiles[0]), None):
        raise SpecError(
            f"{path}: got packages for profiles {profiles[0]} and {other}, expected one profile; compile them for one"
        )
