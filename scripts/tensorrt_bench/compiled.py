"""`tollgate compile` on the main model, as a customer runs it: what it chooses against the plain plans it built."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hw_profiles.machine import read_machine
from hw_profiles.profile import load_profile, profile_names
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.builds import Building
from scripts.tensorrt_bench.cases import Case

CALIBRATION = ("udacity_solidWhiteRight.mp4", "udacity_vehicle_test_video.mp4")
WORST_LOSS = 0.01
SLOWEST_S = 360.0


def compiled(case: Case, book: Book, how: Building, *, limit_s: float) -> None:
    """Compile, and claim what came of it.

    Args:
        case: the model; its pictures have labels in `labels`, and their classes in `classes.yaml`.
        book: of results; the package lies beside it.
        how: to build.
        limit_s: of the search, as `--time-limit`.
    """
    package = book.out / f"{case.name}-package"
    started = time.monotonic()
    with (book.out / f"{case.name}-compile.log").open("w") as log:
        done = subprocess.run(
            _command(case, package, how, limit_s), stdout=subprocess.PIPE, stderr=log, text=True, check=False
        )
    seconds = time.monotonic() - started
    if done.returncode:
        words = (book.out / f"{case.name}-compile.log").read_text()[-1500:]
        raise RuntimeError(f"tollgate compile ended with {done.returncode} after {seconds:.0f} s: {words}")
    found: dict[str, Any] = json.loads(done.stdout)
    book.raw["compile"] = {"seconds": seconds, **found}
    claim(case.name, found, seconds, book)


def claim(name: str, found: dict[str, Any], seconds: float, book: Book) -> None:
    """The rows of one compilation.

    Args:
        name: of the model.
        found: what `tollgate compile --json` answered.
        seconds: it took.
        book: that the rows go to.
    """
    rows = {row["name"]: row for row in found["decision"]["candidates"]}
    chosen = rows[found["decision"]["chosen"]]
    timed = {row_name: row for row_name, row in rows.items() if row["latency"] is not None}
    whole = [row for row_name, row in timed.items() if row_name in ("fp32", "fp16") or "," not in row_name]
    fastest = min(whole, key=_ratio)
    print(f"  {found['decision']['why']}", flush=True)
    for row_name, row in timed.items():
        words = f"{name}, compile, {row_name}{' (ships)' if row is chosen else ''}: network, p50"
        book.row(words, row["latency"]["p50_ms"], unit="ms", samples=row["latency"]["samples"])
    words = f"{name}, compile: time of what ships over the fastest of FP32, FP16 and all-INT8 ({fastest['name']})"
    samples = chosen["latency"]["samples"]
    book.row(words, _ratio(chosen) / _ratio(fastest), unit="ratio", limit=1.0, samples=samples)
    book.row(f"{name}, compile: score lost", chosen["loss"], unit="share", limit=WORST_LOSS, samples=samples)
    builds = found["search"]["build_seconds"]
    book.row(f"{name}, compile: plans built", len(builds), unit="plans", samples=1)
    book.row(f"{name}, compile: time of all builds", sum(builds), unit="s", samples=len(builds))
    book.row(f"{name}, compile: from the command to the package", seconds, unit="s", limit=SLOWEST_S, samples=1)


def _ratio(row: dict[str, Any]) -> float:
    return float(row["latency"]["times_float"]["median"])


def _command(case: Case, package: Path, how: Building, limit_s: float) -> list[str]:
    clips = [str(case.folder / clip) for clip in CALIBRATION]
    command = [sys.executable, "-m", "perception.cli", "compile", str(case.folder / f"{case.name}.onnx")]
    command += ["--profile", profile_here(), "--calibration", *clips, "--recording", str(case.pictures)]
    command += ["--labels", str(case.folder / "labels"), "--class-map", str(case.folder / "classes.yaml")]
    command += ["--max-drop", str(WORST_LOSS), "--time-limit", str(limit_s), "--builder-level", str(how.level)]
    return [*command, "--cache", str(how.cache), "--output", str(package), "--json"]


def profile_here() -> str:
    """The shipped profile of this machine's GPU.

    Raises:
        RuntimeError: there is none.
    """
    gpu = read_machine().gpu
    for name in profile_names():
        profile = load_profile(name)
        if gpu and profile.gpu and profile.module is None and gpu.name.startswith(profile.gpu.name):
            return name
    raise RuntimeError(f"no shipped profile is of {gpu.name if gpu else 'a machine without a GPU'}")
