"""What the deadline loop itself costs and holds: bookkeeping, four cameras, overload, a shadow beside production."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

import numpy as np

from perception.camera_health import CameraHealth
from perception.deadline.plan import ModelPlan, Plan, Settings, plan_of
from perception.deadline.run import Options, Report, Running, run_plan
from perception.deadline.worker import Reply, receive, send
from perception.latency import LatencyRecorder
from perception.pipeline import FrameResult, Status
from perception.results import Detections
from perception.sustain import SteadySource, highest_rate
from tests.benchmarks.results import row
from tests.benchmarks.runtime.material import KITTI, Looped, first_frames, float_package, noise, null_package

COMMAND = "make bench-runtime"
MS = 1_000_000
_ECHO = """
import socket, sys
from perception.deadline.worker import receive, send
other = socket.socket(fileno=int(sys.argv[1]))
try:
    while True:
        send(other, receive(other))
except (EOFError, OSError):
    pass
"""


@dataclass
class Seen:
    """What a run published, in bounded memory, with the memory it and its engines held every second."""

    ages: LatencyRecorder = field(default_factory=LatencyRecorder)
    bookkeeping: LatencyRecorder = field(default_factory=LatencyRecorder)
    rss_bytes: list[int] = field(default_factory=list)
    frames: int = 0
    missed: int = 0
    done: int = 0
    running: Running | None = None
    _next_ns: int = 0

    def add(self, outcome: FrameResult) -> None:
        """Count one outcome; skips shadows."""
        if outcome.model.startswith("shadow."):
            return
        self.frames += 1
        self.missed += outcome.status in (Status.LATE, Status.SKIPPED, Status.STALE)
        if outcome.result is None:
            return
        self.done += 1
        self.ages.record(outcome.age_ns)
        timings = outcome.timings
        served_ns = timings.preprocess_ns + timings.infer_ns + timings.decode_ns
        self.bookkeeping.record(max(0, outcome.instants.finished_ns - outcome.instants.arrived_ns - served_ns))

    def watch_memory(self, now_ns: int) -> None:
        """Remember the memory of this process and its engines', once a second."""
        if now_ns >= self._next_ns and self.running is not None:
            self._next_ns = now_ns + 1_000_000_000
            pids = [os.getpid(), *(lane.pid for lane in self.running.crew.all_lanes)]
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids if pid is not None]
            self.rss_bytes.append(sum(pages) * os.sysconf("SC_PAGE_SIZE"))

    def watch(self, running: Running) -> None:
        """Know whose memory to look at."""
        self.running = running

    def growth(self) -> tuple[float, float, int]:
        """Slope of the memory and twice its standard error, MiB a minute, and the samples.

        The first quarter, in which buffers fill, does not count. Neighbouring samples are alike, so the error is that
        of a line through the means of ten blocks.
        """
        held = np.array(self.rss_bytes[len(self.rss_bytes) // 4 :]) / 2**20
        blocks = np.array_split(np.stack((np.arange(len(held)) / 60, held)), 10, axis=1)
        minutes, means = np.array([block.mean(axis=1) for block in blocks]).T
        (slope, _), covariance = np.polyfit(minutes, means, 1, cov=True)
        return float(slope), float(2 * np.sqrt(covariance[0, 0])), len(held)


def seen_in(plan: Plan, source: Any) -> tuple[Seen, Report]:
    """Run a plan over a source and collect what it published."""
    seen = Seen()
    options = Options(force=True, on_frame=seen.add, on_tick=seen.watch_memory, on_open=seen.watch)
    return seen, run_plan(plan, source, options=options)


def bookkeeping(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """A null engine that answers at once: what is left is the loop, the hand-over to another process, and back."""
    package, floor = null_package(folder / "null", service_ms=0), _handed_over_and_back()
    where = "a message to another process and back, as the loop sends it and nothing else"
    rows = [_row(f"{where}, p50", floor, 50, None), _row(f"{where}, p99.9", floor, 99.9, None)]
    for spin, how in ((False, ""), (True, " that spins")):
        source = SteadySource(noise(16), cameras=1, rate_hz=200, seconds=max(10, minutes * 60))
        figures = seen_in(plan_of(package, settings=Settings(spin=spin)), source)[0].bookkeeping
        where = f"bookkeeping a frame and camera, null engine in a process of its own{how}"
        rows += [_row(f"{where}, p50", figures, 50, 60), _row(f"{where}, p99.9", figures, 99.9, 250)]
    return [*rows, *_health_rows()]


def _handed_over_and_back(samples: int = 3000) -> LatencyRecorder:
    """The raw limit: two wake-ups by the kernel, over the same socket with the same words, 200 times a second."""
    mine, theirs = socket.socketpair()
    command = [sys.executable, "-c", _ECHO, str(theirs.fileno())]
    selector, recorder = DefaultSelector(), LatencyRecorder()
    selector.register(mine, EVENT_READ)
    with subprocess.Popen(command, pass_fds=(theirs.fileno(),)), mine:
        theirs.close()
        for number in range(samples + 100):
            time.sleep(0.005)
            started_ns = time.perf_counter_ns()
            send(mine, Reply(Detections.empty(), "", 0, (0, 0, 0)))
            selector.select()
            receive(mine)
            if number >= 100:
                recorder.record(time.perf_counter_ns() - started_ns)
    selector.close()
    return recorder


def _health_rows() -> list[dict[str, Any]]:
    """What camera health costs at 1080p, on pictures that are not in the cache."""
    health, recorder = CameraHealth(rate_hz=30), LatencyRecorder()
    frames = noise(24, height_px=1080, width_px=1920)
    for index in range(1200):
        frame = replace(frames[index % 24], frame_id=index, captured_ns=index * 33_333_333)
        started_ns = time.perf_counter_ns()
        health.observe(frame)
        recorder.record(time.perf_counter_ns() - started_ns)
    return [_row("camera health at 1920×1080, p50", recorder, 50, 300)]


def four_cameras(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """KITTI's four cameras at 10 Hz and NanoDet in float, deadline 100 ms; memory by the slope of its RSS."""
    package = float_package(folder / "nanodet", "nanodet_m_416", deadline_ms=100)
    plan = plan_of(package, settings=Settings(pair_window_ms=30, pair_tolerance_ms=12))
    seen, report = seen_in(plan, Looped(first_frames(KITTI, 160), seconds=max(20, minutes * 60)))
    slope, noise_of_it, seconds = seen.growth()
    bound_ms = max(demand.response_ns for demand in report.admission.demands) / 1e6
    where = "4 KITTI cameras 1242×375 at 10 Hz, NanoDet-m 416 float32, deadline 100 ms"
    return [
        _plain(f"misses; {where}", seen.missed / seen.frames, "ratio", seen.frames, 0.001),
        _row(f"age p50; {where}", seen.ages, 50, None, scale=MS, unit="ms"),
        _row(f"age p99; {where}", seen.ages, 99, None, scale=MS, unit="ms"),
        _plain(f"age max; {where}", seen.ages.max_ns / MS, "ms", seen.frames, 100),
        _plain(f"response bound that admission control predicted; {where}", bound_ms, "ms", 1, 100),
        _plain(f"RSS slope of loop and engines; {where}", slope, "MiB/min", seconds, None),
        _plain(f"its noise, two standard errors; {where}", noise_of_it, "MiB/min", seconds, None),
        _plain(f"RSS slope beyond its noise; {where}", max(0.0, slope - noise_of_it), "MiB/min", seconds, 0.01),
    ]


def overload(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Twice the rate that is sustained: what gets through, how old it is, whether anything grows."""
    plan = plan_of(null_package(folder / "slow", service_ms=10, deadline_ms=100))
    frames = noise(16)
    seconds = max(10, minutes * 60)
    capacity, _ = seen_in(plan, SteadySource(frames, cameras=1, rate_hz=1000, seconds=seconds))
    sustained = highest_rate(plan, frames, cameras=1, seconds=2, on_trial=lambda _: None)
    rate_hz = 2 * (sustained.rate_hz if sustained else 90)
    seen, _ = seen_in(plan, SteadySource(frames, cameras=1, rate_hz=rate_hz, seconds=seconds))
    share = seen.done / capacity.done
    period_ms = 1000 / rate_hz
    where = f"null engine of 10 ms, frames at {rate_hz:.0f} Hz, twice what is sustained"
    queue = seen.ages.percentile_ns(99) / MS - period_ms - 10
    return [
        _plain(f"throughput, share of capacity; {where}", share, "ratio", seen.frames, 0.95, better="higher"),
        _row(f"age p50; {where}", seen.ages, 50, None, scale=MS, unit="ms"),
        _plain(f"age p99 beyond one period and one service; {where}", queue, "ms", seen.done, 2.0),
    ]


def shadow_cost(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Production alone and with a shadow beside it, in turn: what the shadow adds to the age of results."""
    package = float_package(folder / "nanodet", "nanodet_m_416", deadline_ms=100)
    candidate = float_package(folder / "fastestdet", "fastestdet_352", deadline_ms=100)
    frames = [frame for frame in first_frames(KITTI, 160) if frame.camera_id == "image_02"]
    alone, beside, shares = LatencyRecorder(), LatencyRecorder(), []
    rounds = max(2, int(minutes * 60 / 20))
    for _ in range(rounds):
        for recorder, shadow in ((alone, None), (beside, candidate)):
            plan = plan_of(package, shadow=shadow, settings=Settings(threads=1))
            seen, report = seen_in(plan, Looped(frames, seconds=10))
            recorder.merge(seen.ages)
            if report.shadow is not None:
                shares.append(report.shadow.run / report.shadow.offered)
    where = "NanoDet-m, one KITTI camera at 10 Hz; FastestDet as shadow"
    rows = []
    for percent, limit in ((50, None), (99, None), (99.9, 1.01)):
        ratio = beside.percentile_ns(percent) / alone.percentile_ns(percent)
        carried = alone.percentile_or_none_ns(percent) is not None
        note = "" if carried else " (too few samples to carry it)"
        rows.append(
            _plain(f"age p{percent} with a shadow over without{note}; {where}", ratio, "ratio", alone.samples, limit)
        )
    rows.append(
        _plain(f"frames the shadow saw; {where}", float(np.mean(shares)), "ratio", rounds, None, better="higher")
    )
    return rows


def plan_with_fallback(folder: Path) -> Plan:
    """A null engine with another as its fallback, for the campaign of faults."""
    packages = (null_package(folder / "main", service_ms=4), null_package(folder / "fallback", service_ms=2))
    model = ModelPlan("null", packages, 100 * MS, fallback=1)
    return Plan((model,), Settings(hang_after_ms=300, restarts=10_000, lanes=2))


def _row(
    name: str, recorder: LatencyRecorder, percent: float, limit: float | None, *, scale: int = 1000, unit: str = "µs"
) -> dict[str, Any]:
    note = "" if recorder.percentile_or_none_ns(percent) is not None else " (too few samples to carry it)"
    return _plain(name + note, recorder.percentile_ns(percent) / scale, unit, recorder.samples, limit)


def _plain(
    name: str, value: float, unit: str, samples: int, limit: float | None, *, better: str = "lower"
) -> dict[str, Any]:
    return row(name, value, limit=limit, unit=unit, better=better, samples=samples, command=COMMAND)
