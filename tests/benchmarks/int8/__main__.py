r"""Compare INT8 with the peers: `make bench-int8`, or `python -m tests.benchmarks.int8` where NNCF is installed.

Every step's figures stay in the work folder; a run that was stopped goes on with the step it was in. A whole run writes
docs/results/int8.json and docs/images/int8_pareto.svg, a partial one writes both into the work folder; so does one with
some contenders left out, unless `--publish` says that they may be: the conditions then name who was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from perception.terminal import Terminal
from tests.benchmarks.int8.cases import ROOT, SHARED_DATA, Case, cases
from tests.benchmarks.int8.contender import Contender
from tests.benchmarks.int8.plot import draw
from tests.benchmarks.int8.rows import CaseFigures, conditions_of, rows_of
from tests.benchmarks.int8.table import NAMES, contenders_for
from tests.benchmarks.int8.work import Document, Settings, Work, read, write
from tests.benchmarks.results import RESULTS, write_results

THREADS = (1, 2)
PLOT = ROOT / "docs" / "images" / "int8_pareto.svg"


@dataclass(frozen=True, slots=True)
class Run:
    """One invocation."""

    work: Work
    wanted: frozenset[str]
    limit_s: float
    timing_s: float
    terminal: Terminal


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, then write rows and plot; returns 2 on misuse."""
    options = parser().parse_args(arguments)
    terminal = Terminal()
    try:
        chosen = chosen_cases(options.only)
        settings = Settings(options.calibration_frames, options.frames)
        run = Run(
            Work.begin(options.work, settings),
            frozenset(options.contenders),
            options.limit_s,
            options.timing_s,
            terminal,
        )
        figures = [measure(case, run) for case in chosen]
    except ValueError as error:
        terminal.error(str(error))
        return 2
    everybody = options.publish or not options.contenders
    whole = everybody and not options.only and settings == Settings() and SHARED_DATA.is_dir()
    publish(figures, run, whole=whole)
    return 0


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks.int8", description=__doc__)
    made.add_argument("--only", nargs="+", default=[], metavar="MODEL", help="these models alone")
    made.add_argument("--contenders", nargs="+", default=[], metavar="NAME", help=f"of {'; '.join(NAMES)}")
    made.add_argument(
        "--frames", type=int, metavar="N", help="grade on at most N frames of each recording (default: all)"
    )
    made.add_argument(
        "--calibration-frames", type=int, default=Settings().calibration_frames, metavar="N", help="default: 64"
    )
    made.add_argument(
        "--timing-s", type=float, default=60.0, help="how long the engines of a model are timed (default: 60)"
    )
    made.add_argument(
        "--limit-s", type=float, default=3600.0, help="a step that takes longer has failed (default: 3600)"
    )
    made.add_argument("--publish", action="store_true", help="publish a run with contenders left out")
    made.add_argument("--work", type=Path, default=ROOT / "build" / "bench_int8", help="default: build/bench_int8")
    return made


def chosen_cases(only: list[str]) -> list[Case]:
    """The models asked for.

    Raises:
        ValueError: one is not there.
    """
    found = {case.name: case for case in cases()}
    if unknown := sorted(set(only) - set(found)):
        raise ValueError(f"model {unknown[0]!r}: is not compared here, expected some of {', '.join(found)}")
    return [case for name, case in found.items() if not only or name in only]


def measure(case: Case, run: Run) -> CaseFigures:
    """All steps of one model that were not made yet."""
    if not (run.work.of_case(case.name) / "frames").is_dir() and (trouble := stage(run, "prepare", case)):
        raise ValueError(f"{case.name}: cannot be prepared: {trouble}")
    contenders = contenders_for(case.name, run.wanted)
    builds = {each.name: build_and_judge(case, each, run) for each in contenders}
    running = [each.name for each in contenders if each.timed and run_well(case, each, run)]
    times = {threads: timed(case, threads, running, run) for threads in THREADS}
    judged = {name: read(run.work.of_contender(case.name, name) / "judge.json") or {} for name in builds}
    return CaseFigures(case, builds, judged, times)


def build_and_judge(case: Case, contender: Contender, run: Run) -> Document:
    """Build and grade one contender."""
    folder = run.work.of_contender(case.name, contender.name)
    built = step(run, "build", case, contender.name, path=folder / "build.json")
    if built["status"] == "built" and contender.graded:
        step(run, "judge", case, contender.name, path=folder / "judge.json")
    return built


def run_well(case: Case, contender: Contender, run: Run) -> bool:
    """Whether its engine ran over the frames that are graded."""
    judged = read(run.work.of_contender(case.name, contender.name) / "judge.json")
    return judged is not None and judged["status"] == "graded"


def timed(case: Case, threads: int, names: list[str], run: Run) -> Document:
    """Time all engines of a model side by side, anew where others were timed before."""
    path = run.work.of_case(case.name) / f"time_{threads}.json"
    if (before := read(path)) is not None and before.get("names") != names:
        path.unlink()
    return step(run, "time", case, str(threads), str(run.timing_s), *names, path=path)


def step(run: Run, name: str, case: Case, *arguments: str, path: Path) -> Document:
    """A step's document, made now where it is missing; where its process broke, what it died of."""
    if (document := read(path)) is not None:
        return document
    started = time.perf_counter()
    trouble = stage(run, name, case, *arguments)
    document = read(path)
    if document is None:
        document = write(path, {"status": "failed", "why": trouble, "seconds": time.perf_counter() - started})
    told = document.get("status", "measured")
    why = f": {document['why']}" if "why" in document else ""
    run.terminal.say(f"{case.name}  {name} {arguments[0]}  {told}{why}  ({time.perf_counter() - started:.0f} s)")
    return document


def stage(run: Run, name: str, case: Case, *arguments: str) -> str:
    """Run one step in a process of its own; returns what went wrong, nothing where all went well."""
    command = [sys.executable, "-m", "tests.benchmarks.int8.stages", name, case.name, str(run.work.folder), *arguments]
    log = run.work.folder / "log.txt"
    run.terminal.say(f"{case.name}  {name} {' '.join(arguments[:1])} …")
    with log.open("a") as told:
        told.write(f"\n# {name} {case.name} {' '.join(arguments)}\n")
        told.flush()
        try:
            ended = subprocess.run(command, cwd=ROOT, stdout=told, stderr=told, timeout=run.limit_s, check=False)
        except subprocess.TimeoutExpired:
            return f"took longer than {run.limit_s:.0f} s"
    if ended.returncode < 0:
        return f"its process was ended by signal {-ended.returncode}"
    return f"its process ended with {ended.returncode}, see {log.name} in the work folder" if ended.returncode else ""


def left_out(figures: list[CaseFigures], run: Run) -> Document:
    """What was not run, and how long the clock ran and a step might take."""
    taken = {name for each in figures for name in each.builds}
    absent = [name for name in NAMES if name not in taken]
    return {"contenders_left_out": absent, "timing_s": run.timing_s, "limit_s": run.limit_s}


def publish(figures: list[CaseFigures], run: Run, *, whole: bool) -> None:
    """Write rows and plot; a partial run never touches what the documentation shows."""
    results = RESULTS if whole else run.work.folder
    plot = PLOT if whole else run.work.folder / PLOT.name
    rows = [row for each in figures for row in rows_of(each)]
    more = {**conditions_of(figures, run.work.settings), **left_out(figures, run)}
    write_results("int8", rows, folder=results, more=more)
    draw(figures, plot)
    run.terminal.say(f"{len(rows)} rows in {results / 'int8.json'}, plot {plot}")


if __name__ == "__main__":
    sys.exit(main())
