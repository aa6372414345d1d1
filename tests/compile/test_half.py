from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import pytest

from compile.backends.onnxrt import build
from compile.backends.tensorrt_target import TensorRtTarget
from compile.compiler import _quantizer
from compile.contest import Contest
from compile.half import allowing_half, allows_half
from compile.job import Job, open_job
from compile.rules import RULES
from compile.search import search
from compile.target import SimulatedTarget
from perception.engines.engine import Engine
from perception.terminal import Terminal
from tests.compile.builders import write_drive, write_segmenter
from tests.compile.test_compiler import PROFILE, QUICK


@dataclass(frozen=True)
class SlowToOpen(SimulatedTarget):
    """Integers computed in float, timed as TensorRT's engines are: one for all of the same operators."""

    is_timed: bool = True
    timed: list[str] = field(default_factory=list)

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """As TensorRT builds: note which."""
        self.timed.append(TensorRtTarget.timed_as(self, content))
        return SimulatedTarget.opened(self, content)

    def timed_as(self, content: bytes) -> str:
        return TensorRtTarget.timed_as(self, content)

    def simulated(self, content: bytes) -> AbstractContextManager[Engine]:
        return SimulatedTarget.opened(self, content)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("half")
    drive = write_drive(folder / "drive", seed=1, count=32)
    profile = PROFILE.model_copy(update={"precisions": ("fp32", "fp16", "int8")})
    model: Path = write_segmenter(folder)
    return open_job(model, profile=profile, calibration=[drive], options=QUICK, terminal=Terminal(quiet=True))


@pytest.fixture(scope="module")
def searched(job: Job) -> tuple[Contest, SlowToOpen]:
    quantizer = replace(_quantizer(job), rules=RULES["tensorrt"])
    target = SlowToOpen(job.threads)
    return search(job, quantizer, target), target


def test_the_mark_is_part_of_the_bytes_and_nothing_else_changes(job):
    model = job.imported.model
    marked = allowing_half(model)
    assert not allows_half(model)
    assert allows_half(marked)
    assert build(marked) != build(model)
    assert build(allowing_half(marked)) == build(marked)
    assert marked.graph == model.graph


def test_half_precision_is_graded_beside_float_and_int8(searched):
    contest, _ = searched
    rows = {row.name: row for row in contest.decision().rows}
    assert rows["fp16"].precision == "fp16"
    assert rows["fp16"].latency is not None
    assert rows["fp16"].agreement == 1.0  # the simulation computes in float
    assert allows_half(contest.candidates["fp16"].model)


def test_what_is_quantized_for_tensorrt_lets_the_rest_compute_in_half(searched):
    contest, _ = searched
    integer = [candidate for candidate in contest.candidates.values() if candidate.recipe is not None]
    assert integer
    assert all(allows_half(candidate.model) for candidate in integer)
    assert all(candidate.precision in ("int8", "mixed") for candidate in integer)


def test_engines_of_the_same_operators_are_timed_once_before_the_last_round(searched):
    contest, target = searched
    tried = [target.timed_as(contest.candidates[name].content) for name in contest.trials]
    assert len(set(tried)) < len(tried)
    assert set(target.timed) <= set(tried)
    assert set(contest.latencies) == set(contest.candidates)


def test_two_sets_of_numbers_take_the_same_time_and_two_graphs_do_not(job):
    model = job.imported.model
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    target = SlowToOpen(1)
    assert target.timed_as(build(other)) == target.timed_as(build(model))
    assert target.timed_as(build(allowing_half(model))) != target.timed_as(build(model))
