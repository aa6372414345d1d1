"""Frames delivered at a camera's rate, whatever the engine does: an open loop.

Each frame is due at its instant. A frame that comes while an older one of its camera still waits takes its place: the
older is skipped and has no result, ever. So a stall shows in every frame it delayed, as `tollgate run` shows it.
It is played by one thread: between two frames it sleeps until the next is due.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from perception.frame import Frame
from perception.pipeline import Pipeline, Timings

LEAD_NS = 2_000_000  # the first frame is due so long from now: time to get ready


@dataclass(frozen=True, slots=True)
class Pace:
    """How frames come.

    Attributes:
        period_ns: from one frame of a camera to its next.
        cameras: so many frames are due at each instant, one a camera.
    """

    period_ns: int
    cameras: int


def play(pipeline: Pipeline, frames: Sequence[Frame], pace: Pace) -> list[Timings | None]:
    """Take frames as they fall due; the answer is in their order, None for a frame that was skipped.

    Args:
        pipeline: open and warm.
        frames: decoded; the first of each `pace.cameras` belongs to the first camera, and so on.
        pace: when they are due.

    Raises:
        EngineError: the engine failed.
    """
    started_ns = time.perf_counter_ns() + LEAD_NS
    due_ns = [started_ns + index // pace.cameras * pace.period_ns for index in range(len(frames))]
    taken: list[Timings | None] = [None] * len(frames)
    waiting: dict[int, int] = {}  # camera → its newest frame; the camera that waits longest stands first
    arrived = 0
    while arrived < len(frames) or waiting:
        if not waiting:
            time.sleep(max(0, due_ns[arrived] - time.perf_counter_ns()) / 1e9)
        now_ns = time.perf_counter_ns()
        while arrived < len(frames) and due_ns[arrived] <= now_ns:
            waiting[arrived % pace.cameras] = arrived
            arrived += 1
        if waiting:
            index = waiting.pop(next(iter(waiting)))
            taken[index] = pipeline.step(frames[index], due_ns=due_ns[index]).timings
    return taken
