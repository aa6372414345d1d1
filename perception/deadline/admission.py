"""Do these models, cameras and deadlines fit this machine? Answered before the first frame; `need` gives the argument.

Memory counts too: what the processes hold, open and warm, must leave some of the machine's. The bounds are sufficient,
not necessary: a set that is refused may run well most of the time, and `--force` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from hw_profiles.telemetry import sample
from perception.deadline.costs import FrameCost, Rehearsal
from perception.deadline.crew import Crew
from perception.deadline.need import MOST_UTILISATION, Demand, Need, bounded
from perception.deadline.plan import Criticality, ModelPlan, Plan, Step
from perception.package import EnginePackage
from perception.sources.source import Camera

LEAST_FREE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer.

    Attributes:
        need: what is asked, every task with its bound.
        memory_bytes: what the engine processes hold.
        available_bytes: what the machine has left beside them; None where it does not tell.
        shed_first: what overload would take away, in order.
        remedies: what would make it fit; empty where it fits.
    """

    need: Need
    memory_bytes: int
    available_bytes: int | None
    shed_first: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether everything is met."""
        return not self.objections

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Every task with its bound."""
        return self.need.demands

    @property
    def bottleneck(self) -> str:
        """What would be used up first."""
        shares = self.need.shares()
        return max(shares, key=shares.__getitem__)

    @property
    def utilisation(self) -> float:
        """Of the bottleneck; 1 is all of it."""
        return self.need.shares()[self.bottleneck]

    @property
    def told(self) -> str:
        """The bottleneck, and what keeps the cores busy, in words."""
        uses = ", ".join(f"{use} {cores:.2f}" for use, cores in self.need.cores_by_use().items())
        return f"{self.bottleneck} at {self.utilisation:.0%}; cores busy: {uses}"

    @property
    def objections(self) -> tuple[str, ...]:
        """Every reason against it, a sentence each; the bottleneck first."""
        found = []
        shares = self.need.shares()
        for what in sorted(shares, key=shares.__getitem__, reverse=True):
            if shares[what] > MOST_UTILISATION:
                found.append(f"{what}: utilisation {shares[what]:.0%}, expected at most {MOST_UTILISATION:.0%}")
        for demand in self.demands:
            if not demand.is_met:
                found.append(
                    f"{demand.model} on {demand.camera}: response bound {demand.response_ns / 1e6:.1f} ms, "
                    f"deadline {demand.deadline_ns / 1e6:.1f} ms"
                )
        if self.available_bytes is not None and self.available_bytes < LEAST_FREE_SHARE * self.memory_bytes:
            found.append(f"memory: {self.available_bytes >> 20} MiB left beside {self.memory_bytes >> 20} MiB in use")
        return tuple(found)

    def refusal(self) -> str:
        """Why not, and what would help, in one sentence."""
        helped = "; ".join(self.remedies) or "nothing short of a faster engine"
        first, *others = self.objections
        more = f" (and {len(others)} more)" if others else ""
        return (
            f"does not fit this machine: {first}{more}; what would help: {helped}; or run it all the same with --force"
        )

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "fits": self.fits,
            "objections": list(self.objections),
            "bottleneck": self.bottleneck,
            "utilisation": self.utilisation,
            "shares": self.need.shares(),
            "cores_by_use": self.need.cores_by_use(),
            "lanes": self.need.lanes,
            "frames": [asdict(cost) for cost in self.need.frames],
            "memory_bytes": self.memory_bytes,
            "shed_first": list(self.shed_first),
            "remedies": list(self.remedies),
            "demands": [
                {
                    "model": demand.model,
                    "camera": demand.camera,
                    "period_ms": demand.period_ns / 1e6,
                    "service_ms": demand.service_ns / 1e6,
                    "response_bound_ms": demand.response_ns / 1e6,
                    "deadline_ms": demand.deadline_ns / 1e6,
                }
                for demand in self.demands
            ],
        }


def admit(plan: Plan, crew: Crew, costs: Sequence[FrameCost], rehearsal: Rehearsal, *, cores: float) -> Admission:
    """Judge a plan whose engines are open and warm.

    Args:
        plan: models and settings.
        crew: open engines, with the times of their warm-up.
        costs: of the frames of every camera.
        rehearsal: what the loop adds.
        cores: that this process and its engines may use.
    """
    demands = [
        _demand(model, cost, crew, rehearsal) for model in plan.production for cost in costs if model.wants(cost.camera)
    ]
    lanes = plan.settings.lanes
    need = Need(
        demands=bounded(demands, lanes=lanes),
        frames=tuple(costs),
        booking_ns=rehearsal.booking_ns,
        turn_ns=rehearsal.turn_ns,
        lanes=lanes,
        cores=cores,
        spinning=lanes if plan.wish.spin else 0,
    )
    admission = Admission(
        need=need,
        memory_bytes=sum(lane.ready.rss_bytes for lane in crew.all_lanes if lane.ready),
        available_bytes=sample().available_bytes,
        shed_first=_shed_first(plan),
        remedies=(),
    )
    return admission if admission.fits else replace(admission, remedies=_remedies(need))


def periods_ns(plan: Plan, cameras: Sequence[Camera], *, speed: float) -> dict[str, int]:
    """Camera → time between two frames; a rate that the source does not know is the profile's.

    Args:
        plan: for its profile.
        cameras: of the source.
        speed: recorded seconds in one real second.
    """
    usual_hz = plan.profile.cameras.rate_hz
    return {camera.camera_id: int(1e9 / ((camera.rate_hz or usual_hz) * speed)) for camera in cameras}


def _demand(model: ModelPlan, cost: FrameCost, crew: Crew, rehearsal: Rehearsal) -> Demand:
    engine = crew.engines[model.name, 0]
    times = crew.times[False, engine].recent_ns
    service_ns = max(max(times), int(median(times)) + _spread_ns(model.packages[0])) + rehearsal.handing_over_ns
    cpu_ns = max(lane.ready.cpu_ns[engine] for lane in crew.lanes if lane.ready)
    return Demand(
        model=model.name,
        camera=cost.camera,
        period_ns=max(cost.period_ns, model.period_ns),
        service_ns=service_ns,
        deadline_ns=model.deadline_ns,
        criticality=model.criticality,
        cpu_ns=cpu_ns,
    )


def _spread_ns(package: EnginePackage) -> int:
    """How far above its median the compiler saw the engine take, at p99 or, with few runs, at most."""
    latency = _packaged_latency(package)
    if not latency or not latency.get("p50_ms"):
        return 0
    worst_ms = latency.get("p99_9_ms") or latency.get("p99_ms") or latency.get("max_ms") or latency["p50_ms"]
    return int((worst_ms - latency["p50_ms"]) * 1e6)


def _packaged_latency(package: EnginePackage) -> dict[str, Any]:
    """What `compile.json` says of the engine that was shipped; empty where nothing was timed."""
    if "compile.json" not in package.manifest.files:
        return {}
    report: Any = package.document("compile.json")
    decision = report.get("decision", {})
    rows = decision.get("rows") or decision.get("candidates") or []
    chosen: dict[str, Any] = next((row for row in rows if row.get("name") == decision.get("chosen")), {})
    return dict(chosen.get("latency") or {})


def _shed_first(plan: Plan) -> tuple[str, ...]:
    normal = [model.name for model in plan.production if model.criticality is Criticality.NORMAL]
    smaller = [model.name for model in plan.production if model.smaller is not None]
    affected = {
        Step.DROP_SHADOW: [model.name for model in plan.shadows],
        Step.HALVE_RATES: normal,
        Step.SMALLER_ENGINES: smaller,
        Step.CAMERAS_OFF: list(plan.settings.cameras_off),
    }
    return tuple(f"{step.value}: {', '.join(affected[step])}" for step in plan.settings.ladder if affected[step])


def _remedies(need: Need) -> tuple[str, ...]:
    """Single changes that would make it fit, found by trying them."""
    found = []
    for share in (0.75, 0.5, 0.33, 0.25, 0.1):
        if need.slower(share).is_met:
            found.append(f"frames at {share:.0%} of their rate")
            break
    cameras = [cost.camera for cost in need.frames]
    for count in range(len(cameras) - 1, 0, -1):
        if need.only(cameras[:count]).is_met:
            found.append(f"{count} of {len(cameras)} cameras")
            break
    critical = tuple(each for each in need.demands if each.criticality is Criticality.CRITICAL)
    if critical and len(critical) < len(need.demands) and replace(need, demands=critical).is_met:
        found.append("the critical models alone")
    longest_ns = max(demand.response_ns for demand in need.demands)
    relaxed = tuple(replace(each, deadline_ns=max(each.deadline_ns, longest_ns)) for each in need.demands)
    if replace(need, demands=relaxed).is_met:
        found.append(f"a deadline of {longest_ns / 1e6:.0f} ms")
    cores = math.ceil(sum(need.cores_by_use().values()) / MOST_UTILISATION)
    if cores > need.cores and replace(need, cores=cores).is_met:
        found.append(f"{cores} cores")
    return tuple(found)
