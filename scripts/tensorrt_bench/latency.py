"""Frame to detections beside its floor, six cameras, a tutorial's loop, loading, the GPU's own time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from perception.engines.cuda_device import pinned
from perception.engines.cuda_frame import FrameLayout
from perception.engines.cuda_graph import Launch
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_frames import FrameMemory, FramePath
from perception.latency import LatencyRecorder
from perception.model_spec import ModelSpec
from scripts.tensorrt_bench.book import Book, Job, gpu_state, p50_ms, pin_to_one_core, tail, take_turns, unpin
from scripts.tensorrt_bench.cases import Case
from scripts.tensorrt_bench.tutorial import tutorial_loop

FULL_HD = FrameLayout(1920, 1080)
CAMERAS = 6
MEMORIES: tuple[FrameMemory, ...] = ("copied", "mapped")
ANSWER_BYTES = 32 * 1024 + 8


def plans_compared(case: Case, book: Book) -> str:
    """The network alone, one graph a run, every built precision in turn; returns the fastest."""
    engines = {precision: TensorRtEngine(case.plan(precision).read_bytes()) for precision in case.built()}
    jobs = {name: (engine.again, 200) for name, engine in engines.items()}
    recorders = take_turns(jobs, 10)
    medians = {name: p50_ms(recorder) for name, recorder in recorders.items()}
    for name, value in medians.items():
        book.row(f"{case.name} {name}: network, one graph, p50", value, unit="ms", samples=recorders[name].samples)
    for engine in engines.values():
        engine.close()
    return min(medians, key=lambda name: medians[name])


def frame_to_detections(case: Case, precision: str, book: Book, *, samples: int, limit_s: float) -> None:
    """The main rows: frames in both kinds of memory, most of them in the faster one, beside floor and tutorial."""
    spec, cores = case.spec, sorted(os.sched_getaffinity(0))
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    picture = np.asarray(cv2.resize(case.images(1)[0], (1920, 1080)), np.uint8)
    paths, gpu_ms = {}, {}
    for memory in MEMORIES:
        path = FramePath(engine, spec, FULL_HD, buffers=1, memory=memory, score_threshold=spec.decoding.score_threshold)
        buffer = path.lend()
        buffer[...] = picture
        print(memory, "graph:", path.why_no_graph or "captured", len(path.detect(buffer)), "detections", flush=True)
        paths[memory] = _call(path, buffer)
        gpu_ms[memory] = path.gpu_times_ms(buffer, 500)
    faster = min(MEMORIES, key=lambda memory: np.median(gpu_ms[memory]))
    jobs: dict[str, tuple[Job, int]] = {m: (job, 1000 if m == faster else 50) for m, job in paths.items()}
    jobs["floor"] = (floor(engine), 200)
    jobs["tutorial"] = (tutorial_loop(engine, spec, picture), 4)
    book.conditions["core affinity"] = pin_to_one_core()
    recorders = take_turns(jobs, samples // 1000, limit_s=limit_s)
    unpin(cores)
    book.raw["latency"] = {name: recorder.to_dict() for name, recorder in recorders.items()}
    book.raw["latency gpu state"] = gpu_state()
    book.raw["gpu time of a frame, ms"] = {name: _spread(times) for name, times in gpu_ms.items()}
    _told(recorders, gpu_ms, precision, book)
    engine.close()


def _told(
    recorders: dict[str, LatencyRecorder], gpu_ms: dict[FrameMemory, list[float]], precision: str, book: Book
) -> None:
    """Rows of the main comparison."""
    p50 = {name: p50_ms(recorder) for name, recorder in recorders.items()}
    floor_samples = recorders["floor"].samples
    book.row("floor: 1080p copy, network, copy back, one graph, p50", p50["floor"], unit="ms", samples=floor_samples)
    book.row("floor, p99.9 over p50", tail(recorders["floor"]), unit="ratio", samples=floor_samples)
    for memory, times in gpu_ms.items():
        words, count = f"1080p BGR to detections, {precision}, {memory}", recorders[memory].samples
        book.row(f"{words}, p50", p50[memory], unit="ms", samples=count)
        book.row(f"{words}, p50 over floor", p50[memory] / p50["floor"], unit="ratio", limit=1.10, samples=count)
        book.row(f"{words}, p99.9 over p50", tail(recorders[memory]), unit="ratio", limit=1.05, samples=count)
        python_us = 1e3 * (p50[memory] - float(np.median(times)))
        book.row(f"{words}, time outside the GPU's, p50", python_us, unit="µs", limit=40, samples=count)
        faster = p50["tutorial"] / p50[memory]
        count = recorders["tutorial"].samples
        book.row(f"{words}, a tutorial's loop over it", faster, unit="×", limit=4.0, samples=count, better="higher")


def _call(path: FramePath, buffer: NDArray[np.uint8]) -> Job:
    return lambda: path.detect(buffer)


def _spread(times: list[float]) -> dict[str, float]:
    return {f"p{share:g}": float(np.percentile(times, share)) for share in (0, 50, 99)}


def floor(engine: TensorRtEngine) -> Callable[[], None]:
    """Copy of a 1080p frame, network, copy of as many bytes as candidates take: one graph, nothing else."""
    with engine.device.current("opening the floor"):
        lane = engine.open_lane()
        frame, target = pinned(FULL_HD.shape, "uint8"), cuda.mem_alloc(1920 * 1080 * 3)
        answer, source = pinned((ANSWER_BYTES,), "uint8"), cuda.mem_alloc(ANSWER_BYTES)

        def enqueue() -> None:
            cuda.memcpy_htod_async(target, frame, lane.stream)
            lane.enqueue_network()
            cuda.memcpy_dtoh_async(answer, source, lane.stream)

        launch = Launch(lane.stream, enqueue)

    def run() -> None:
        with engine.device.current("the floor"):
            launch.start()
            lane.wait()

    return run


def six_cameras(case: Case, precision: str, book: Book, *, rounds: int) -> None:
    """Six 1080p cameras on one engine, each with its own graph, all results back."""
    spec, cores = case.spec, sorted(os.sched_getaffinity(0))
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    threshold = spec.decoding.score_threshold
    for memory in MEMORIES:
        paths = [
            FramePath(engine, spec, FULL_HD, buffers=1, memory=memory, score_threshold=threshold)
            for _ in range(CAMERAS)
        ]
        buffers = [path.lend() for path in paths]
        for buffer, picture in zip(buffers, case.images(CAMERAS), strict=True):
            buffer[...] = cv2.resize(picture, (1920, 1080))
        pin_to_one_core()
        recorders = take_turns(
            {"six": (_all_of(paths, buffers), 200), "one": (_call(paths[0], buffers[0]), 200)}, rounds
        )
        unpin(cores)
        six, one = p50_ms(recorders["six"]), p50_ms(recorders["one"])
        book.raw[f"six cameras, {memory}"] = {name: recorder.to_dict() for name, recorder in recorders.items()}
        words, count = f"six 1080p cameras, {precision}, {memory}", recorders["six"].samples
        book.row(f"{words}, all results back, p50", six, unit="ms", samples=count)
        book.row(f"{words}, over six times one", six / (6 * one), unit="ratio", limit=0.40, samples=count)
        book.row(f"{words}, p99.9 over p50", tail(recorders["six"]), unit="ratio", limit=1.05, samples=count)
        for path in paths:
            path.close()
    engine.close()


def _all_of(paths: list[FramePath], buffers: list[NDArray[np.uint8]]) -> Job:
    def run() -> list[object]:
        for path, buffer in zip(paths, buffers, strict=True):
            path.start(buffer)
        return [path.finish_detections() for path in paths]

    return run


def loading(case: Case, precision: str, book: Book) -> None:
    """From a plan on a warm disk to the first detection, in fresh processes."""
    command = [sys.executable, "-m", "scripts.tensorrt_bench.latency", str(case.plan(precision))]
    command.append(str(case.folder / f"{case.name}.yaml"))
    times: list[dict[str, Any]] = []
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(json.loads(done.stdout.splitlines()[-1]))
    print(times, flush=True)
    book.raw["first detection, s"] = times
    seconds = float(np.median([each["detected"] for each in times]))
    book.row("plan on a warm disk to first detection, imports done", seconds, unit="s", limit=1.0, samples=len(times))


def first_detection(plan: str, spec_path: str) -> None:
    """What `loading` starts."""
    from pathlib import Path

    started = time.perf_counter()
    spec = ModelSpec.load(Path(spec_path))
    engine = TensorRtEngine(Path(plan).read_bytes())
    opened = time.perf_counter()
    path = FramePath(engine, spec, FULL_HD, buffers=1, score_threshold=spec.decoding.score_threshold)
    ready = time.perf_counter()
    path.detect(path.lend())
    detected = time.perf_counter()
    print(json.dumps({"engine": opened - started, "path": ready - opened, "detected": detected - started}))
    engine.close()


if __name__ == "__main__":
    first_detection(*sys.argv[1:])
