"""From a plan on a warm disk to the first detection, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from perception.engines.tensorrt import TensorRtEngine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case


def loading(case: Case, precision: str, book: Book) -> None:
    """Start `first_detection` some times."""
    command = [sys.executable, "-m", "scripts.tensorrt_bench.loading", str(case.plan(precision))]
    command.append(str(case.folder / f"{case.name}.yaml"))
    times: list[dict[str, Any]] = []
    for _ in range(3):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        times.append(json.loads(done.stdout.splitlines()[-1]))
    print(times, flush=True)
    book.raw["first detection, s"] = times
    seconds = float(np.median([each["detected"] for each in times]))
    book.row("plan on a warm disk to first detection, imports done", seconds, unit="s", limit=1.0, samples=len(times))


def first_detection(plan: str, spec_path: str) -> None:
    """Open an engine and take a 1080p frame through its pipeline."""
    started = time.perf_counter()
    spec = ModelSpec.load(Path(spec_path))
    engine = TensorRtEngine(Path(plan).read_bytes())
    opened = time.perf_counter()
    pipeline = Pipeline(spec, engine, deadline_ns=1 << 60)
    pipeline.step(Frame(np.zeros((1080, 1920, 3), np.uint8), "camera", 0, 0, "0"))
    detected = time.perf_counter()
    print(json.dumps({"engine": opened - started, "detected": detected - started, "way": pipeline.way}))
    engine.close()


if __name__ == "__main__":
    first_detection(*sys.argv[1:])
