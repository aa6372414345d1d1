"""A recorded drive on the GPU: decoding overlapped with inference, and a trace of frames for Perfetto."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from perception.deadline.realtime import threads_switching_quickly
from perception.deadline.slots import SeenSlots, Slots
from perception.engines.cuda_frame import FrameLayout
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_frames import FramePath
from perception.frame import Frame
from perception.pipeline import Pipeline
from perception.sources.excerpt import Excerpt
from perception.sources.lent import lent
from perception.sources.table import open_source
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case

TRACED = 20
DECODED_FRAMES, TURNS = 600, 3


def overlapped(case: Case, precision: str, clip: Path, book: Book) -> None:
    """Frames a second: decoding alone, inference alone, and both at once; sides take turns, medians are told."""
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    pipeline = Pipeline(case.spec, engine, deadline_ns=1 << 60)
    with closing(open_source(clip)) as source:
        length = sum(1 for _ in source.frames())
        first = next(iter(source.frames()))
    laps = -(-DECODED_FRAMES // length)
    pipeline.step(first)
    still = in_a_lent_buffer(pipeline, first)
    rates: dict[str, list[float]] = {"decoding": [], "inference": [], "overlapped": []}
    with threads_switching_quickly():
        for _ in range(TURNS):
            with closing(open_source(clip)) as source:
                rates["decoding"].append(_rate(Excerpt(source, laps=laps).frames(), lambda frame: None))
            rates["inference"].append(_rate(iter([still] * DECODED_FRAMES), pipeline.step))
            with closing(open_source(clip)) as source:
                rates["overlapped"].append(_rate(lent(Excerpt(source, laps=laps), pipeline).frames(), pipeline.step))
    book.raw[f"frames a second of {clip.name}"] = rates
    decoded, inferred, both = (median(each) for each in rates.values())
    print(f"  decoding {decoded:.0f}, inference {inferred:.0f}, both {both:.0f} frames a second; {pipeline.way}")
    book.row(
        f"{clip.name}: decoded on the CPU and inferred at once, share of the slower alone",
        both / min(decoded, inferred), unit="share", limit=0.9, samples=laps * length * TURNS, better="higher",
    )  # fmt: skip
    del still
    engine.close()


def in_a_lent_buffer(pipeline: Pipeline, frame: Frame) -> Frame:
    """The same frame where the engine reads it, for a pipeline that took one of its size before.

    Raises:
        RuntimeError: the pipeline lends no buffer.
    """
    buffer = pipeline.lend(frame.pixels.shape)
    if buffer is None:
        raise RuntimeError(f"the pipeline lends no buffer ({pipeline.way}), expected one of its engine's")
    np.copyto(buffer, frame.pixels)
    return replace(frame, pixels=buffer)


def in_shared_memory(pipeline: Pipeline, frame: Frame) -> Frame:
    """The same frame in memory that processes share, as `tollgate run` has it; for a pipeline that took none before."""
    slots = Slots(1, frame.pixels.nbytes)
    seen = SeenSlots(slots.file, slots.slot_bytes)
    pipeline.adopt(seen.memory)
    pipeline.step(frame)
    slots.put(frame.pixels)
    return replace(frame, pixels=seen.pixels(0, frame.height_px, frame.width_px))


def _rate(frames: Iterator[Frame], work: Callable[[Frame], object]) -> float:
    started, count = time.perf_counter(), 0
    for frame in frames:
        work(frame)
        count += 1
    return count / (time.perf_counter() - started)


def traced(case: Case, precision: str, clip: Path, book: Book) -> None:
    """Write a Chrome trace: what the host and the GPU did for each of some frames."""
    spec = case.spec
    with closing(open_source(clip)) as source:
        frames = list(islice(source.frames(), TRACED))
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    layout = FrameLayout(frames[0].width_px, frames[0].height_px)
    path = FramePath(engine, spec, layout, buffers=1, score_threshold=spec.decoding.score_threshold)
    buffer = path.lend()
    events: list[dict[str, Any]] = []

    def span(name: str, thread: str, started_us: float, ended_us: float) -> None:
        events.append(
            {"name": name, "ph": "X", "ts": started_us, "dur": ended_us - started_us, "pid": "tollgate", "tid": thread}
        )

    for frame in frames:
        marks = [time.perf_counter_ns() / 1e3]
        np.copyto(buffer, frame.pixels)
        marks.append(time.perf_counter_ns() / 1e3)
        path.start(buffer)
        marks.append(time.perf_counter_ns() / 1e3)
        path.wait()
        marks.append(time.perf_counter_ns() / 1e3)
        found = path.detections()
        marks.append(time.perf_counter_ns() / 1e3)
        stages = ("fill buffer", "launch", "wait", "read and suppress")
        for name, begun, ended in zip(stages, marks, marks[1:], strict=False):
            span(name, "host", begun, ended)
        gpu_us = 1e3 * float(np.median(path.gpu_times_ms(buffer, 5)))
        span(f"frame {frame.frame_id}: {len(found)} detections", "GPU (graph)", marks[2], marks[2] + gpu_us)
    (book.out / "trace.json").write_text(json.dumps({"traceEvents": events}))
    engine.close()
