"""Gate real packages at the default policy and write docs/results/gates_real.json.

    python -m tests.benchmarks.gates_real [--work build/gates_real] [--only NAME]

Packages and evidence are kept under `--work`: what was made or measured is not made again, so it can be stopped and
started again. Reports lie beside the packages.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.gates_real.packages import compiled, naive, slow
from tests.benchmarks.int8.cases import SHARED_DATA, Case, case_named
from tests.benchmarks.results import row, write_results

COMMAND = "python -m tests.benchmarks.gates_real"
CLIPS = SHARED_DATA / "clips"
TIMED = ("udacity_solidWhiteRight.mp4", "udacity_vehicle_test_video.mp4", "kitti_drive_0005_80f")
GATED = {"yolox_nano_416": ("float", "int8", "naive", "slow"), "road_segmentation_adas_0001": ("float", "int8")}
SLOW_SOAK = 200  # its memory is not what it was made to show
LOST = ("accuracy.ap50", "regression.reference", "parity.agreement")
LATE = ("latency.deadline", "latency.missed", "streaming.loss")
OFFLINE = ("accuracy.ap50", "regression.reference", "parity.agreement", "parity.ghosts")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gates_real"), help="where packages and evidence lie")
    parser.add_argument("--only", choices=GATED, help="one model alone; nothing is written to docs/results")
    arguments = parser.parse_args()
    if not SHARED_DATA.is_dir():
        raise SystemExit(f"{SHARED_DATA}: is not there; it holds the models and recordings that this compares")
    judged = {}
    for name in [arguments.only] if arguments.only else GATED:
        case, folder = case_named(name), arguments.work / name
        folder.mkdir(parents=True, exist_ok=True)
        compiled(case, folder)
        for make in (naive, slow):
            if make.__name__ in GATED[name]:
                make(case, folder)
        for package in GATED[name]:
            judged[name, package] = gated(case, folder, package)
    if arguments.only is None:
        write(judged)


def gated(case: Case, folder: Path, package: str) -> dict[str, Any]:
    """The judgement of a package: labelled pictures for accuracy, clips and a drive for what needs time."""
    words = ["gate", folder / package, "--recording", case.labelled, "--labels", case.labels]
    words += ["--class-map", case.class_map, "--reference", folder / "float", "--first-release"]
    words += ["--timing-recording", *(CLIPS / name for name in TIMED), "--evidence", folder / "evidence" / package]
    judgement = folder / f"{package}.judgement.json"
    words += ["--report", folder / f"{package}.html", "--judgement", judgement]
    if package == "slow":
        words += ["--soak-frames", SLOW_SOAK]
    judgement.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "perception.cli", *map(str, words)], check=False)
    if not judgement.exists():
        raise SystemExit(f"{folder / package}: was not judged; see above")
    found: dict[str, Any] = json.loads(judgement.read_text())
    return found


def write(judged: dict[tuple[str, str], dict[str, Any]]) -> None:
    """How many claims stand how, what must hold of the two planted packages, and every verdict beside it."""
    rows = []
    verdicts = []
    for (model, package), judgement in judged.items():
        outcomes = [verdict["outcome"] for verdict in judgement["verdicts"]]
        for outcome in ("PASSED", "FAILED", "INCONCLUSIVE"):
            what = f"{model} {package}: claims {outcome}, together {judgement['outcome']}"
            rows.append(_row(what, outcomes.count(outcome), len(outcomes), None, "lower"))
        verdicts += [
            {"model": model, "package": package, **{name: verdict[name] for name in SHOWN}}
            for verdict in judgement["verdicts"]
        ]
    naive_, slow_ = (_outcomes(judged["yolox_nano_416", name]) for name in ("naive", "slow"))
    for what, outcomes, claims, wanted in (
        ("naive MinMax INT8 fails", naive_, LOST, "FAILED"),
        ("the slow engine fails", slow_, LATE, "FAILED"),
        ("the slow engine does not fail", slow_, OFFLINE, None),
    ):
        held = [outcomes[claim] == wanted if wanted else outcomes[claim] != "FAILED" for claim in claims]
        rows.append(_row(f"{what}: {', '.join(claims)}", sum(held), len(held), len(held), "higher"))
    write_results("gates_real", rows, more={"policy": "default"}, beside={"verdicts": verdicts})


SHOWN = ("claim", "gate", "outcome", "got", "interval", "comparison", "limit", "unit", "samples", "sampled", "why")


def _row(what: str, count: int, of: int, limit: int | None, better: str) -> dict[str, Any]:
    return row(what, count, limit=limit, unit="claims", better=better, samples=of, command=COMMAND)


def _outcomes(judgement: dict[str, Any]) -> dict[str, str]:
    return {verdict["claim"]: verdict["outcome"] for verdict in judgement["verdicts"]}


if __name__ == "__main__":
    main()
