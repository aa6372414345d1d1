"""docs/results/rollout.json, and table and plots of docs/rollout.md, from a finished study and a timed decision.

tollgate rollout simulate --vehicles 1000 10000 100000 1000000 --output out/study
python -m tests.benchmarks.rollout_results out/study

A case that is not simulated as often as the others, because somebody interrupted it, is left out. The decision is timed
on quiet cores; `--keep-timing` leaves the figure that stands there.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
from matplotlib.figure import Figure

from safety_gates.rollout.decision import judge_stage
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.ingest import COLUMNS, FLEET, RECORDS, TELEMETRY
from safety_gates.rollout.moving import command
from safety_gates.rollout.rollout import HOUR_NS, Rollout, open_rollout
from safety_gates.rollout.simulation.campaign import CASES, Run
from safety_gates.rollout.simulation.summary import Summary, summarize
from safety_gates.rollout.stages import load_stages
from tests.benchmarks.results import RESULTS, row, write_results
from tests.perception.fleet import CANDIDATE, CONTROL, NOW_NS, new_key
from tests.safety_gates.rollout.field import begun

DOCS = Path(__file__).resolve().parents[2] / "docs"
IMAGES, PAGE = DOCS / "images", DOCS / "rollout.md"
VEHICLES, DRIVES, REPEATS = 1_000_000, 8, 3
SIMULATE, TIMED = "tollgate rollout simulate", "python -m tests.benchmarks.rollout_results"
DRAWN = ("misses_doubled", "misses_half_more", "crash_loop", "faults_tenfold")
COLOURS = {1_000: "#b85300", 10_000: "#0072b2", 100_000: "#00795a", 1_000_000: "#a3195b"}


def main(study: Path, *, keep_timing: bool) -> int:
    """Summarise, time, draw, write."""
    runs = _runs(study)
    summaries = [summarize(case, vehicles, found) for (case, vehicles), found in sorted(runs.items())]
    timings_s, drives = _earlier_timings() if keep_timing else decision_times_s()
    _draw_exposure(runs)
    _draw_duration(runs)
    _write_table(summaries)
    rows = [line for summary in summaries for line in _rows(summary)]
    rows.append(
        row(
            "decision_at_1000000_vehicles",
            statistics.median(timings_s),
            limit=10.0,
            unit="s",
            better="lower",
            samples=len(timings_s),
            command=TIMED,
        )
    )
    more = {
        "drives_read": drives,
        "decision_s": timings_s,
        "ends": {f"{s.case}-{s.vehicles}": s.ends for s in summaries},
    }
    write_results("rollout", rows, more=more)
    return 0


def _earlier_timings() -> tuple[list[float], int]:
    conditions = json.loads((RESULTS / "rollout.json").read_text())["conditions"]
    return conditions["decision_s"], conditions["drives_read"]


def decision_times_s() -> tuple[list[float], int]:
    """Seconds from records on disk to a judgement, a million vehicles at 50 %; and how many drives that read."""
    with TemporaryDirectory() as folder:
        rollout = _large(Path(folder))
        now_ns, found = NOW_NS + 6 * 24 * HOUR_NS, []
        for _ in range(REPEATS):
            began = time.perf_counter()
            table = vehicle_table(rollout, now_ns)
            judge_stage(rollout.file, rollout.stage, table, at=rollout.next_look(now_ns))
            found.append(time.perf_counter() - began)
        return found, int(table.now["drives"].sum() + table.before["drives"].sum())


def _large(folder: Path) -> Rollout:
    """A rollout at 50 % with a million vehicles that drove before it and in it; written as an ingest would."""
    key = new_key()
    rollout = begun(folder / "rollout", key, stages=load_stages(None)[1], vehicles=VEHICLES)
    for step, stage in enumerate(("shadow", "canary", "1 %", "10 %")):
        at_ns = NOW_NS + (3 * 24 + step) * HOUR_NS
        rollout = command(rollout, "advance", "for the benchmark", key, now_ns=at_ns, seen_stage=stage)
    store = folder / "rollout" / TELEMETRY
    (store / "000001").mkdir(parents=True)
    with duckdb.connect() as database:
        database.execute("SELECT setseed(0.5)")
        database.execute(
            f"COPY (SELECT range::INTEGER AS number, 'car-' || range AS vehicle_id, random() AS share, "
            f"random() AS shadow, random() AS holdout FROM range({VEHICLES})) TO '{store / FLEET}' (FORMAT parquet)"
        )
        since_ns, day_ns = rollout.log.last.stage_since_ns, 24 * HOUR_NS
        names = ", ".join(name for name in COLUMNS if name != "vehicle_id")
        database.execute(
            f"COPY (SELECT number AS vehicle, {names} FROM (SELECT number, d AS sequence, 'd' AS digest, "
            f"CASE WHEN d < {DRIVES // 2} THEN {NOW_NS} + (random() * 2.9 * {day_ns})::BIGINT "
            f"ELSE {since_ns} + (random() * 2 * {day_ns})::BIGINT END AS started_ns, "
            f"CASE WHEN d >= {DRIVES // 2} AND holdout >= 0.05 AND share < 0.5 THEN '{CANDIDATE['sha256']}' "
            f"ELSE '{CONTROL['sha256']}' END AS release, 'control' AS role, random() > 2e-4 AS clean, 30000 AS frames, "
            "(30 * exp(0.8 * (hash(number) % 1000 / 500.0 - 1)) * (0.5 + random()))::BIGINT AS misses, "
            "(random() < 1e-3)::BIGINT AS faults, 0 AS compared, 0 AS agreed, 0.02 * (0.5 + random()) AS input_drift, "
            "0.02 * (0.5 + random()) AS output_drift, 60.0 AS temperature_max_c, '{}' AS latency, '[]' AS slot_events, "
            f"'{{}}' AS versions FROM read_parquet('{store / FLEET}'), range({DRIVES}) AS r(d)) ORDER BY started_ns) "
            f"TO '{store / '000001' / RECORDS}' (FORMAT parquet)"
        )
    return open_rollout(folder / "rollout")


def _runs(study: Path) -> dict[tuple[str, int], tuple[Run, ...]]:
    found: dict[tuple[str, int], tuple[Run, ...]] = {}
    for path in sorted(study.rglob("*.jsonl")):
        case, vehicles, *_ = path.stem.split("-")
        runs = [Run(**json.loads(line)) for line in path.read_text().splitlines()]
        found[case, int(vehicles)] = tuple(sorted(runs, key=lambda run: run.run))
    most = max(map(len, found.values()))
    return {key: runs for key, runs in found.items() if len(runs) == most}


def _write_table(summaries: Sequence[Summary]) -> None:
    """Put the rows into the page's table of rollouts; cases in the order in which the product names them."""
    page, order = PAGE.read_text(encoding="utf-8"), list(CASES)
    head, rule, *_ = page[page.index("| candidate | vehicles |") :].splitlines()
    table = re.compile(re.escape(f"{head}\n{rule}\n") + r"(\|.*\n)*")
    rows = [_cells(each) for each in sorted(summaries, key=lambda each: (order.index(each.case), each.vehicles))]
    fresh = "".join(f"{line}\n" for line in (head, rule, *rows))
    PAGE.write_text(table.sub(lambda _: fresh, page, count=1), encoding="utf-8")


def _cells(each: Summary) -> str:
    harmless = each.case == "none"
    shown = "–" if harmless else f"{100 * each.stopped:.1f} %"
    by_itself = each.rolled_back if harmless else each.caught
    exposed = "–" if harmless else " / ".join(f"{100 * share:.2f} %" for share in each.exposure)
    cells = (
        CASES[each.case].says,
        f"{each.vehicles:,}",
        *(f"{100 * share:.1f} %" for share in (each.complete, each.held)),
        shown,
        f"{100 * by_itself:.1f} %",
        exposed,
        " / ".join(f"{days:.1f}" for days in each.days),
    )
    return f"| {' | '.join(cells)} |"


def _rows(summary: Summary) -> Iterator[dict[str, object]]:
    name = f"{summary.case}_{summary.vehicles}"
    if summary.case == "none":
        figures = (
            ("false_rollbacks", summary.rolled_back, 0.01, "lower"),
            ("complete", summary.complete, None, "higher"),
        )
    else:
        wanted = 0.95 if summary.case == "misses_doubled" else None
        figures = (
            ("stopped_below_5_percent", summary.stopped, wanted, "higher"),
            ("rolled_back_below_5_percent", summary.caught, None, "higher"),
        )
    if summary.case == "crash_loop":
        early = sum(count for words, count in summary.ends.items() if " in canary" in words or " in shadow" in words)
        figures = (*figures, ("ended_in_canary", early / summary.runs, None, "higher"))
    for what, value, limit, better in figures:
        yield row(
            f"{name}_{what}", value, limit=limit, unit="share", better=better, samples=summary.runs, command=SIMULATE
        )
    which, days = ("days_to_full", summary.days[0]) if summary.case == "none" else ("days_to_stop", summary.days[0])
    yield row(
        f"{name}_{which}_median", days, limit=None, unit="days", better="lower", samples=summary.runs, command=SIMULATE
    )


def _draw_exposure(runs: dict[tuple[str, int], tuple[Run, ...]]) -> None:
    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    for axes, case in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, DRAWN, strict=True):
        for vehicles, colour in COLOURS.items():
            found = runs.get((case, vehicles), ())
            exposures = np.sort([100 * run.exposure for run in found if run.ended != "complete"])
            share = np.arange(1, len(exposures) + 1) / max(1, len(found))
            if len(exposures):
                axes.step(exposures, share, where="post", color=colour, label=f"{vehicles:,} vehicles")
        axes.axvline(5, color="black", linewidth=1)
        axes.set_title(CASES[case].says, fontsize=10, loc="left")
        axes.set(xscale="log", xlim=(0.4, 20), ylim=(0, 1.02))
        axes.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"], minor=False)
        axes.grid(color="#d5dce3")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, ncols=4, loc="outside upper center")
    figure.supxlabel("% of the fleet with the candidate when it was stopped; the line is at 5 %", fontsize=10)
    figure.supylabel("share of the rollouts", fontsize=10)
    figure.savefig(IMAGES / "rollout_exposure.png", dpi=110)


def _draw_duration(runs: dict[tuple[str, int], tuple[Run, ...]]) -> None:
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for vehicles, colour in COLOURS.items():
        if found := runs.get(("none", vehicles)):
            days = np.sort([run.hours / 24 for run in found if run.ended == "complete"])
            share = np.arange(1, len(days) + 1) / len(found)
            axes.step(days, share, where="post", color=colour, label=f"{vehicles:,} vehicles")
    axes.set(
        xlim=(0, 30),
        ylim=(0, 1.02),
        xlabel="days until 100 % was complete, harmless candidate",
        ylabel="share of the rollouts",
    )
    axes.grid(color="#d5dce3")
    axes.legend(frameon=False, fontsize=8, loc="center left")
    figure.savefig(IMAGES / "rollout_duration.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="output of tollgate rollout simulate")
    parser.add_argument("--keep-timing", action="store_true", help="leave the decision's figure as it stands")
    arguments = parser.parse_args()
    sys.exit(main(arguments.study, keep_timing=arguments.keep_timing))
