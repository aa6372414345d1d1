"""Six 1080p cameras, all results back: a launch each, one graph with a branch each, one batch; the clock chooses."""

from __future__ import annotations

from collections.abc import Sequence

from perception.engines.lending import Pixels
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_cameras import ForkedCameras
from perception.engines.tensorrt_frames import FrameMemory, FramePath
from scripts.tensorrt_bench.book import Book, Job, p50_ms, regular_service, tail, take_turns
from scripts.tensorrt_bench.cases import Case
from scripts.tensorrt_bench.latency import call
from scripts.tensorrt_bench.sides import MEMORIES, six_batched, six_paths

TIMES = 100


def six_cameras(case: Case, precision: str, book: Book, *, rounds: int, limit_s: float) -> None:
    """Every way in both kinds of memory, in turn, beside one camera alone."""
    engine = TensorRtEngine(case.plan(precision).read_bytes())
    batch_plan = case.plan(case.batch_of(precision))
    batch = TensorRtEngine(batch_plan.read_bytes()) if batch_plan.is_file() else None
    jobs: dict[str, Job] = {}
    for memory in MEMORIES:
        jobs |= _on_one_engine(engine, case, memory)
        if batch is not None:
            jobs[f"one batch, {memory}"] = _batched(batch, case, memory)
    with regular_service(book) as granted:
        book.raw["six cameras, settings"] = granted
        recorders = take_turns({name: (job, TIMES) for name, job in jobs.items()}, rounds, limit_s=limit_s)
    book.raw["six cameras"] = {name: recorder.to_dict() for name, recorder in recorders.items()}
    medians_ms = {name: p50_ms(recorder) for name, recorder in recorders.items()}
    one_ms = min(value for name, value in medians_ms.items() if name.startswith("alone"))
    together = {name: value for name, value in medians_ms.items() if not name.startswith("alone")}
    best = min(together, key=lambda name: together[name])
    for name, value in together.items():
        words, count = f"six 1080p cameras, {precision}, {name}", recorders[name].samples
        limits = (0.40, 1.05) if name == best else (None, None)
        book.row(f"{words}, all results back, p50", value, unit="ms", samples=count)
        book.row(f"{words}, over six times one", value / (6 * one_ms), unit="ratio", limit=limits[0], samples=count)
        book.row(f"{words}, p99.9 over p50", tail(recorders[name]), unit="ratio", limit=limits[1], samples=count)
    print(f"  best: {best}; alone {one_ms:.4f} ms", flush=True)
    for each in filter(None, (engine, batch)):
        each.close()


def _on_one_engine(engine: TensorRtEngine, case: Case, memory: FrameMemory) -> dict[str, Job]:
    paths, buffers = six_paths(engine, case, memory)
    forked = ForkedCameras(paths, buffers, engine)
    print(memory, "forked graph:", forked.why_no_graph or "captured", flush=True)
    _require_equal(forked.detect(), [path.detect(buffer) for path, buffer in zip(paths, buffers, strict=True)])
    return {
        f"alone, {memory}": call(paths[0], buffers[0]),
        f"a launch each, {memory}": _a_launch_each(paths, buffers),
        f"one graph, a branch each, {memory}": forked.detect,
    }


def _a_launch_each(paths: Sequence[FramePath], buffers: Sequence[Pixels]) -> Job:
    def run() -> list[object]:
        for path, buffer in zip(paths, buffers, strict=True):
            path.start(buffer)
        found: list[object] = []
        for path in paths:
            path.wait()
            found.append(path.detections())
        return found

    return run


def _batched(batch: TensorRtEngine, case: Case, memory: FrameMemory) -> Job:
    together = six_batched(batch, case, memory)
    counts = [len(found) for found in together.detect()]
    print(memory, "batch graph:", together.why_no_graph or "captured", counts, "detections", flush=True)
    return together.detect


def _require_equal(got: Sequence[object], expected: Sequence[object]) -> None:
    """Cameras together say what each says alone.

    Raises:
        RuntimeError: they do not.
    """
    counts = [[len(found) for found in side] for side in (got, expected)]  # type: ignore[arg-type]
    if counts[0] != counts[1]:
        raise RuntimeError(f"cameras together find {counts[0]} objects, each alone {counts[1]}, expected the same")
