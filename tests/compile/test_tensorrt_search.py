"""A whole compilation for TensorRT: all of it but the library itself, whose process and engine have stand-ins."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import compile.backends.tensorrt_target as target_module
import compile.job
import compile.timing
from compile.backends.tensorrt_target import TensorRtTarget
from compile.compiler import CompileOutcome, compile_model
from hw_profiles.machine import Gpu, read_machine
from hw_profiles.profile import load_profile
from perception.engines.tensorrt_build import BUILD_FILE
from perception.files import sha256_of_bytes
from perception.package import open_package
from tests.compile.builders import write_drive, write_segmenter
from tests.compile.tensorrt_stand_in import Clock, SlowEngine
from tests.compile.test_compiler import QUICK

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).parent / "tensorrt_stand_in.py"
H100 = Gpu(
    name="NVIDIA H100 80GB HBM3", driver="580.1", compute_capability="9.0", memory_bytes=None, max_clock_mhz=None
)
INT8_IS_SLOW = {"float": {"other": 3.0}, "half": {"other": 1.0}, "int8": {"other": 2.5}, "scale": {"other": 1.0}}
INT8_IS_FAST = {"float": {"other": 3.0}, "half": {"other": 2.0}, "int8": {"other": 0.5}, "scale": {"other": 1.0}}
INT8_PAYS_IN_PART = {
    "float": {"other": 4.0}, "half": {"other": 2.0}, "int8": {"other": 0.5, "second": 4.0}, "scale": {"other": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("recordings") / "monday", seed=1, count=32)


@pytest.fixture
def on_an_h100(tmp_path, monkeypatch):
    """This machine with an H100 and TensorRT 8.6.0, as far as the compiler can tell."""

    def stand_in(costs: dict[str, dict[str, float]]) -> None:
        record = tmp_path / "site" / "tensorrt-8.6.0.dist-info"
        record.mkdir(parents=True, exist_ok=True)
        (record / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 8.6.0\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setenv("COSTS_MS", json.dumps(costs))
        monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        program = tmp_path / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        machine = read_machine()
        libraries = replace(machine.libraries, tensorrt="8.6.0", pycuda="2025.1.2")
        monkeypatch.setattr(compile.job, "read_machine", lambda: replace(machine, gpu=H100, libraries=libraries))

        clock = Clock()
        monkeypatch.setattr(compile.timing, "time", clock)

        @contextmanager
        def opened(plan: bytes):
            engine = SlowEngine(plan, costs, clock)
            yield engine
            engine.close()

        monkeypatch.setattr(target_module, "_opened_plan", opened)

    return stand_in


def compiled(folder: Path, calibration: Path, *, outlier: float = 1.0, **options: object) -> CompileOutcome:
    return compile_model(
        write_segmenter(folder, outlier=outlier),
        profile=load_profile("x86_h100"),
        calibration=[calibration],
        output=folder / "package",
        options=replace(QUICK, **{"max_drop": 0.5, "min_agreement": 0.5, **options}),
    )


def latencies(outcome: CompileOutcome) -> dict[str, float]:
    return {row.name: row.latency.p50_ms for row in outcome.decision.rows if row.latency is not None}


@pytest.mark.parametrize(("costs", "precision"), [(INT8_IS_SLOW, "fp16"), (INT8_IS_FAST, "mixed")])
def test_the_fastest_precision_ships_with_few_builds(tmp_path, monday, on_an_h100, costs, precision):
    on_an_h100(costs)
    outcome = compiled(tmp_path, monday)
    chosen = outcome.decision.chosen
    assert chosen.precision == precision
    assert chosen.latency.p50_ms == min(latencies(outcome).values())
    assert any(row.float_layers < row.weighted_layers for row in outcome.decision.rows)
    assert len(outcome.search["build_seconds"]) <= 6


def test_layers_that_8_bits_make_slower_are_left_in_half_precision(tmp_path, monday, on_an_h100):
    on_an_h100(INT8_PAYS_IN_PART)
    outcome = compiled(tmp_path, monday)
    assert outcome.decision.chosen.name.endswith(", where it pays")
    layers = {layer["node"]: layer for layer in outcome.package.document("compile.json")["layers"]}
    assert layers["first"]["precision"] == "int8"
    assert layers["second"]["why"] == "takes 4000.0 µs in 8 bits and 2000.0 in float"
    assert latencies(outcome)[outcome.decision.chosen.name] < min(
        p50_ms for name, p50_ms in latencies(outcome).items() if name != outcome.decision.chosen.name
    )


def test_builds_that_the_time_limit_has_no_room_for_are_left_and_told(tmp_path, monday, on_an_h100, monkeypatch):
    on_an_h100(INT8_IS_FAST)
    monkeypatch.setattr(
        TensorRtTarget, "preparing_s", lambda self, content: 0.0 if sha256_of_bytes(content) in self._plans else 90.0
    )
    outcome = compiled(tmp_path, monday, time_limit_s=60.0)
    assert len(outcome.search["build_seconds"]) == 2
    assert outcome.decision.chosen.precision == "fp16"
    assert any("the time limit left" in note and "unbuilt" in note for note in outcome.search["notes"])


def test_an_engine_that_tensorrt_does_not_build_is_left_and_told_and_the_others_go_on(
    tmp_path, monday, on_an_h100, monkeypatch
):
    on_an_h100(INT8_IS_FAST)
    monkeypatch.setenv("REFUSED_FLAG", "INT8")
    outcome = compiled(tmp_path, monday)
    assert outcome.decision.chosen.name == "fp16"
    assert {row.name for row in outcome.decision.rows if row.latency is not None} == {"fp32", "fp16"}
    told = [note for note in outcome.search["notes"] if "cannot be built: TensorRT gave no engine: Assertion x" in note]
    assert len(told) == len(set(told)) <= 2


def test_plans_and_timings_are_kept_for_the_next_search(tmp_path, monday, on_an_h100):
    on_an_h100(INT8_IS_SLOW)
    first = compiled(tmp_path, monday, cache=tmp_path / "cache")
    timings = tmp_path / "cache" / "tensorrt" / "nvidia-h100-80gb-hbm3_8.6.0.timing"
    assert timings.read_bytes() == b"a build\n" * len(first.search["build_seconds"])
    again = compiled(tmp_path, monday, cache=tmp_path / "cache")
    assert again.search["build_seconds"] == []
    assert again.package.engine_bytes == first.package.engine_bytes


def test_the_package_opens_holds_every_form_and_names_what_it_needs(tmp_path, monday, on_an_h100):
    on_an_h100(INT8_IS_FAST)
    compiled(tmp_path, monday, builder_level=1)
    package = open_package(tmp_path / "package")
    assert {"engine.plan", "model.onnx", "model_float_weights.onnx", "model_half_types.onnx"} <= set(
        package.manifest.files
    )
    assert json.loads(package.content(BUILD_FILE))["options"]["level"] == 1
    assert package.manifest.engine.requires == {
        "tensorrt": "8.6.0", "gpu": H100.name, "compute_capability": "9.0", "driver": ">=580.1",
    }  # fmt: skip
    assert package.document("compile.json")["fresh_process_db"]["mask"] > 100
