"""How long `gate` takes beside the inferences it must make: count × raw engine time, both measured in one run."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from hw_profiles.profile import load_profile
from perception.cli import main
from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.files import sha256_of_bytes
from perception.model_spec import ModelSpec
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.pipeline import open_pipeline
from perception.sources.table import open_source
from safety_gates.case import SOAK_FRAMES
from safety_gates.soak import SETTLING_FRAMES
from tests.benchmarks.results import row, write_results

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
FRAMES, RAW_CALLS = 370, 200
COMMAND = "pytest tests/benchmarks/test_gate_time.py --benchmark-only"


@pytest.fixture
def sample(tmp_path: Path) -> EnginePackage:
    """The bundled detector as a float package."""
    model = SAMPLES / "models" / "sample_detector.onnx"
    content = model.read_bytes()
    files = {
        "engine.onnx": content,
        SPEC: ModelSpec.load(model.with_suffix(".yaml")).to_yaml().encode(),
        PROFILE: load_profile("x86_cpu").to_yaml().encode(),
    }
    engine = EngineEntry(kind="onnxrt", file="engine.onnx", precision="fp32")
    build = {"source": {"sha256": sha256_of_bytes(content)}}
    return write_package(tmp_path / "package", files, name="sample_detector", engine=engine, build=build)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often an engine ran in this process; a list of one number."""
    calls, infer = [0], OnnxRuntimeEngine.infer

    def counting(self: OnnxRuntimeEngine, feeds: Tensors) -> Tensors:
        calls[0] += 1
        return infer(self, feeds)

    monkeypatch.setattr(OnnxRuntimeEngine, "infer", counting)
    return calls


def raw_ms(package: EnginePackage) -> float:
    """Median time of the bare engine on one frame."""
    with open_pipeline(package) as pipeline:
        source = open_source(SAMPLES / "drive")
        frame = next(source.frames())
        source.close()
        feeds = {name: np.array(value) for name, value in pipeline.prepare(frame).items()}
        spent = []
        for _ in range(RAW_CALLS):
            started = time.perf_counter_ns()
            pipeline.engine.infer(feeds)
            spent.append((time.perf_counter_ns() - started) / 1e6)
    return median(spent)


def test_the_time_of_gate_over_its_inferences(benchmark, sample: EnginePackage, counted: list[int]) -> None:
    engine_ms = raw_ms(sample)
    counted[0] = 0
    words = ["gate", str(sample.folder), "--recording", str(SAMPLES / "drive"), "--labels", str(SAMPLES / "drive")]
    words += ["--class-map", str(SAMPLES / "classes.yaml"), "--reference", str(sample.folder), "--frames", str(FRAMES)]
    started = time.perf_counter()
    benchmark.pedantic(main, args=([*words, "--quiet"],), rounds=1, iterations=1)
    took_s = time.perf_counter() - started
    inferences = counted[0] + SOAK_FRAMES + SETTLING_FRAMES
    raw_s = inferences * engine_ms / 1e3
    rate_hz = sample.profile.cameras.rate_hz
    told = {"better": "lower", "samples": 1, "command": COMMAND}
    rows = [
        row("gate_over_raw_inferences", took_s / raw_s, limit=1.5, unit="ratio", **told),
        row("gate", took_s, limit=None, unit="s", **told),
        row("inferences", inferences, limit=None, unit="count", **told),
        row("engine", engine_ms, limit=None, unit="ms", **{**told, "samples": RAW_CALLS}),
        row("camera_pace", FRAMES / rate_hz, limit=None, unit="s", **told),
    ]
    write_results("gate_time", rows, more={"frames": FRAMES, "recording": "data/samples/drive", "camera_hz": rate_hz})
