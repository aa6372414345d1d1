"""Thirty kinds of faults planted at random into a run of two cameras: is each flagged in time, and does all recover?"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from perception.deadline.run import Options, Report, Running, run_plan
from perception.errors import OutputError
from perception.frame import Frame
from perception.pipeline import FrameResult, Status
from perception.record import RecordingEntry, RunHeader, read_run_log
from perception.sinks.run_log import RunLogWriter
from perception.sources.source import Camera
from tests.benchmarks.results import row
from tests.benchmarks.runtime.loop_cases import COMMAND, plan_with_fallback

RATE_HZ = 30
PERIOD_NS = 1_000_000_000 // RATE_HZ
SIZE_PX = (320, 180)
CAMERAS = ("left", "right")
HEAD_S, SPACING_S, LAST_S = 3.0, 2.5, 8.0
HANG_MS, CRASH_MS = 300, 200.0


class Told(NamedTuple):
    """One published outcome."""

    at_ns: int
    camera: str
    status: Status
    causes: str


Alter = Callable[[Frame, "Planted", int], list[Frame]]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        frames: how long it lasts, in frames of its camera.
        expected: a word of the event or cause that flags it.
        delay_ms: within which it must be flagged, counted from its first faulty frame.
        alter: what it does to a frame; None where it does something to a process or the disk.
        act: what it does to the run.
        stretch_ns: by so much each period of the camera is longer.
    """

    name: str
    frames: int
    expected: str
    delay_ms: float
    alter: Alter | None = None
    act: Callable[[Running], None] | None = None
    stretch_ns: int = 0


@dataclass
class Planted:
    """A fault in the plan of the campaign: when, on which camera; and when it began on this machine's clock."""

    kind: Kind
    at_frame: int
    camera: str
    began_ns: int | None = None


def pixels_of(change: Callable[[np.ndarray], np.ndarray]) -> Alter:
    return lambda frame, planted, index: [replace(frame, pixels=np.ascontiguousarray(change(frame.pixels)))]


def times_of(change_ns: Callable[[int], int]) -> Alter:
    return lambda frame, planted, index: [replace(frame, captured_ns=frame.captured_ns + change_ns(index))]


def _lower_half(value: int) -> Alter:
    def change(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.copy()
        changed[100:] = value
        return changed

    return pixels_of(change)


def _held(frame: Frame, planted: Planted, index: int) -> list[Frame]:
    return [replace(frame, pixels=world(planted.at_frame, planted.camera))]


def _torn(frame: Frame, planted: Planted, index: int) -> list[Frame]:
    pixels = frame.pixels.copy()
    pixels[110:] = world(frame.frame_id - 1, planted.camera)[110:]
    return [replace(frame, pixels=pixels)]


def _kill(number: signal.Signals, lane: int) -> Callable[[Running], None]:
    def act(running: Running) -> None:
        pid = running.crew.lanes[lane].pid
        if pid is not None:
            os.kill(pid, number)

    return act


def _busy_loop(seconds: float) -> Callable[[Running], None]:
    """Python code of somebody else that holds the interpreter."""

    def act(running: Running) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            sum(range(1000))

    return act


class Disk:
    """A run log on a disk that can be made to fail or to be slow."""

    def __init__(self, log: RunLogWriter) -> None:
        self._log, self.failures, self.delay_s = log, 0, 0.0

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        if self.failures:
            self.failures -= 1
            raise OutputError("no space left on device")
        if self.delay_s:
            delay_s, self.delay_s = self.delay_s, 0.0
            time.sleep(delay_s)
        self._log.write(outcome)

    def close(self) -> None:
        """See `Sink.close`."""
        self._log.close()

    def abort(self) -> None:
        """See `Sink.abort`."""
        self._log.abort()


def kinds(disk: Disk) -> list[Kind]:
    """All thirty. A frame's fault is flagged with its arrival; 60 ms is two frames, for a busy machine."""

    def fail(times: int) -> Callable[[Running], None]:
        return lambda running: setattr(disk, "failures", times)

    def slow(seconds: float) -> Callable[[Running], None]:
        return lambda running: setattr(disk, "delay_s", seconds)

    gap_ms, late = 1.5 * 1000 / RATE_HZ + 60, 60.0
    return [
        Kind("black", 5, "black", late, pixels_of(lambda p: p // 16)),
        Kind("one black frame", 1, "black", late, pixels_of(np.zeros_like)),
        Kind("white", 5, "saturated", late, pixels_of(lambda p: np.full_like(p, 255))),
        Kind("sun", 5, "saturated", late, pixels_of(lambda p: np.maximum(p, 251))),
        Kind("frozen", 8, "frozen", 3 * 34 + late, _held),
        Kind("torn", 3, "torn", late, _torn),
        Kind("half written, black", 2, "torn", late, _lower_half(0)),
        Kind("half written, grey", 2, "torn", late, _lower_half(128)),
        Kind("blurred", 14, "blurred", 10 * 34 + late, pixels_of(lambda p: cv2.GaussianBlur(p, (0, 0), 3))),
        Kind("other size", 3, "wrong size", late, pixels_of(lambda p: p[:90])),
        Kind("larger size", 3, "wrong size", late, pixels_of(lambda p: np.repeat(p, 2, axis=0))),
        Kind("turned by 90°", 3, "wrong size", late, pixels_of(lambda p: p.transpose(1, 0, 2))),
        Kind("lost frame", 1, "gap", gap_ms, lambda frame, planted, index: []),
        Kind("lost five frames", 5, "gap", gap_ms, lambda frame, planted, index: []),
        Kind("lost one second", 30, "gap", gap_ms, lambda frame, planted, index: []),
        Kind("sent twice", 1, "duplicate", late, lambda frame, planted, index: [frame, frame]),
        Kind(
            "old one again",
            1,
            "out of order",
            late,
            lambda frame, planted, index: [
                frame,
                replace(frame, frame_id=frame.frame_id - 3, captured_ns=frame.captured_ns - 3 * PERIOD_NS),
            ],
        ),
        Kind("clock forward 1 s", 20, "clock jump", late, times_of(lambda index: 1_000_000_000)),
        Kind("clock back 1 s", 20, "clock jump", late, times_of(lambda index: -1_000_000_000)),
        Kind("clock forward 10 s", 20, "clock jump", late, times_of(lambda index: 10_000_000_000)),
        Kind("rate 10 % low", 45, "rate drift", 33 * 38 + late, stretch_ns=PERIOD_NS // 10),
        Kind("engine SIGKILL", 1, "SIGKILL", CRASH_MS, act=_kill(signal.SIGKILL, 0)),
        Kind("engine SIGSEGV", 1, "SIGSEGV", CRASH_MS, act=_kill(signal.SIGSEGV, 1)),
        Kind("engine SIGABRT", 1, "SIGABRT", CRASH_MS, act=_kill(signal.SIGABRT, 0)),
        Kind("engine hangs", 1, "hung", HANG_MS + 1000 + late, act=_kill(signal.SIGSTOP, 0)),
        Kind("other engine hangs", 1, "hung", HANG_MS + 1000 + late, act=_kill(signal.SIGSTOP, 1)),
        Kind("disk full once", 1, "", late, act=fail(1)),
        Kind("disk full for 1 s", 1, "", late, act=fail(4)),
        Kind("disk slow by 1 s", 1, "", late, act=slow(1.0)),
        Kind("interpreter busy", 1, "", late, act=_busy_loop(0.3)),
    ]


_WORLD = cv2.resize(
    np.random.default_rng(3).integers(40, 215, (46, 400, 3), np.uint8), (3200, 180), interpolation=cv2.INTER_CUBIC
)
_NOISE = np.random.default_rng(4).integers(-8, 9, (64, 180, 320, 1), np.int16)


def world(index: int, camera: str) -> np.ndarray:
    """What a well camera sees at its n-th frame: a textured world that passes by, with the noise of a sensor."""
    left = (index * 5 + 700 * (camera == "right")) % 2800
    seen = _WORLD[:, left : left + 320].astype(np.int16) + _NOISE[index * 7 % 64]
    return np.clip(seen, 22, 248).astype(np.uint8)


class Faulty:
    """Two cameras at 30 Hz into whose frames the planned faults are put. Nothing of it waits for the runtime."""

    def __init__(self, planted: list[Planted], *, seconds: float) -> None:
        self._planted, self._frames = planted, int(seconds * RATE_HZ)
        self.running: Running | None = None
        self.cameras = tuple(Camera(name, *SIZE_PX, float(RATE_HZ), self._frames) for name in CAMERAS)

    def camera_frames(self, camera_id: str) -> Iterator[Frame]:
        """Frames at their times on this machine's clock: a live camera."""
        start_ns = time.perf_counter_ns() + 300_000_000
        drift_ns = 0
        for number in range(self._frames):
            due_ns = start_ns + number * PERIOD_NS + drift_ns
            time.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)
            frame = Frame(world(number, camera_id), camera_id, number, due_ns, str(number))
            fault = self._active(camera_id, number)
            if fault is None:
                yield frame
                continue
            if fault.began_ns is None:
                fault.began_ns = time.perf_counter_ns()
                if fault.kind.act is not None and self.running is not None:
                    threading.Thread(target=fault.kind.act, args=(self.running,), daemon=True).start()
            drift_ns += fault.kind.stretch_ns
            if fault.kind.alter is None:
                yield frame
                continue
            yield from fault.kind.alter(frame, fault, number - fault.at_frame)

    def frames(self) -> Iterator[Frame]:
        """All cameras in order of capture."""
        raise NotImplementedError("the deadline loop reads every camera by itself")

    def close(self) -> None:
        """Nothing to give back."""

    def _active(self, camera_id: str, number: int) -> Planted | None:
        for planted in self._planted:
            if planted.camera == camera_id and planted.at_frame <= number < planted.at_frame + planted.kind.frames:
                return planted
        return None


def campaign(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Every kind at least once, in random order, evenly spaced; then whether each was flagged, and the log whole."""
    plan = plan_with_fallback(folder)
    disk = Disk(RunLogWriter(folder / "run.jsonl", _header()))
    planted = _planned(kinds(disk), minutes)
    seconds = planted[-1].at_frame / RATE_HZ + LAST_S
    source = Faulty(planted, seconds=seconds)
    published: list[Told] = []

    def remember(outcome: FrameResult) -> None:
        causes = " ".join(outcome.causes)
        published.append(Told(outcome.instants.finished_ns, outcome.frame.camera_id, outcome.status, causes))

    def on_open(running: Running) -> None:
        source.running = running

    report = run_plan(
        plan, source, sinks=[disk], options=Options(speed=None, force=True, on_frame=remember, on_open=on_open)
    )
    return _verdict(planted, source, published, report, folder)


def _planned(every: list[Kind], minutes: float) -> list[Planted]:
    chance, planned = random.Random(0), []
    rounds = max(1, int((minutes * 60 - HEAD_S - LAST_S) / (SPACING_S * len(every))))
    number = HEAD_S * RATE_HZ
    for _ in range(rounds):
        for kind in chance.sample(every, len(every)):
            planned.append(Planted(kind, int(number), chance.choice(CAMERAS)))
            number += kind.frames + SPACING_S * RATE_HZ
    return planned


def _verdict(
    planted: list[Planted],
    source: Faulty,
    published: list[Told],
    report: Report,
    folder: Path,
) -> list[dict[str, Any]]:
    running = source.running
    events = [] if running is None else [(event.at_ns, event.what) for event in running.condition.events]
    told = sorted([*events, *((each.at_ns, each.causes) for each in published)])
    silent = [fault for fault in planted if not _flagged(fault, told)]
    log = read_run_log(folder / "run.jsonl")
    missing = len(published) - len(log.frames)
    unwell = _not_recovered(planted, published)
    count = len(planted)
    return [
        _row(f"faults planted, of {len({f.kind.name for f in planted})} kinds", count, "faults", count, None),
        _row(f"faults not flagged within their stated delay ({_names(silent)})", len(silent), "faults", count, 0),
        _row(f"faults not recovered from before the next one ({_names(unwell)})", len(unwell), "faults", count, 0),
        _row("frames published but not in the log", missing, "frames", len(published), 0),
        _row("engine processes replaced", report.restarts, "processes", count, None),
    ]


def _names(faults: list[Planted]) -> str:
    return ", ".join(sorted({fault.kind.name for fault in faults})) or "none"


def _not_recovered(planted: list[Planted], published: list[Told]) -> list[Planted]:
    """Faults before whose successor (or the end) most of a camera's last ten frames were not ON_TIME."""
    begins = [fault.began_ns or 0 for fault in planted[1:]] + [published[-1].at_ns + 1]
    unwell = []
    for fault, next_ns in zip(planted, begins, strict=True):
        last: dict[str, deque[bool]] = {camera: deque(maxlen=10) for camera in CAMERAS}
        for each in published:
            if each.at_ns < next_ns:
                last[each.camera].append(each.status is Status.ON_TIME)
        if any(sum(well) <= 5 for well in last.values()):
            unwell.append(fault)
    return unwell


def _flagged(fault: Planted, told: list[tuple[int, str]]) -> bool:
    """Faults of the disk and of the interpreter need no word: they must cost nothing, which the log shows."""
    if not fault.kind.expected:
        return True
    if fault.began_ns is None:
        return False
    until_ns = fault.began_ns + int(fault.kind.delay_ms * 1e6)
    return any(fault.began_ns <= at_ns <= until_ns and fault.kind.expected in what for at_ns, what in told)


def _header() -> RunHeader:
    return RunHeader(
        package_sha256="0" * 64,
        engine_sha256="0" * 64,
        recording=RecordingEntry(name="faults", sha256="0" * 64),
        profile="x86_cpu",
        classes=("car",),
        versions={},
    )


def _row(name: str, value: float, unit: str, samples: int, limit: float | None) -> dict[str, Any]:
    return row(name, value, limit=limit, unit=unit, better="lower", samples=samples, command=COMMAND)
