"""docs/results/rollout.json and the plots of docs/rollout.md, from a finished study and a timed decision.

tollgate rollout simulate --vehicles 1000 --case none misses_doubled crash_loop --output out/study
python -m tests.benchmarks.rollout_results out/study
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
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
from safety_gates.rollout.simulation.campaign import Run
from safety_gates.rollout.simulation.summary import Summary, summarize
from safety_gates.rollout.stages import load_stages
from tests.benchmarks.results import row, write_results
from tests.perception.fleet import CANDIDATE, CONTROL, NOW_NS, new_key
from tests.safety_gates.rollout.field import begun

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
VEHICLES, DRIVES, REPEATS = 1_000_000, 8, 3
SIMULATE, TIMED = "tollgate rollout simulate", "python -m tests.benchmarks.rollout_results"
COLOURS = {
    "misses_doubled": "#0072b2",
    "crash_loop": "#b85300",
    "faults_tenfold": "#00795a",
    "misses_half_more": "#a3195b",
}
DASHES = {1_000: ":", 10_000: "-", 100_000: "--", 1_000_000: "-."}


def main(study: Path) -> int:
    """Summarise, time, draw, write."""
    runs = dict(_runs(study))
    summaries = [summarize(case, vehicles, found) for (case, vehicles), found in sorted(runs.items())]
    timings_s, ranked = decision_times_s()
    _draw_exposure(runs)
    _draw_duration(runs)
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
        "drives_read": ranked,
        "decision_s": timings_s,
        "ends": {f"{s.case}-{s.vehicles}": s.ends for s in summaries},
    }
    write_results("rollout", rows, more=more)
    return 0


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


def _runs(study: Path) -> Iterator[tuple[tuple[str, int], tuple[Run, ...]]]:
    for path in sorted(study.rglob("*.jsonl")):
        case, vehicles, *_ = path.stem.split("-")
        runs = [Run(**json.loads(line)) for line in path.read_text().splitlines()]
        yield (case, int(vehicles)), tuple(sorted(runs, key=lambda run: run.run))


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
    for what, value, limit, better in figures:
        yield row(
            f"{name}_{what}", value, limit=limit, unit="share", better=better, samples=summary.runs, command=SIMULATE
        )
    which, days = ("days_to_full", summary.days[0]) if summary.case == "none" else ("days_to_stop", summary.days[0])
    yield row(
        f"{name}_{which}_median", days, limit=None, unit="days", better="lower", samples=summary.runs, command=SIMULATE
    )


def _draw_exposure(runs: dict[tuple[str, int], tuple[Run, ...]]) -> None:
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (case, vehicles), found in sorted(runs.items()):
        if case in COLOURS:
            exposures = np.sort([100 * run.exposure for run in found if run.ended != "complete"])
            share = np.arange(1, len(exposures) + 1) / len(found)
            label = f"{case.replace('_', ' ')}, {vehicles:,} vehicles"
            axes.step(exposures, share, DASHES.get(vehicles, "-"), where="post", color=COLOURS[case], label=label)
    axes.axvline(5, color="black", linewidth=1)
    axes.set(
        xscale="log", xlim=(0.1, 100), ylim=(0, 1.02), xlabel="% of the fleet with the candidate when it was stopped"
    )
    axes.set_ylabel("share of the rollouts")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#d5dce3")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(IMAGES / "rollout_exposure.png", dpi=110)


def _draw_duration(runs: dict[tuple[str, int], tuple[Run, ...]]) -> None:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for (case, vehicles), found in sorted(runs.items()):
        if case == "none":
            days = np.sort([run.hours / 24 for run in found if run.ended == "complete"])
            share = np.arange(1, len(days) + 1) / len(found)
            axes.step(
                days, share, DASHES.get(vehicles, "-"), where="post", color="#0072b2", label=f"{vehicles:,} vehicles"
            )
    axes.set(
        xlim=(0, 60),
        ylim=(0, 1.02),
        xlabel="days until 100 % was complete, harmless candidate",
        ylabel="share of the rollouts",
    )
    axes.grid(color="#d5dce3")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(IMAGES / "rollout_duration.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="output of tollgate rollout simulate")
    sys.exit(main(parser.parse_args().study))
