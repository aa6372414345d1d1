"""Lock-step replay of recorded 720p H.264 beside what the slower of decoding alone and inference alone allows.

The three sides take turns in one run over the same frames. Inference alone is the pipeline on frames that are decoded
already, its threads as in the replay; decoding alone is the source read to its end and let go.

The limit stands where inference leaves a core to the decoder. With as many threads as cores the two halves share them,
and no replay can reach what each would have for itself: that row is for information.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.runtime import replay
from perception.sources.table import open_source
from tests.benchmarks.results import row, write_results
from tests.benchmarks.test_pipeline_overhead import Case, cases

COMMAND = "make bench"
ROUNDS = 5
FRAMES = 90
KEPT = 30
SETTLE_S = 0.1


@dataclass
class Sides:
    """Nanoseconds a frame of each side, one sample a round."""

    decode: list[float] = field(default_factory=list)
    infer: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)

    def shares(self) -> list[float]:
        """Of each round: the slower side's time a frame over the replay's."""
        rounds = zip(self.decode, self.infer, self.replay, strict=True)
        return [max(decode, infer) / whole for decode, infer, whole in rounds]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_replay_beside_its_slower_half(benchmark: BenchmarkFixture, case: Case, threads: int) -> None:
    engine = OnnxRuntimeEngine(case.model.read_bytes(), threads=threads)
    pipeline = Pipeline(ModelSpec.load(case.spec), engine, deadline_ns=10**9)
    sides = Sides()

    def one_round() -> None:
        for side, work in ((sides.decode, decode_alone), (sides.infer, infer_alone), (sides.replay, replay_whole)):
            time.sleep(SETTLE_S)
            side.append(work(case, pipeline))

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=1)
    for side in (sides.decode, sides.infer, sides.replay):
        del side[0]  # the round that warmed up
    write_results(f"replay_{case.name}_{threads}_threads", rows_of(sides, case, threads))


def decode_alone(case: Case, _: Pipeline) -> float:
    source = open_source(case.video)
    spent_ns = a_frame(lambda: sum(1 for _ in islice(source.frames(), FRAMES)))
    source.close()
    return spent_ns


def infer_alone(case: Case, pipeline: Pipeline) -> float:
    source = open_source(case.video)
    frames = list(islice(source.frames(), KEPT))
    source.close()
    pipeline.step(frames[0])

    def step_all() -> int:
        for index in range(FRAMES):
            pipeline.step(frames[index % KEPT])
        return FRAMES

    return a_frame(step_all)


def replay_whole(case: Case, pipeline: Pipeline) -> float:
    source = open_source(case.video)
    seen: list[int] = []

    def play() -> int:
        replay(pipeline, source, sinks=(), on_frame=lambda _: seen.append(time.perf_counter_ns()), limit=FRAMES)
        return FRAMES

    play()
    source.close()
    # From the first frame's result to the last's: warming up and opening belong to no frame.
    return (seen[-1] - seen[0]) / (len(seen) - 1)


def a_frame(work: Callable[[], int]) -> float:
    """Nanoseconds of work that returns how many frames it took."""
    started_ns = time.perf_counter_ns()
    frames = work()
    return (time.perf_counter_ns() - started_ns) / frames


def rows_of(sides: Sides, case: Case, threads: int) -> list[dict[str, object]]:
    """One row a claim; figures without a limit are for information."""
    where = f"{case.name}, 1280×720 H.264, threads {threads}"
    limit = 0.90 if threads < len(os.sched_getaffinity(0)) else None

    def figure(name: str, value: float, unit: str, better: str, limit: float | None = None) -> dict[str, object]:
        samples = len(sides.replay) * FRAMES
        return row(f"{name}; {where}", value, limit=limit, unit=unit, better=better, samples=samples, command=COMMAND)

    return [
        figure("decoding alone", 1e9 / median(sides.decode), "frames/s", "higher"),
        figure("inference alone, pixels to boxes", 1e9 / median(sides.infer), "frames/s", "higher"),
        figure("lock-step replay", 1e9 / median(sides.replay), "frames/s", "higher"),
        figure("replay, as a share of its slower half", median(sides.shares()), "ratio", "higher", limit=limit),
    ]
