"""What the pipeline adds to the bare engine: both timed on the same frames, turn by turn, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from perception.engines.engine import Tensors
from perception.errors import SourceError
from perception.frame import Frame
from perception.latency import LatencyRecorder
from perception.pipeline import Pipeline
from perception.runtime import warm_up
from perception.sources.source import FrameSource

MOST_FRAMES_HELD = 32


@dataclass(frozen=True, slots=True)
class Comparison:
    """Latencies of the two sides.

    Attributes:
        engine: the bare engine on tensors prepared beforehand.
        pipeline: the same frames from pixels to result.
    """

    engine: LatencyRecorder
    pipeline: LatencyRecorder

    @property
    def overhead(self) -> float:
        """Median of the pipeline over median of the engine, minus one."""
        return self.pipeline.percentile_ns(50) / self.engine.percentile_ns(50) - 1


def held_frames(source: FrameSource, *, limit: int | None = None) -> tuple[Frame, ...]:
    """The first frames of a recording, at most `limit` and few enough to hold in memory.

    Raises:
        SourceError: the recording is empty or cannot be read.
    """
    frames = tuple(islice(source.frames(), min(limit or MOST_FRAMES_HELD, MOST_FRAMES_HELD)))
    if not frames:
        raise SourceError("the recording has no frames, expected at least 1; choose another recording")
    return frames


def compare(pipeline: Pipeline, frames: Sequence[Frame], *, samples: int, on_sample: Callable[[], None]) -> Comparison:
    """Time engine and pipeline on the same frames, one after the other, changing who goes first each time.

    Args:
        pipeline: an open pipeline.
        frames: pictures to cycle through.
        samples: how often each side is timed.
        on_sample: called after each pair, for progress.
    """
    prepared = [_copied(pipeline.prepare(frame)) for frame in frames]
    warm_up(pipeline, frames[0])
    engine, whole = LatencyRecorder(), LatencyRecorder()
    for sample in range(samples):
        index = sample % len(frames)
        turns = [
            (engine, lambda i=index: pipeline.engine.infer(prepared[i])),
            (whole, lambda i=index: pipeline.step(frames[i])),
        ]
        for recorder, work in turns if sample % 2 else reversed(turns):
            recorder.record(_elapsed_ns(work))
        on_sample()
    return Comparison(engine, whole)


def _copied(feeds: Tensors) -> Tensors:
    return {name: np.copy(array) for name, array in feeds.items()}


def _elapsed_ns(work: Callable[[], object]) -> int:
    started_ns = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - started_ns
