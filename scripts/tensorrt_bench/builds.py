"""Plans one after another, in the order asked for, each in a process group of its own that a deadline ends.

Builders side by side wait for one GPU, whose timings they spoil for each other. Timings of kernels and plans are kept
in the same cache as `tollgate compile --cache` keeps them: what either built, the other finds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from compile.backends.onnxrt import build as onnx_bytes
from compile.backends.tensorrt_target import TensorRtTarget
from compile.half import allowing_half
from compile.store import Store
from hw_profiles.machine import read_machine
from perception.engines.tensorrt_build import BuildOptions
from perception.files import write_atomically
from perception.terminal import Terminal
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import COMPATIBLE, FP16, Case

CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Building:
    """How to build.

    Attributes:
        level: of the builder.
        deadline_s: no build goes on after so long.
        cache: of plans and timings.
    """

    level: int
    deadline_s: float
    cache: Path


def build_all(wanted: Sequence[tuple[Case, str]], book: Book, how: Building) -> None:
    """Build what is not there yet; what the deadline ends or leaves is said, and the next call goes on with it."""
    ends_at = time.monotonic() + how.deadline_s
    for case, precision in wanted:
        if case.plan(precision).is_file():
            print(f"  {case.name} {precision}: there already", flush=True)
            continue
        left_s = ends_at - time.monotonic()
        words, seconds = _build(case, precision, how, left_s) if left_s > 0 else ("no time left", 0.0)
        book.raw[f"build {case.name} {precision}"] = {"seconds": seconds, "said": words, "level": how.level}
        print(f"  {case.name} {precision}: {words or 'built'} in {seconds:.1f} s", flush=True)
        book.write()


def _build(case: Case, precision: str, how: Building, limit_s: float) -> tuple[str, float]:
    started = time.monotonic()
    command = [sys.executable, "-m", "scripts.tensorrt_bench.builds", str(case.model(precision))]
    command += [str(case.plan(precision)), precision, str(how.level), str(how.cache)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "ended by the deadline", time.monotonic() - started
    return ("" if process.returncode == 0 else said.strip()[-600:]), time.monotonic() - started


def main(model: str, plan: str, precision: str, level: str, cache: str) -> int:
    """Build one plan; 1 where this machine has no GPU."""
    gpu = read_machine().gpu
    if gpu is None:
        sys.stderr.write("no NVIDIA GPU\n")
        return 1
    network = onnx.load(model)
    content = onnx_bytes(allowing_half(network) if precision.startswith(FP16) else network)
    options = BuildOptions(level=int(level), version_compatible=precision == COMPATIBLE)
    store, timings = Store(Path(cache)), Path(cache) / "tensorrt"
    target = TensorRtTarget(gpu, 1, options, store, Terminal(quiet=True), timings=timings)
    Path(plan).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(plan), target.serialised(content))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
