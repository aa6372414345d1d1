"""Where the slowest frames lose their time: launch, wait, reading, and the GPU's own time by events inside the graph.

What the machine takes from everybody stands beside it: gaps of a thread that only looks at the clock, faults of pages,
and how often the kernel took the CPU away.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver  # type: ignore[import-not-found, unused-ignore]

from perception.engines.cuda_device import CudaDevice
from perception.engines.cuda_graph import Launch
from scripts.tensorrt_bench.book import Book, gpu_state, regular_service
from scripts.tensorrt_bench.sides import Side

STAGES = ("launch", "wait", "read", "whole", "on the GPU", "beside the GPU")
SLOWEST_SHARE = 0.001
TURN, GAPS_S = 500, 3.0
GAPS_US = (5, 10, 20, 30, 50, 100, 200, 500, 1000)
TOLD = 40
_EXTERNAL = 1  # CU_EVENT_RECORD_EXTERNAL: a node of the graph that records the event at every launch


class Timed:
    """One launch with an event at either end of its graph, so that no delay of the host counts as the GPU's."""

    def __init__(self, side: Side, device: CudaDevice) -> None:
        """Capture it."""
        self._side, self._device = side, device
        with device.current("opening a timed graph"):
            self._ends = [made(driver.cuEventCreate(0)) for _ in range(2)]
            self._handle = driver.CUstream(side.stream.handle)
            self._launch = Launch(side.stream, self._enqueue)
        self.rows: list[tuple[float, ...]] = []

    def run(self, count: int) -> None:
        """Some frames; the first few of a turn do not count."""
        now, rows = time.perf_counter_ns, []
        with self._device.current("timing frames"):
            for _ in range(count):
                begun_ns = now()
                self._launch.start()
                launched_ns = now()
                self._side.stream.synchronize()
                waited_ns = now()
                self._side.read()
                read_ns = now()
                rows.append((begun_ns, launched_ns, waited_ns, read_ns, made(driver.cuEventElapsedTime(*self._ends))))
        self.rows += rows[20:]

    def told(self) -> dict[str, Any]:
        """Percentiles of each stage, what the slowest frames spent beyond the median frame, and when they came."""
        marks_ns = np.array([row[:4] for row in self.rows], np.int64)
        gpu_us = 1e3 * np.array([row[4] for row in self.rows])
        stages = np.diff(marks_ns, axis=1) / 1e3
        whole = stages.sum(axis=1)
        columns = np.column_stack((stages, whole, gpu_us, whole - gpu_us))
        slowest = np.flatnonzero(whole >= np.quantile(whole, 1 - SLOWEST_SHARE))
        beyond_us = columns[slowest] - np.median(columns, axis=0)
        return {
            "samples": len(self.rows),
            "us": {name: spread(column) for name, column in zip(STAGES, columns.T, strict=True)},
            "slowest, mean us beyond the median": dict(zip(STAGES, beyond_us.mean(axis=0).round(1), strict=True)),
            "slowest, by frame": beyond_us.round(1)[:TOLD].tolist(),
            "slowest_at_ms": ((marks_ns[slowest, 0] - marks_ns[0, 0]) / 1e6).round(1)[:TOLD].tolist(),
        }

    def _enqueue(self) -> None:
        self._mark(self._ends[0])
        self._side.enqueue()
        self._mark(self._ends[1])

    def _mark(self, event: Any) -> None:  # noqa: ANN401  (cuda.bindings is untyped)
        captured = int(made(driver.cuStreamIsCapturing(self._handle))) == 1
        made(driver.cuEventRecordWithFlags(event, self._handle, _EXTERNAL if captured else 0))


def tails(sides: Sequence[Side], device: CudaDevice, book: Book, *, rounds: int, limit_s: float) -> None:
    """All sides in turn, `TURN` frames each; the machine's gaps before and after."""
    timed = {side.name: Timed(side, device) for side in sides}
    found: dict[str, Any] = {}
    with regular_service(book):
        found["gaps a second, before"] = gaps_a_second(GAPS_S)
        before, ends_at = resource.getrusage(resource.RUSAGE_THREAD), time.monotonic() + limit_s
        for _ in range(rounds):
            for each in timed.values():
                each.run(TURN)
            if time.monotonic() > ends_at:
                break
        found["gpu state"], after = gpu_state(), resource.getrusage(resource.RUSAGE_THREAD)
        found["gaps a second, after"] = gaps_a_second(GAPS_S)
    for name in ("ru_minflt", "ru_majflt", "ru_nivcsw", "ru_nvcsw"):
        found[name] = getattr(after, name) - getattr(before, name)
    print(" ", found, flush=True)
    for name, each in timed.items():
        found[name] = told = each.told()
        us, count = told["us"], told["samples"]
        book.row(f"{name}, by stages, p50", us["whole"]["p50"] / 1e3, unit="ms", samples=count)
        for stage in ("whole", "on the GPU"):
            tail = us[stage]["p99.9"] / us[stage]["p50"]
            book.row(f"{name}, {stage}, p99.9 over p50", tail, unit="ratio", samples=count)
        for stage in ("launch", "wait", "read", "beside the GPU"):
            print(f"    {stage}: {us[stage]}", flush=True)
        print("    slowest:", told["slowest, mean us beyond the median"], flush=True)
    book.raw["tails"] = found


def gaps_a_second(seconds: float) -> dict[str, float]:
    """How often a second this thread, which only looks at the clock, loses its CPU for at least so many µs."""
    now = time.perf_counter_ns
    first_ns = last_ns = now()
    gaps_us: list[float] = []
    while last_ns - first_ns < seconds * 1e9:
        at_ns = now()
        if at_ns - last_ns > 1e3 * GAPS_US[0]:
            gaps_us.append((at_ns - last_ns) / 1e3)
        last_ns = at_ns
    lengths = np.array(gaps_us)
    return {f"{least}": float((lengths >= least).sum() / seconds) for least in GAPS_US}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Percentiles of a column."""
    return {f"p{share:g}": round(float(np.percentile(values, share)), 2) for share in (0, 50, 99, 99.9, 100)}


def made(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401  (cuda.bindings is untyped)
    """What a call of `cuda.bindings` gave.

    Raises:
        RuntimeError: it failed.
    """
    if answer[0]:
        raise RuntimeError(f"CUDA answered {answer[0]}, expected success")
    return answer[-1]
