"""Many rollouts of one kind, with the code that decides real ones: how often they end how, and when.

Every run has a seed of its own, made from the campaign's seed, the case, the fleet's size and its number: runs can be
made in any order, by any number of processes, and stopped and resumed, and the answer is the same. Finished runs stand
in a JSON-lines file; a line that is torn by an interruption is made again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from perception.errors import RolloutError
from perception.files import cannot_write
from safety_gates.rollout.decision import Look, Outcome, judge_stage
from safety_gates.rollout.simulation.fleet import FleetModel, Regression, SimulatedFleet, drawn_places, numbers_of
from safety_gates.rollout.simulation.large import LargeFleet
from safety_gates.rollout.stages import RolloutFile, stages_from_text

HORIZON_H = 60 * 24.0
MOST_ONE_BY_ONE = 10_000  # vehicles; larger fleets are drawn as counts


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of rollout: what is wrong with its candidate."""

    name: str
    says: str
    regression: Regression


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("none", "a candidate that changes nothing", Regression()),
        Case("misses_doubled", "twice as many deadline misses", Regression(misses=2.0)),
        Case("misses_half_more", "1.5 times as many deadline misses", Regression(misses=1.5)),
        Case("crash_loop", "four drives in five crash", Regression(crash_loop=0.8)),
        Case("faults_tenfold", "ten times as many fault flags", Regression(faults=10.0)),
        Case("disagreement", "the shadow disagrees on 20 % of what is said", Regression(disagreement=10.0)),
    )
}


def case_of(text: str) -> Case:
    """A case by its name, or one's own by what its candidate does, such as `misses=1.3,faults=2`.

    Raises:
        RolloutError: neither.
    """
    if text in CASES:
        return CASES[text]
    if "=" not in text:
        raise RolloutError(f"--case {text}: expected one of {', '.join(CASES)}, or NAME=NUMBER,… of your own")
    return Case(text, text, numbers_of(Regression, text))


@dataclass(frozen=True, slots=True)
class Order:
    """One run to make; `model` changes numbers of `FleetModel`."""

    stages: str
    case: str
    vehicles: int
    seed: int
    run: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """How one simulated rollout went.

    Attributes:
        ended: "complete", "rolled_back", or "held" where it was still holding at the horizon.
        stage: in which it ended.
        quantity: the criterion that rolled back or held, as far as one did.
        hours: from start to end.
        exposure: share of the fleet that had the candidate at the end.
        looks: decisions made.
    """

    run: int
    ended: str
    stage: str
    quantity: str | None
    hours: float
    exposure: float
    looks: int


def simulate(order: Order) -> Run:
    """One rollout from its first stage to its end."""
    plan = stages_from_text(order.stages, where="stages").for_fleet(order.vehicles)
    fleet = _fleet_of(order, plan)
    looks = 0
    for stage in plan.stages:
        fleet.begin(stage)
        at = Look(0, 0, 0.0)
        while True:
            reports = fleet.drive(stage.look_every_h)
            at, looks = Look(at.number + 1, at.soaked, at.hours + stage.look_every_h), looks + 1
            judged = judge_stage(plan, stage, reports, at=at, intervals=False)
            at = replace(at, soaked=at.soaked + judged.soaked)
            if judged.outcome is Outcome.ADVANCE:
                break
            if judged.outcome is Outcome.ROLLBACK or fleet.hours >= HORIZON_H:
                ended = "rolled_back" if judged.outcome is Outcome.ROLLBACK else "held"
                blamed = next((f.quantity for f in judged.findings if f.outcome is judged.outcome), None)
                return Run(order.run, ended, stage.name, blamed, fleet.hours, fleet.exposure, looks)
    return Run(order.run, "complete", plan.stages[-1].name, None, fleet.hours, fleet.exposure, looks)


def campaign(
    orders: Sequence[Order], *, log: Path, workers: int, on_run: Callable[[], None] = lambda: None
) -> tuple[Run, ...]:
    """Make every run that the log does not hold yet; returns all of them, in order.

    Raises:
        OutputError: the log cannot be written.
    """
    done = dict(_finished(log))
    missing = [order for order in orders if order.run not in done]
    for _ in range(len(orders) - len(missing)):
        on_run()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            for run in _made(missing, workers):
                file.write(json.dumps(asdict(run)).encode() + b"\n")
                file.flush()
                done[run.run] = run
                on_run()
    except OSError as error:
        raise cannot_write(log, error) from error
    return tuple(done[order.run] for order in orders)


def _made(orders: Sequence[Order], workers: int) -> Iterator[Run]:
    if workers == 1 or len(orders) < 2:
        yield from map(simulate, orders)
        return
    pool = ProcessPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(simulate, order) for order in orders]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _fleet_of(order: Order, plan: RolloutFile) -> SimulatedFleet | LargeFleet:
    words = (order.seed, zlib.crc32(order.case.encode()), order.vehicles, order.run)
    seeds = np.random.SeedSequence(words).generate_state(2, np.uint64)
    model, regression = numbers_of(FleetModel, order.model), case_of(order.case).regression
    if order.vehicles > MOST_ONE_BY_ONE:
        return LargeFleet(order.vehicles, model=model, regression=regression, plan=plan, seed=int(seeds[0]))
    places = drawn_places(order.vehicles, plan.holdout, np.random.default_rng(int(seeds[1])))
    return SimulatedFleet(places, model=model, regression=regression, seed=int(seeds[0]))


def _finished(log: Path) -> Iterator[tuple[int, Run]]:
    """Whole lines of an earlier run; a torn last one is cut off, so that the next one stands on its own."""
    if not log.exists():
        return
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with log.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.splitlines():
        run = Run(**json.loads(line))
        yield run.run, run
