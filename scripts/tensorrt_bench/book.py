"""What the benchmark writes: claims as docs/results has them, and raw distributions, after each step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from perception.deadline.realtime import (
    RealtimeWish,
    ask,
    still_the_collector,
    threads_switching_quickly,
    wake_the_collector,
)
from perception.engines.trt_versions import installed
from perception.latency import LatencyRecorder

COMMAND = "python -m scripts.tensorrt_bench"
GAP_NS = 5_000  # between two looks at the clock: what is longer is another's doing

Job = Callable[[], object]


class Book:
    """Rows and raw figures of one run."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[dict[str, Any]] = []
        self.raw: dict[str, Any] = {}
        self.conditions = conditions()
        out.mkdir(parents=True, exist_ok=True)

    def row(
        self, name: str, value: float, *, unit: str, limit: float | None = None, samples: int, better: str = "lower"
    ) -> None:
        """Add a claim and write everything."""
        told = {"id": name, "value": value, "limit": limit, "unit": unit, "better": better}
        self.rows.append({**told, "samples": samples, "command": COMMAND})
        print(f"  {name}: {value:.4f} {unit}" + (f" (limit {limit})" if limit is not None else ""), flush=True)
        self.write()

    def write(self) -> None:
        """Write both files."""
        claims = {"conditions": self.conditions, "rows": self.rows}
        (self.out / "tensorrt.json").write_text(json.dumps(claims, indent=2, sort_keys=True) + "\n")
        (self.out / "raw.json").write_text(json.dumps(self.raw, indent=1) + "\n")


def gpu_state() -> str:
    """Clocks, power and temperature now."""
    return _asked("clocks.sm,clocks.mem,power.draw,temperature.gpu,pstate")


def conditions() -> dict[str, str]:
    """What the machine is."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "gpu and driver": _asked("name,driver_version"),
        "clocks, power, temperature, state": gpu_state(),
        "tensorrt": installed().version,
        "python": sys.version.split()[0],
        "opencv": cv2.__version__,
        "cpu cores": str(os.cpu_count()),
    }


def _asked(fields: str) -> str:
    asked = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def take_turns(
    jobs: Mapping[str, tuple[Job, int]], rounds: int, *, settle: int = 20, limit_s: float = 600.0
) -> dict[str, LatencyRecorder]:
    """Run every job some times a round, in turn, inside `regular_service`; the first of each turn do not count.

    Args:
        jobs: name → the job, and how often it runs in a round.
        rounds: how often all have their turn.
        settle: runs at the start of a turn that do not count, at most as many as count: caches and clocks are the last
            job's.
        limit_s: begin no round later than this.
    """
    recorders = {name: LatencyRecorder() for name in jobs}
    ends_at = time.monotonic() + limit_s
    for _ in range(max(1, rounds)):
        for name, (job, times) in jobs.items():
            for _ in range(min(settle, times)):
                job()
            _record(job, times, recorders[name])
        if time.monotonic() > ends_at:
            break
    return recorders


def _record(job: Job, times: int, recorder: LatencyRecorder) -> None:
    record = recorder.record
    for _ in range(times):
        started_ns = time.perf_counter_ns()
        job()
        record(time.perf_counter_ns() - started_ns)


def p50_ms(recorder: LatencyRecorder) -> float:
    """Median in milliseconds."""
    return recorder.percentile_ns(50) / 1e6


def tail(recorder: LatencyRecorder) -> float:
    """p99.9 over p50."""
    return recorder.percentile_ns(99.9) / recorder.percentile_ns(50)


def lost_us(cpu: int, *, seconds: float = 0.2) -> tuple[float, float]:
    """What others take from a thread that spins on a CPU: the longest gap in µs, and all gaps in µs a second."""
    os.sched_setaffinity(0, {cpu})
    now = time.perf_counter_ns
    first_ns = last_ns = now()
    longest_ns = lost_ns = 0
    while last_ns - first_ns < seconds * 1e9:
        at_ns = now()
        gap_ns = at_ns - last_ns
        if gap_ns > GAP_NS:
            lost_ns += gap_ns
            longest_ns = max(longest_ns, gap_ns)
        last_ns = at_ns
    return longest_ns / 1e3, lost_ns / 1e3 / seconds


@contextmanager
def regular_service(book: Book) -> Iterator[str]:
    """This thread on the quietest CPU, the collector still, threads switching quickly; says what was granted.

    No SCHED_FIFO: a thread that spins never sleeps, and the kernel takes 50 ms of every second from such.
    """
    before = os.sched_getaffinity(0)
    gaps = {cpu: lost_us(cpu) for cpu in sorted(before)}
    quietest = min(gaps, key=lambda cpu: gaps[cpu][::-1])
    book.raw.setdefault("longest gap µs and µs lost a second, by CPU", []).append(gaps)
    print(
        f"  CPU {quietest}: gaps up to {gaps[quietest][0]:.0f} µs, {gaps[quietest][1]:.0f} µs lost a second", flush=True
    )
    grants = (*ask(RealtimeWish(cpus=(quietest,))), still_the_collector())
    with threads_switching_quickly():
        try:
            yield "; ".join(map(str, grants))
        finally:
            wake_the_collector()
            os.sched_setaffinity(0, before)
