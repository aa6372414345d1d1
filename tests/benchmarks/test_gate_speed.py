"""What a gate run costs beside the inferences it must make: all gates, default policy, the bundled drive at 720p."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.judge import judge
from safety_gates.policy import load_policy
from safety_gates.report.page import render
from safety_gates.trial import Trial
from tests.benchmarks.results import row, write_results
from tests.mutation.models import convolution_weights, harmed
from tests.mutation.road import MODEL, SAMPLES, sample_package
from tests.safety_gates.builders import QUIET

LIMIT = 1.5
COMMAND = "pytest tests/benchmarks/test_gate_speed.py --benchmark-only"


@pytest.fixture
def durations_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each inference of the run took in the engine alone."""
    durations: list[float] = []
    infer = OnnxRuntimeEngine.infer

    def timed(engine: OnnxRuntimeEngine, feeds: Tensors) -> Tensors:
        started_s = time.perf_counter()
        answer = infer(engine, feeds)
        durations.append(time.perf_counter() - started_s)
        return answer

    monkeypatch.setattr(OnnxRuntimeEngine, "infer", timed)
    return durations


def test_gate_beside_its_inferences(tmp_path: Path, benchmark: BenchmarkFixture, durations_s: list[float]) -> None:
    drive = SAMPLES / "drive"
    model = MODEL.read_bytes()
    other = harmed(model, {convolution_weights(model)[20]: lambda weights: weights * 1.01})
    case = Case(
        sample_package(tmp_path / "package", engine=other),
        drive,
        labels=drive,
        class_map=SAMPLES / "classes.yaml",
        reference=sample_package(tmp_path / "float"),
        first_release=True,
        command=COMMAND,
    )

    def gate() -> bytes:
        trial = Trial(case, Shelf(tmp_path / "evidence"), QUIET)
        return render(judge(trial, load_policy(None)), trial)

    started_s = time.perf_counter()
    benchmark.pedantic(gate, rounds=1, iterations=1)
    took_s, count = time.perf_counter() - started_s, len(durations_s)
    must_s = count * median(durations_s)
    rows = [
        row(
            "gate / its inferences",
            took_s / must_s,
            limit=LIMIT,
            unit="×",
            better="lower",
            samples=count,
            command=COMMAND,
        ),
        row("gate", took_s, limit=None, unit="s", better="lower", samples=1, command=COMMAND),
        row(
            "inferences, in the engine alone",
            sum(durations_s),
            limit=None,
            unit="s",
            better="lower",
            samples=count,
            command=COMMAND,
        ),
    ]
    write_results("gate_speed", rows, more={"frames": 600, "model": "sample_detector", "policy": "default"})
