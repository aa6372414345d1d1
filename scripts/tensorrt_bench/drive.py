"""A recorded drive on the GPU: decoding overlapped with inference, and a trace of frames for Perfetto."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from perception.engines.cuda_frame import FrameLayout
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_frames import FramePath
from perception.frame import Frame
from perception.sources.prefetch import Prefetched
from perception.sources.table import open_source
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case

TRACED = 20
DECODED_FRAMES = 200


def overlapped(case: Case, precision: str, clip: Path, book: Book) -> None:
    """Frames a second: decoding alone, inference alone, both at once in a thread each."""
    spec = case.spec
    with closing(open_source(clip)) as source:
        first = next(iter(source.frames()))
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    layout = FrameLayout(first.width_px, first.height_px)
    path = FramePath(engine, spec, layout, buffers=2, score_threshold=spec.decoding.score_threshold)
    buffer = path.lend()
    buffer[...] = first.pixels

    decoded = _rate(_frames(clip, prefetched=False), lambda frame: None)
    inferred = _rate(iter([first] * DECODED_FRAMES), lambda frame: path.detect(buffer))

    def copied_in(frame: Frame) -> None:
        np.copyto(buffer, frame.pixels)
        path.detect(buffer)

    both = _rate(_frames(clip, prefetched=True), copied_in)
    slower = min(decoded, inferred)
    book.raw[f"frames a second of {clip.name}"] = {"decoding": decoded, "inference": inferred, "overlapped": both}
    book.row(
        f"{clip.name}: decoded on the CPU and inferred at once, share of the slower alone",
        both / slower, unit="share", samples=DECODED_FRAMES, better="higher",
    )  # fmt: skip
    engine.close()


def _frames(clip: Path, *, prefetched: bool) -> Iterator[Frame]:
    source = open_source(clip)
    with closing(Prefetched(source) if prefetched else source) as opened:
        for number, frame in enumerate(opened.frames()):
            if number >= DECODED_FRAMES:
                return
            yield frame


def _rate(frames: Iterator[Frame], work: Callable[[Frame], object]) -> float:
    started, count = time.perf_counter(), 0
    for frame in frames:
        work(frame)
        count += 1
    return count / (time.perf_counter() - started)


def traced(case: Case, precision: str, clip: Path, book: Book) -> None:
    """Write a Chrome trace: what the host and the GPU did for each of some frames."""
    spec = case.spec
    frames = [frame for _, frame in zip(range(TRACED), _frames(clip, prefetched=False), strict=False)]
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
        found = path.finish_detections()
        marks.append(time.perf_counter_ns() / 1e3)
        for name, begun, ended in zip(("fill buffer", "launch", "wait and select"), marks, marks[1:], strict=False):
            span(name, "host", begun, ended)
        gpu_us = 1e3 * float(np.median(path.gpu_times_ms(buffer, 5)))
        span(f"frame {frame.frame_id}: {len(found)} detections", "GPU (graph)", marks[2], marks[2] + gpu_us)
    (book.out / "trace.json").write_text(json.dumps({"traceEvents": events}))
    engine.close()
