"""What the pipeline costs beside the bare engine, and beside a plain script: interleaved in one run, same frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import onnxruntime
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.sources.table import open_source
from tests.benchmarks.plain_script import yolox_on_video
from tests.benchmarks.results import row, write_results

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
COMMAND = "make bench"
ROUNDS = 5
BARE_REPEATS = 10
SETTLE_S = 0.05


@dataclass(frozen=True)
class Case:
    """A model, its spec and a 1280×720 video."""

    name: str
    model: Path
    spec: Path
    video: Path


@dataclass
class Sides:
    """Samples of each side, in nanoseconds a frame."""

    bare: list[int] = field(default_factory=list)
    bare_beside: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    pipeline: list[int] = field(default_factory=list)
    pipeline_whole: list[float] = field(default_factory=list)
    script_whole: list[float] = field(default_factory=list)


def cases() -> list[Case]:
    """The bundled detector always; YOLOX-nano on a public clip where the shared recordings lie beside this folder."""
    found = [
        Case(
            "sample_detector",
            SAMPLES / "models" / "sample_detector.onnx",
            SAMPLES / "models" / "sample_detector.yaml",
            SAMPLES / "drive" / "front.mp4",
        )
    ]
    shared = ROOT.parent / "shared" / "data"
    if shared.exists():
        model = shared / "models" / "yolox_nano_416.onnx"
        clip = shared / "clips" / "udacity_vehicle_test_video.mp4"
        found.append(Case("yolox_nano_416", model, ROOT / "tests" / "specs" / "yolox_nano_416.yaml", clip))
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_pipeline_beside_bare_engine_and_plain_script(benchmark: BenchmarkFixture, case: Case, threads: int) -> None:
    spec = ModelSpec.load(case.spec)
    content = case.model.read_bytes()
    engine = OnnxRuntimeEngine(content, threads=threads)
    pipeline = Pipeline(spec, engine, deadline_ns=10**9)
    bare = bare_session(content, threads)
    sides = Sides()

    def one_round() -> None:
        frames = pipeline_pass(case, pipeline, sides)
        bare_pass(bare, pipeline, frames, sides)
        bare_beside_pass(case, bare, pipeline, sides)
        script_pass(case, spec, threads, sides)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    write_results(f"pipeline_{case.name}_{threads}_threads", rows_of(sides, case, threads))


def pipeline_pass(case: Case, pipeline: Pipeline, sides: Sides) -> list[Frame]:
    """Every frame of the video through the pipeline, decoding beside it; keeps the first ones for the bare side."""
    started_ns, count, kept = time.perf_counter_ns(), 0, []
    source = open_source(case.video)
    for frame in source.frames():
        sides.pipeline.append(elapsed_ns(lambda frame=frame: pipeline.step(frame)))
        count += 1
        if len(kept) < 16:
            kept.append(frame)
    sides.pipeline_whole.append((time.perf_counter_ns() - started_ns) / count)
    source.close()
    return kept


def bare_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """ONNX Runtime as it comes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def bare_pass(session: onnxruntime.InferenceSession, pipeline: Pipeline, frames: list[Frame], sides: Sides) -> None:
    """`session.run` and nothing else in turn with the pipeline on the same frames, nothing decoded beside them.

    In turn by blocks of frames: the threads of a session spin for a while after each run, in the way of another's.
    """
    name = pipeline.spec.picture.tensor
    tensors = [next(iter(pipeline.prepare(frame).values())).copy() for frame in frames]
    for _ in range(BARE_REPEATS):
        time.sleep(SETTLE_S)
        for tensor in tensors:
            sides.bare.append(elapsed_ns(lambda tensor=tensor: session.run(None, {name: tensor})))
        time.sleep(SETTLE_S)
        for frame in frames:
            sides.alone.append(elapsed_ns(lambda frame=frame: pipeline.step(frame)))


def bare_beside_pass(case: Case, session: onnxruntime.InferenceSession, pipeline: Pipeline, sides: Sides) -> None:
    """`session.run` alone for every frame of the video, decoded beside it: what decoding takes from any program."""
    source, name = open_source(case.video), pipeline.spec.picture.tensor
    tensor = None
    for frame in source.frames():
        if tensor is None:
            tensor = next(iter(pipeline.prepare(frame).values())).copy()
        sides.bare_beside.append(elapsed_ns(lambda tensor=tensor: session.run(None, {name: tensor})))
    source.close()


def script_pass(case: Case, spec: ModelSpec, threads: int, sides: Sides) -> None:
    """The plain script over the same video."""
    size = (spec.picture.height_px, spec.picture.width_px)
    frames = len(sides.pipeline) // len(sides.pipeline_whole)
    spent_ns = elapsed_ns(lambda: yolox_on_video(case.model, case.video, input_size=size, threads=threads))
    sides.script_whole.append(spent_ns / frames)


def elapsed_ns(work: Callable[[], object]) -> int:
    """Nanoseconds of one call."""
    started_ns = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - started_ns


def rows_of(sides: Sides, case: Case, threads: int) -> list[dict[str, object]]:
    """One row a claim; figures without a limit are for information."""
    bare_ms, alone_ms, step_ms, beside_ms = (
        median(side) / 1e6 for side in (sides.bare, sides.alone, sides.pipeline, sides.bare_beside)
    )
    whole_ms, script_ms = median(sides.pipeline_whole) / 1e6, median(sides.script_whole) / 1e6
    frames, passes = len(sides.pipeline), len(sides.pipeline_whole)
    where = f"{case.name}, 1280×720 H.264, threads {threads}"

    def figure(name: str, value: float, unit: str, samples: int, limit: float | None = None) -> dict[str, object]:
        better = "higher" if unit == "× the script's frame rate" else "lower"
        return row(f"{name}; {where}", value, limit=limit, unit=unit, better=better, samples=samples, command=COMMAND)

    return [
        figure("bare session.run, p50", bare_ms, "ms", len(sides.bare)),
        figure("bare session.run, video decoded beside it, p50", beside_ms, "ms", len(sides.bare_beside)),
        figure("pipeline, pixels to boxes, p50", alone_ms, "ms", len(sides.alone)),
        figure("pipeline, video decoded beside it, p50", step_ms, "ms", frames),
        figure("pipeline over bare session.run", alone_ms / bare_ms, "ratio", len(sides.alone), limit=1.10),
        figure(
            "pipeline over bare session.run, video decoded beside both",
            step_ms / beside_ms,
            "ratio",
            frames,
            limit=1.10,
        ),
        figure("pipeline, video decoded beside it, over bare without", step_ms / bare_ms, "ratio", frames, limit=1.10),
        figure("whole video, pipeline, per frame", whole_ms, "ms", passes),
        figure("whole video, plain script, per frame", script_ms, "ms", passes),
        figure("whole video, pipeline", script_ms / whole_ms, "× the script's frame rate", passes, limit=1.0),
    ]
