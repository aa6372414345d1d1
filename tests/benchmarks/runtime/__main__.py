"""Run the benchmarks of the runtime and write docs/results/runtime_CASE.json, one file a case.

python -m tests.benchmarks.runtime                            short versions of all
python -m tests.benchmarks.runtime --only four_cameras faults --minutes 10

A run that was stopped goes on with the case it was in: finished ones stay in build/bench_runtime until all are done.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perception.files import json_bytes, write_atomically
from tests.benchmarks.results import write_results
from tests.benchmarks.runtime import admission, alone, faults, loop_cases

FINISHED = Path(__file__).resolve().parents[3] / "build" / "bench_runtime"
Case = Callable[[Path, float], list[dict[str, Any]]]


def main() -> None:
    """Run the cases that were asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="about how long each case runs (default 0.5)")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has openvino-model-api, for its row")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="these cases only")
    arguments = parser.parse_args()
    cases: dict[str, Case] = {
        "overhead": alone.overhead,
        "throughput": partial(alone.throughput, peer_python=arguments.peer_python),
        "bookkeeping": loop_cases.bookkeeping,
        "admission": admission.predicted_and_measured,
        "four_cameras": loop_cases.four_cameras,
        "overload": loop_cases.overload,
        "shadow": loop_cases.shadow_cost,
        "faults": faults.campaign,
    }
    for name in arguments.only or cases:
        rows = _rows(name, cases[name], arguments.minutes)
        write_results(f"runtime_{name}", rows, more={"minutes": arguments.minutes})
        for each in rows:
            limit = "" if each["limit"] is None else f"   (limit {each['limit']:g})"
            sys.stdout.write(f"{each['value']:12.4f} {each['unit']:8} {each['id']}{limit}\n")
        sys.stdout.flush()
    shutil.rmtree(FINISHED)


def _rows(name: str, case: Case, minutes: float) -> list[dict[str, Any]]:
    """A case's rows, measured now or before the run was stopped."""
    finished = FINISHED / f"{name}_{minutes:g}_minutes.json"
    if finished.exists():
        rows: list[dict[str, Any]] = json.loads(finished.read_bytes())
        return rows
    with tempfile.TemporaryDirectory() as folder:
        rows = case(Path(folder), minutes)
    finished.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(finished, json_bytes(rows))
    return rows


if __name__ == "__main__":
    main()
