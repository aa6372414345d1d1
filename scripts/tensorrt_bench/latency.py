"""Frame to detections beside its floor and a tutorial's loop."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from perception.engines.cuda_graph import Launch
from perception.engines.lending import Pixels
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_frames import FrameMemory, FramePath
from perception.frame import Frame
from perception.latency import LatencyRecorder
from perception.pipeline import Pipeline
from scripts.tensorrt_bench.book import Book, Job, gpu_state, p50_ms, regular_service, tail, take_turns
from scripts.tensorrt_bench.cases import Case
from scripts.tensorrt_bench.drive import in_a_lent_buffer, in_shared_memory
from scripts.tensorrt_bench.sides import FULL_HD, MEMORIES, floor
from scripts.tensorrt_bench.tutorial import tutorial_loop

GPU_FRAMES = 5_000


def plans_compared(case: Case, book: Book) -> str:
    """The network alone, one graph a run, every built precision in turn; returns the fastest."""
    engines = {precision: TensorRtEngine(case.plan(precision).read_bytes()) for precision in case.built()}
    jobs = {name: (engine.again, 200) for name, engine in engines.items()}
    with regular_service(book):
        recorders = take_turns(jobs, 10)
    medians = {name: p50_ms(recorder) for name, recorder in recorders.items()}
    for name, value in medians.items():
        book.row(f"{case.name} {name}: network, one graph, p50", value, unit="ms", samples=recorders[name].samples)
    for engine in engines.values():
        engine.close()
    return min(medians, key=lambda name: medians[name])


def frame_to_detections(case: Case, precision: str, book: Book, *, samples: int, limit_s: float) -> None:
    """The main rows: frames in both kinds of memory, most of them in the faster one, beside floor and tutorial."""
    spec = case.spec
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    picture = np.asarray(cv2.resize(case.images(1)[0], (1920, 1080)), np.uint8)
    paths, gpu_ms = {}, {}
    for memory in MEMORIES:
        path = FramePath(engine, spec, FULL_HD, buffers=1, memory=memory, score_threshold=spec.decoding.score_threshold)
        buffer = path.lend()
        buffer[...] = picture
        print(memory, "graph:", path.why_no_graph or "captured", len(path.detect(buffer)), "detections", flush=True)
        paths[memory] = (path, buffer)
        gpu_ms[memory] = path.gpu_times_ms(buffer, 500)
    faster = min(MEMORIES, key=lambda memory: np.median(gpu_ms[memory]))
    jobs = {m: (call(*each), 1000 if m == faster else 200) for m, each in paths.items()}
    pipeline = Pipeline(spec, engine, deadline_ns=1 << 60)
    elsewhere = Frame(picture, "camera", 0, 0, "0")
    pipeline.step(elsewhere)
    lent = in_a_lent_buffer(pipeline, elsewhere)
    adopting = Pipeline(spec, engine, deadline_ns=1 << 60)
    shared = in_shared_memory(adopting, elsewhere)
    jobs |= {
        "in shared memory": (lambda: adopting.step(shared), 200),
        "in a lent buffer": (lambda: pipeline.step(lent), 200),
        "in other memory": (lambda: pipeline.step(elsewhere), 200),
    }
    jobs["floor"] = (_floor(engine), 200)
    jobs["tutorial"] = (tutorial_loop(engine, spec, picture), 4)
    with regular_service(book) as granted:
        book.conditions["real-time settings"] = granted
        recorders = take_turns(jobs, samples // 1000, limit_s=limit_s)
        gpu_ms = {memory: path.gpu_times_ms(buffer, GPU_FRAMES) for memory, (path, buffer) in paths.items()}
    book.raw["latency"] = {name: recorder.to_dict() for name, recorder in recorders.items()}
    book.raw["latency gpu state"] = gpu_state()
    shares = (0, 50, 99, 99.9, 100)
    book.raw["gpu time of a frame, ms"] = {
        name: np.percentile(times, shares).tolist() for name, times in gpu_ms.items()
    }
    _told(recorders, gpu_ms, precision, book)
    for name in ("in a lent buffer", "in shared memory", "in other memory"):
        words, recorder = f"1080p frame {name} through the pipeline, {precision}", recorders[name]
        book.row(f"{words}, p50", p50_ms(recorder), unit="ms", samples=recorder.samples)
    print(" ", pipeline.way, "|", adopting.way, flush=True)
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
        p50_of_gpu, p999_of_gpu = np.percentile(times, (50, 99.9))
        gpu_tail = float(p999_of_gpu / p50_of_gpu)
        book.row(f"{words}, the GPU's own time, p99.9 over p50", gpu_tail, unit="ratio", samples=len(times))
        python_us = 1e3 * (p50[memory] - float(p50_of_gpu))
        book.row(f"{words}, time outside the GPU's, p50", python_us, unit="µs", limit=40, samples=count)
        faster = p50["tutorial"] / p50[memory]
        count = recorders["tutorial"].samples
        book.row(f"{words}, a tutorial's loop over it", faster, unit="×", limit=4.0, samples=count, better="higher")


def call(path: FramePath, buffer: Pixels) -> Job:
    """One frame as a job."""
    return lambda: path.detect(buffer)


def _floor(engine: TensorRtEngine) -> Callable[[], None]:
    side = floor(engine)
    with engine.device.current("opening the floor"):
        launch = Launch(side.stream, side.enqueue)

    def run() -> None:
        with engine.device.current("the floor"):
            launch.start()
            side.stream.synchronize()

    return run
