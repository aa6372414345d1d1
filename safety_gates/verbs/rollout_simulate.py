"""`tollgate rollout simulate`: what stages and criteria do with fleets that never were."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from perception.cli import EXIT_PASSED
from perception.terminal import Terminal
from safety_gates.rollout.simulation.campaign import CASES
from safety_gates.rollout.simulation.study import Study, study
from safety_gates.rollout.simulation.summary import CAUGHT_BELOW, Summary
from safety_gates.rollout.stages import load_stages

_ENDS = ("case", "vehicles", "complete", "rolled back", "held", "days, median / 95 %")
_CAUGHT = ("case", "vehicles", "stopped", "by itself", "exposed, median / 95 %")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument("--stages", type=Path, metavar="YAML", help="stages and criteria; without, the shipped ones")
    parser.add_argument(
        "--case",
        nargs="+",
        default=list(CASES),
        metavar="CASE",
        help=f"what is wrong with the candidate: {', '.join(CASES)}, or one's own, such as misses=1.3,faults=2",
    )
    parser.add_argument(
        "--model", default="", metavar="NAME=NUMBER,…", help="how the fleet is, such as drives_per_day=2,miss_rate=0.01"
    )
    parser.add_argument("--vehicles", type=int, nargs="+", default=[10_000], metavar="N", help="sizes of fleet")
    parser.add_argument(
        "--runs", type=int, default=1000, metavar="N", help="rollouts of each case and size (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same rollouts (default 1)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="finished runs and the summary; run again to go on"
    )


def simulate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Run the campaign, as far as it has not run yet, and show it."""
    _, text = load_stages(arguments.stages)
    wanted = Study(
        text, tuple(arguments.case), tuple(arguments.vehicles), arguments.runs, arguments.seed, arguments.model
    )
    summaries = study(wanted, arguments.output, workers=arguments.workers, terminal=terminal)
    terminal.table(f"How {arguments.runs} rollouts each ended, seed {arguments.seed}", _ENDS, map(_ends, summaries))
    terminal.table(
        f"\nStopped with the candidate in at most {CAUGHT_BELOW:.0%} of the fleet", _CAUGHT, map(_caught, summaries)
    )
    terminal.result([asdict(each) for each in summaries])
    return EXIT_PASSED


def _ends(each: Summary) -> tuple[str, ...]:
    shares = (f"{share:.1%}" for share in (each.complete, each.rolled_back, each.held))
    return each.case, f"{each.vehicles:,}", *shares, f"{each.days[0]:.1f} / {each.days[1]:.1f}"


def _caught(each: Summary) -> tuple[str, ...]:
    shares = (f"{share:.1%}" for share in (each.stopped, each.caught))
    return each.case, f"{each.vehicles:,}", *shares, f"{each.exposure[0]:.2%} / {each.exposure[1]:.2%}"
