"""Several cases at several sizes of fleet: run what is missing, summarise, write the summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from perception.errors import RolloutError
from perception.files import json_bytes, sha256_of_bytes, write_atomically
from perception.terminal import Terminal
from safety_gates.rollout.simulation.campaign import Order, Run, campaign, case_of
from safety_gates.rollout.simulation.fleet import FleetModel, numbers_of
from safety_gates.rollout.simulation.summary import Summary, summarize

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Study:
    """What to simulate: stages (the file's text), cases and sizes of fleet, how often, from which seed.

    `model` changes numbers of `FleetModel`.
    """

    stages: str
    cases: tuple[str, ...]
    vehicles: tuple[int, ...]
    runs: int
    seed: int
    model: str = ""


def study(wanted: Study, output: Path, *, workers: int, terminal: Terminal) -> tuple[Summary, ...]:
    """Make every run that `output` does not hold yet; returns one summary a case and size.

    Raises:
        RolloutError: a size or number of runs below 1, or an unknown case or number of the model.
        OutputError: `output` cannot be written.
    """
    if min(wanted.runs, workers, *wanted.vehicles) < 1:
        raise RolloutError(
            f"simulate: got {wanted.runs} runs, {workers} workers and fleets of {wanted.vehicles}, expected at least 1"
        )
    numbers_of(FleetModel, wanted.model)
    for case in wanted.cases:
        case_of(case)
    summaries = tuple(
        summarize(case, vehicles, runs) for case, vehicles, runs in _runs_of(wanted, output, workers, terminal)
    )
    content = json_bytes({"seed": wanted.seed, "summaries": [asdict(each) for each in summaries]})
    write_atomically(output / SUMMARY, content)
    return summaries


def runs_path(wanted: Study, output: Path, case: str, vehicles: int) -> Path:
    """Where finished runs stand; other stages, another seed or model have files of their own."""
    told = sha256_of_bytes((wanted.stages + wanted.model).encode())[:12]
    return output / f"{case}-{vehicles}-seed{wanted.seed}-{told}.jsonl"


def _runs_of(
    wanted: Study, output: Path, workers: int, terminal: Terminal
) -> Iterator[tuple[str, int, tuple[Run, ...]]]:
    for vehicles in wanted.vehicles:
        for case in wanted.cases:
            orders = [
                Order(wanted.stages, case, vehicles, wanted.seed, run, wanted.model) for run in range(wanted.runs)
            ]
            with terminal.progress(f"{case}, {vehicles:,} vehicles", len(orders)) as step:
                path = runs_path(wanted, output, case, vehicles)
                yield case, vehicles, campaign(orders, log=path, workers=workers, on_run=step)
