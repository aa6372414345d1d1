"""The packages that are gated: float, compiled INT8, INT8 as a tutorial makes it, and one that is far too slow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compile.backends.onnxrt import build
from compile.importer import import_model
from hw_profiles.profile import Profile
from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.model_spec import ModelSpec
from perception.package import PROFILE, SPEC, EngineEntry, open_package, write_package
from perception.pipeline import threads_of
from perception.preprocess import Preprocessor
from safety_gates.gates.calibration import CALIBRATION
from tests.benchmarks.int8.cases import Case
from tests.benchmarks.int8.material import frames_of
from tests.mutation.models import naive_int8

PROFILE_NAME, SEARCH_S, NAIVE_FRAMES = "x86_cpu", 60, 64
LEAST_LAYERS, MOST_LAYERS, CHANNELS = 4, 256, 48
DEADLINES, CALLS = 4.0, 5  # so many deadlines the slow engine takes at least


def compiled(case: Case, folder: Path) -> None:
    """`folder/float` and `folder/int8`, by `tollgate compile`; what the search decides is shipped."""
    if (folder / "int8").is_dir():
        return
    words = ["compile", case.model, "--spec", case.spec, "--profile", PROFILE_NAME, "--time-limit", SEARCH_S]
    words += ["--calibration", *case.calibration, "--output", folder / "int8", "--reference-output", folder / "float"]
    for precision in ("int8", "auto"):
        command = [sys.executable, "-m", "perception.cli", *map(str, words), "--precision", precision, "--quiet"]
        if subprocess.run(command, check=False).returncode == 0:
            return
    raise SystemExit(f"{case.name}: tollgate compile failed; run it by hand: tollgate {' '.join(map(str, words))}")


def naive(case: Case, folder: Path) -> None:
    """`folder/naive`: ONNX Runtime's defaults, on frames of the same recordings."""
    _make(case, folder, "naive", lambda model: _naive_bytes(model, case))


def slow(case: Case, folder: Path) -> None:
    """`folder/slow`: the float model with heavy layers beside it, whose answer adds nothing."""
    profile = open_package(folder / "float").profile
    _make(case, folder, "slow", lambda model: _slow_bytes(model, profile))


def _slow_bytes(model: bytes, profile: Profile) -> bytes:
    layers = LEAST_LAYERS
    while _engine_ms(content := slowed(model, layers), threads_of(profile)) < DEADLINES * profile.deadline_ms:
        if layers >= MOST_LAYERS:
            raise SystemExit(f"{layers} heavy layers are still within {DEADLINES:g} deadlines on this machine")
        layers *= 2
    return content


def _engine_ms(model: bytes, threads: int) -> float:
    engine = OnnxRuntimeEngine(model, threads=threads)
    feeds = {each.name: np.zeros(each.shape, each.dtype) for each in engine.inputs}
    spent = []
    for _ in range(CALLS):
        started_s = time.perf_counter()
        engine.infer(feeds)
        spent.append((time.perf_counter() - started_s) * 1e3)
    engine.close()
    return min(spent)


def _make(case: Case, folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    if (folder / name).is_dir():
        return
    float_package, calibrated = open_package(folder / "float"), open_package(folder / "int8")
    files = {
        "engine.onnx": change(build(import_model(case.model).model)),
        SPEC: ModelSpec.load(case.spec).to_yaml().encode(),
        PROFILE: float_package.profile.to_yaml().encode(),
    }
    precision = "fp32"
    if name == "naive" and CALIBRATION in calibrated.manifest.files:
        files[CALIBRATION], precision = (calibrated.folder / CALIBRATION).read_bytes(), "int8"
    made = {**calibrated.manifest.build, "made": f"{name}, to see it refused"}
    entry = EngineEntry(kind="onnxrt", file="engine.onnx", precision=precision)
    write_package(folder / name, files, name=f"{case.name}_{name}", engine=entry, build=made)


def _naive_bytes(model: bytes, case: Case) -> bytes:
    spec = ModelSpec.load(case.spec)
    preprocessor = Preprocessor(spec.picture, spec.size_input)

    def feeds() -> Iterator[Tensors]:
        for frame in frames_of(case.calibration[0], NAIVE_FRAMES):
            yield {name: tensor.copy() for name, tensor in preprocessor.prepare(frame.pixels).feeds.items()}

    with tempfile.TemporaryDirectory() as scratch:
        return naive_int8(model, feeds(), Path(scratch))


def slowed(model: bytes, layers: int) -> bytes:
    """The model beside a stack of convolutions over its whole input, whose mean times zero is added to an output."""
    proto = onnx.load_from_string(model)
    graph, generator = proto.graph, np.random.default_rng(0)
    picture, answer = graph.input[0], graph.output[0].name
    channels = picture.type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        node.output[:] = ["quick" if name == answer else name for name in node.output]
        node.input[:] = ["quick" if name == answer else name for name in node.input]
    last = picture.name
    for layer in range(layers):
        shape = (CHANNELS, CHANNELS if layer else channels, 3, 3)
        weights = generator.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, f"heavy_weights_{layer}"))
        strides = [1, 1] if layer else [2, 2]
        inputs, outputs = [last, f"heavy_weights_{layer}"], [f"heavy_sum_{layer}"]
        graph.node.append(helper.make_node("Conv", inputs, outputs, pads=[1] * 4, strides=strides))
        graph.node.append(helper.make_node("Relu", outputs, [f"heavy_{layer}"]))
        last = f"heavy_{layer}"
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    graph.node.append(helper.make_node("ReduceMean", [last], ["heavy_mean"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["heavy_mean", "nothing"], ["heavy_nothing"]))
    graph.node.append(helper.make_node("Add", ["quick", "heavy_nothing"], [answer]))
    onnx.checker.check_model(proto)
    return proto.SerializeToString()
