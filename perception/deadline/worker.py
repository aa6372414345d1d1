"""The process an engine lives in: opens pipelines, takes frames by slot, gives results back.

It is started by `perception.deadline.lane` and knows nothing of deadlines. A hung native call cannot be ended from
inside its process, and a crash takes its whole process with it; so engines live here, and whoever keeps time does not.
It ends when its socket closes, and with the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perception.deadline.realtime import Grant, RealtimeWish, ask, spinning, still_the_collector
from perception.deadline.slots import SeenSlots
from perception.engines.engine import Wait
from perception.errors import TollgateError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import Pipeline, open_pipeline
from perception.results import Result
from perception.runtime import WARM_UP_FRAMES

_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("=I")
_AT_ONCE_BYTES = 1 << 16
_FEWEST_TIMED, _MOST_TIMED, _TIMING_NS = 3, 30, 300_000_000


@dataclass(frozen=True, slots=True)
class Opened:
    """One engine a worker holds: a package, and how it is run."""

    package: EnginePackage
    threads: int
    score_threshold: float | None
    wait: Wait


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything a worker is told at its start.

    Attributes:
        engines: what to open; jobs name them by their position.
        wish: what to ask the kernel for.
        slot_bytes: size of a slot of the shared memory.
        pictures_px: width and height of the pictures to warm up on, the largest first; it is the one that is timed.
    """

    engines: tuple[Opened, ...]
    wish: RealtimeWish
    slot_bytes: int
    pictures_px: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker is open and warm.

    Attributes:
        service_ns: for each engine, whole steps timed after the warm-up.
        cpu_ns: for each engine, the CPU time of such a step, over all threads.
        rss_bytes: memory the process holds.
        grants: what the kernel gave.
        ways: for each engine, which way frames take through it.
    """

    service_ns: tuple[tuple[int, ...], ...]
    cpu_ns: tuple[int, ...]
    rss_bytes: int
    grants: tuple[Grant, ...]
    ways: tuple[str, ...]


class Work(NamedTuple):
    """One frame for one engine, by slot. A tuple: it travels for every frame."""

    engine: int
    slot: int
    height_px: int
    width_px: int


class Reply(NamedTuple):
    """What became of it: a result with its stage times, or the sentence of what went wrong."""

    result: Result | None
    failure: str
    started_ns: int
    stages_ns: tuple[int, int, int]


def send(connection: socket.socket, message: object) -> None:
    """Send a message: its length and its pickle, in one call.

    Raises:
        OSError: the other side is gone.
    """
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> Any:  # noqa: ANN401  (whatever was pickled)
    """The next message; both sides take turns, so never more than one is on its way. One call for all but long ones.

    Raises:
        EOFError: the other side is gone.
    """
    content = connection.recv(_AT_ONCE_BYTES)
    while missing := _missing_bytes(content):
        more = connection.recv(missing, socket.MSG_WAITALL)
        if not more:
            raise EOFError
        content += more
    return pickle.loads(memoryview(content)[_LENGTH.size :])


def _missing_bytes(content: bytes) -> int:
    if len(content) < _LENGTH.size:
        return _LENGTH.size - len(content)
    return int(_LENGTH.size + _LENGTH.unpack_from(content)[0] - len(content))


def main() -> None:
    """Run a worker; `argv` names three inherited files: socket, shared frames, pickled `Setup`."""
    inherited, frames, setup_file = map(int, sys.argv[1:4])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=inherited)
    setup: Setup = pickle.loads(Path(f"/proc/self/fd/{setup_file}").read_bytes())
    try:
        serve(connection, setup, SeenSlots(frames, setup.slot_bytes))
    except TollgateError as error:
        send(connection, str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody is there any more


def serve(connection: socket.socket, setup: Setup, slots: SeenSlots) -> None:
    """Open, warm up, say so, and work until the socket closes.

    Raises:
        TollgateError: an engine does not open here.
        EOFError, BrokenPipeError: the other side is gone.
    """
    grants = () if setup.wish.idle else ask(setup.wish)
    with ExitStack() as opened:
        pipelines = [
            opened.enter_context(
                open_pipeline(each.package, threads=each.threads, score_threshold=each.score_threshold, wait=each.wait)
            )
            for each in setup.engines
        ]
        for pipeline in pipelines:
            pipeline.adopt(slots.memory)
        warmed = [_warmed(pipeline, setup.pictures_px, slots) for pipeline in pipelines]
        service_ns, cpu_ns = zip(*warmed, strict=True)
        if setup.wish.idle:  # only now: a machine under load would never let it open
            grants = ask(setup.wish)
        if not setup.wish.collect_garbage:
            grants = (*grants, still_the_collector())
        spins = False
        if setup.wish.spin:
            grants = (*grants, spinning())
            spins = grants[-1].granted
        there = select.poll()
        there.register(connection, select.POLLIN)
        send(connection, Ready(service_ns, cpu_ns, _rss_bytes(), grants, tuple(each.way for each in pipelines)))
        while True:
            while spins and not there.poll(0):
                pass
            work: Work = receive(connection)
            send(connection, _done(pipelines[work.engine], slots, work))


def _warmed(
    pipeline: Pipeline, pictures_px: tuple[tuple[int, int], ...], slots: SeenSlots
) -> tuple[tuple[int, ...], int]:
    """Whole steps and the mean CPU time of one, in nanoseconds; before them some that do not count: the first of each
    size allocate and plan.

    Those of noise count where pictures are read wherever they lie; an engine that lends is timed as it will be fed.
    """
    chance = np.random.default_rng(0)
    for width_px, height_px in reversed(pictures_px):
        pixels = chance.integers(0, 256, (height_px, width_px, 3), np.uint8)
        frame = Frame(pixels, "warm-up", 0, 0, "warm-up")
        for _ in range(WARM_UP_FRAMES):
            pipeline.step(frame)
    if pipeline.lends:
        frame = replace(frame, pixels=slots.pixels(0, height_px, width_px))
    spent_ns: list[int] = []
    began_ns = time.process_time_ns()
    while len(spent_ns) < _FEWEST_TIMED or (len(spent_ns) < _MOST_TIMED and sum(spent_ns) < _TIMING_NS):
        spent_ns.append(pipeline.step(frame).timings.total_ns)
    return tuple(spent_ns), (time.process_time_ns() - began_ns) // len(spent_ns)


def _done(pipeline: Pipeline, slots: SeenSlots, work: Work) -> Reply:
    started_ns = time.perf_counter_ns()
    frame = Frame(slots.pixels(work.slot, work.height_px, work.width_px), "", 0, 0, "")
    try:
        outcome = pipeline.step(frame)
    except TollgateError as error:
        return Reply(None, str(error), started_ns, (0, 0, 0))
    timings = outcome.timings
    return Reply(outcome.result, "", started_ns, (timings.preprocess_ns, timings.infer_ns, timings.decode_ns))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
