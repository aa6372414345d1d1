"""Every plan of every model, several builders at once, each in a process group of its own that a deadline ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import onnx

from compile.backends.tensorrt import BuildOptions, build
from perception.files import write_atomically
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case


def build_all(wanted: Sequence[tuple[Case, str]], book: Book, *, level: int, deadline_s: float, at_once: int) -> None:
    """Build what is not there yet; what is not done by the deadline is given up and said, but for the first model's."""
    ends_at = time.monotonic() + deadline_s
    missing = [(case, precision) for case, precision in wanted if not case.plan(precision).is_file()]
    with ThreadPoolExecutor(at_once) as pool:
        jobs = [
            pool.submit(_build, case, precision, level, ends_at + (deadline_s if case is wanted[0][0] else 0))
            for case, precision in missing
        ]
        for (case, precision), job in zip(missing, jobs, strict=True):
            words, seconds = job.result()
            book.raw[f"build {case.name} {precision}"] = {"seconds": seconds, "said": words, "level": level}
            print(f"  {case.name} {precision}: {words or 'built'} in {seconds:.1f} s", flush=True)
            book.write()


def _build(case: Case, precision: str, level: int, ends_at: float) -> tuple[str, float]:
    started = time.monotonic()
    command = [sys.executable, "-m", "scripts.tensorrt_bench.builds", str(case.model(precision))]
    command += [str(case.plan(precision)), precision, str(level)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=max(1.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "given up at the deadline", time.monotonic() - started
    return ("" if process.returncode == 0 else said.strip()[-600:]), time.monotonic() - started


def main(model: str, plan: str, precision: str, level: str) -> None:
    """Build one plan."""
    from pathlib import Path

    target = Path(plan)
    target.parent.mkdir(parents=True, exist_ok=True)
    options = BuildOptions(half=not precision.startswith("fp32"), level=int(level), cache_folder=None)
    write_atomically(target, build(onnx.load(model), options, device="", advance=lambda _step: None))


if __name__ == "__main__":
    main(*sys.argv[1:])
