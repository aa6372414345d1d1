"""Do these models, cameras and deadlines fit this machine? Answered before the first frame.

Every model on every camera is a task with a period, a relative deadline and a service time. The service time is a
bound, not a mean: the slowest whole step seen while warming up on this machine, or its median plus the spread that the
package measured when it was compiled, whichever is more. Then, with m engine processes:

- utilisation: the sum of service over period, over m, must stay at or below `MOST_UTILISATION`;
- response time: under non-preemptive earliest deadline first a job waits for jobs that are due no later than itself,
  and for later-due ones that were running when it came. While every deadline is met, those of another task fall due
  within one window as long as its own deadline, or one of them runs and none falls due there: at most ceil(D / T) of
  them either way. While it waits every engine is busy with these, so it answers within service + (their work) / m.
  Source: the demand argument of K. Jeffay, D. Stanat and C. Martel, RTSS 1991, and for several processors the workload
  argument of M. Bertogna, M. Cirinei and G. Lipari, ECRTS 2005.
- memory: what the processes hold, open and warm, must leave some of the machine's.

The bound is sufficient, not necessary: a set it refuses may run well most of the time, and `--force` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from hw_profiles.telemetry import sample
from perception.deadline.crew import Crew
from perception.deadline.plan import Criticality, ModelPlan, Plan, Step
from perception.package import EnginePackage
from perception.sources.source import Camera

MOST_UTILISATION = 0.9
LEAST_FREE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Demand:
    """One model on one camera, as a task.

    Attributes:
        period_ns: between two of its frames.
        service_ns: a bound on one whole step.
        deadline_ns: from capture.
        response_ns: the bound; filled in by `bounded`.
    """

    model: str
    camera: str
    period_ns: int
    service_ns: int
    deadline_ns: int
    criticality: Criticality = Criticality.CRITICAL
    response_ns: int = 0

    @property
    def is_met(self) -> bool:
        """Whether the bound keeps the deadline."""
        return self.response_ns <= self.deadline_ns


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer.

    Attributes:
        demands: every task with its bound.
        lanes: engine processes side by side.
        utilisation: of all lanes together; 1 is everything.
        memory_bytes: what the engine processes hold.
        available_bytes: what the machine has left beside them; None where it does not tell.
        shed_first: what overload would take away, in order.
        remedies: what would make it fit; empty where it fits.
    """

    demands: tuple[Demand, ...]
    lanes: int
    utilisation: float
    memory_bytes: int
    available_bytes: int | None
    shed_first: tuple[str, ...]
    remedies: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether everything is met."""
        return not self.objections

    @property
    def objections(self) -> tuple[str, ...]:
        """Every reason against it, a sentence each."""
        found = []
        if self.utilisation > MOST_UTILISATION:
            found.append(f"utilisation {self.utilisation:.0%}, expected at most {MOST_UTILISATION:.0%}")
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
            "utilisation": self.utilisation,
            "lanes": self.lanes,
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


def admit(plan: Plan, cameras: Sequence[Camera], crew: Crew, *, speed: float) -> Admission:
    """Judge a plan whose engines are open and warm.

    Args:
        plan: models and settings.
        cameras: of the source; a rate the source does not know is taken from the profile.
        crew: open engines, with the times of their warm-up.
        speed: recorded seconds in one real second.
    """
    demands = [
        _demand(model, camera, crew, period_ns=_period_ns(model, camera, plan, speed))
        for model in plan.production
        for camera in cameras
        if model.wants(camera.camera_id)
    ]
    lanes = plan.settings.lanes
    done = bounded(demands, lanes=lanes)
    held = sum(lane.ready.rss_bytes for lane in crew.all_lanes if lane.ready)
    admission = Admission(
        demands=done,
        lanes=lanes,
        utilisation=utilisation(done, lanes=lanes),
        memory_bytes=held,
        available_bytes=sample().available_bytes,
        shed_first=_shed_first(plan),
        remedies=(),
    )
    return admission if admission.fits else replace(admission, remedies=_remedies(plan, done, lanes))


def utilisation(demands: Sequence[Demand], *, lanes: int) -> float:
    """Share of all lanes' time that the demands take."""
    return sum(demand.service_ns / demand.period_ns for demand in demands) / lanes


def bounded(demands: Sequence[Demand], *, lanes: int) -> tuple[Demand, ...]:
    """The same demands with their response bounds."""
    return tuple(replace(demand, response_ns=_response_ns(demand, demands, lanes)) for demand in demands)


def _response_ns(mine: Demand, demands: Sequence[Demand], lanes: int) -> int:
    """See the module: service + work before it / lanes."""
    work_ns = sum(_jobs_due_within(mine.deadline_ns, each) * each.service_ns for each in demands)
    return mine.service_ns + (work_ns - mine.service_ns) // lanes


def _jobs_due_within(window_ns: int, task: Demand) -> int:
    """How many jobs of a task can fall due within a window; due dates lie a period apart."""
    return -(-window_ns // task.period_ns)


def _demand(model: ModelPlan, camera: Camera, crew: Crew, *, period_ns: int) -> Demand:
    times = crew.times[False, crew.engines[model.name, 0]].recent_ns
    service_ns = max(max(times), int(median(times)) + _spread_ns(model.packages[0]))
    return Demand(model.name, camera.camera_id, period_ns, service_ns, model.deadline_ns, model.criticality)


def _period_ns(model: ModelPlan, camera: Camera, plan: Plan, speed: float) -> int:
    rate_hz = (camera.rate_hz or plan.profile.cameras.rate_hz) * speed
    return max(int(1e9 / rate_hz), model.period_ns)


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


def _remedies(plan: Plan, demands: Sequence[Demand], lanes: int) -> tuple[str, ...]:
    """Single changes that would make it fit, found by trying them."""
    found = []
    for share in (0.75, 0.5, 0.33, 0.25, 0.1):
        slower = [replace(demand, period_ns=int(demand.period_ns / share)) for demand in demands]
        if _all_met(slower, lanes):
            found.append(f"frames at {share:.0%} of their rate")
            break
    cameras = list(dict.fromkeys(demand.camera for demand in demands))
    for count in range(len(cameras) - 1, 0, -1):
        if _all_met([demand for demand in demands if demand.camera in cameras[:count]], lanes):
            found.append(f"{count} of {len(cameras)} cameras")
            break
    critical = [demand for demand in demands if demand.criticality is Criticality.CRITICAL]
    if critical and len(critical) < len(demands) and _all_met(critical, lanes):
        found.append("the critical models alone")
    longest_ns = max(demand.response_ns for demand in demands)
    relaxed = [replace(demand, deadline_ns=max(demand.deadline_ns, longest_ns)) for demand in demands]
    if _all_met(relaxed, lanes):
        found.append(f"a deadline of {longest_ns / 1e6:.0f} ms")
    return tuple(found)


def _all_met(demands: Sequence[Demand], lanes: int) -> bool:
    done = bounded(demands, lanes=lanes)
    return utilisation(done, lanes=lanes) <= MOST_UTILISATION and all(demand.is_met for demand in done)
