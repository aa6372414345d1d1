"""Run the benchmarks of the runtime and write docs/results/runtime_CASE.json, one file a case.

python -m tests.benchmarks.runtime                            short versions of all
python -m tests.benchmarks.runtime --only four_cameras faults --minutes 10
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.results import write_results
from tests.benchmarks.runtime import alone, faults, loop_cases

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
        "four_cameras": loop_cases.four_cameras,
        "overload": loop_cases.overload,
        "shadow": loop_cases.shadow_cost,
        "faults": faults.campaign,
    }
    for name in arguments.only or cases:
        with tempfile.TemporaryDirectory() as folder:
            rows = cases[name](Path(folder), arguments.minutes)
        write_results(f"runtime_{name}", rows, more={"minutes": arguments.minutes})
        for each in rows:
            limit = "" if each["limit"] is None else f"   (limit {each['limit']:g})"
            sys.stdout.write(f"{each['value']:12.4f} {each['unit']:8} {each['id']}{limit}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
