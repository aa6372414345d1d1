"""The parent of the builder's process: real processes, on a machine without TensorRT."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from compile.backends.onnxrt import build as onnx_bytes
from compile.backends.tensorrt import (
    answers_in_fresh_process,
    as_wanted,
    build,
    cache_name,
    for_a_rebuild,
    layer_times,
    options_for,
    worker_options,
)
from hw_profiles.profile import Profile, load_profile
from perception.agent.builders import build_on_device
from perception.agent.index import OnDeviceBuild
from perception.engines.tensorrt_build import BUILD_FILE, BuildOptions, Rebuild
from perception.engines.trt_versions import installed, traits_of
from perception.errors import EngineError, ModelError, PackageError
from perception.package import EngineEntry, write_package
from tests.compile.builders import HEIGHT_PX, WIDTH_PX, imported_graph, segmenter
from tests.compile.graphs import Sketch
from tests.compile.test_quantize import quantized, random_feed

ROOT = Path(__file__).resolve().parents[3]
VERSIONS = ("8.5.2", "8.6.0", "10.3.0", "10.16.1.11", "11.4.0.106")

without_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


@pytest.fixture
def graph(tmp_path):
    return imported_graph(segmenter(), tmp_path)


@pytest.fixture
def integers(graph):
    return onnx.load_from_string(quantized(graph, {"images": random_feed()}, kind="tensorrt"))


@pytest.fixture
def claimed(tmp_path, monkeypatch):
    """TensorRT's record of installation without its libraries, as an interrupted installation leaves it."""

    def claim(version: str) -> None:
        record = tmp_path / "site" / f"tensorrt-{version}.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return claim


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("quantizes", [False, True])
def test_precision_flags_are_given_only_where_a_release_has_them(graph, integers, version, half, quantizes):
    model = integers if quantizes else graph.model
    flags = worker_options(model, BuildOptions(half=half), traits_of(version))["flags"]
    expected = ["FP16"] * half + ["INT8"] * quantizes if int(version.split(".")[0]) < 11 else []
    assert flags == expected


def test_options_reach_the_worker_as_they_were_given(graph):
    options = BuildOptions(level=5, workspace_bytes=123, tf32=True, version_compatible=True)
    told = worker_options(graph.model, options, traits_of("8.6.0"))
    assert (told["level"], told["workspace_bytes"], told["tf32"]) == (5, 123, True)
    assert told["flags"] == ["VERSION_COMPATIBLE"]


@pytest.mark.parametrize("option", ["version_compatible", "hardware_compatible"])
def test_a_compatible_plan_is_refused_where_the_release_has_none(graph, option):
    with pytest.raises(EngineError, match=rf"{option}: TensorRT 8\.5\.2 cannot, expected 8\.6 or newer"):
        worker_options(graph.model, BuildOptions(**{option: True}), traits_of("8.5.2"))
    assert worker_options(graph.model, BuildOptions(**{option: True}), traits_of("8.6.0"))


def test_a_release_with_one_builder_level_is_told_none(graph):
    assert worker_options(graph.model, BuildOptions(level=5), traits_of("8.5.2"))["level"] is None


def test_a_dla_wants_half_precision_or_integers(graph, integers):
    with pytest.raises(EngineError, match="dla_core: a DLA computes in FP16 and INT8, got float32 alone; allow FP16"):
        worker_options(graph.model, BuildOptions(dla_core=0), traits_of("8.6.0"))
    assert worker_options(graph.model, BuildOptions(dla_core=1, half=True), traits_of("8.6.0"))["dla_core"] == 1
    assert worker_options(integers, BuildOptions(dla_core=0), traits_of("10.3.0"))["dla_core"] == 0


def test_a_profile_says_how_its_plans_are_built():
    plain, dla = load_profile("x86_h200"), load_profile("jetson_agx_orin_64gb_dla")
    assert options_for(plain, half=True) == BuildOptions(half=True)
    assert options_for(dla, half=True) == BuildOptions(half=True, dla_core=0)
    text = plain.to_yaml() + "tensorrt_build: {opens_on: [newer_tensorrt, other_gpus], level: 1, source: a test}\n"
    wide = options_for(Profile.from_yaml(text, where="mine"), half=False)
    assert wide == BuildOptions(level=1, version_compatible=True, hardware_compatible=True)


@pytest.mark.parametrize("quantizes", [False, True])
@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_sparse_weights_are_told_where_a_layer_has_them(tmp_path, quantizes, zeros):
    sketch = Sketch(images=[1, 3, HEIGHT_PX, WIDTH_PX])
    features = sketch.conv("images", 3, 16, name="stem")
    weight = np.random.default_rng(0).uniform(0.5, 1, (16, 16, 3, 3)).astype(np.float32)
    weight.reshape(16, 4, 4, 9)[:, :, :zeros] = 0
    scores = sketch.node("Conv", features, sketch.weight(weight), name="sparse", pads=[1, 1, 1, 1])
    sketch.output(sketch.conv(scores, 16, 3, name="head"), "mask", [1, 3, HEIGHT_PX, WIDTH_PX])
    graph = imported_graph(sketch, tmp_path)
    model = graph.model
    if quantizes:
        model = onnx.load_from_string(quantized(graph, {"images": random_feed()}, kind="tensorrt"))
        assert any(node.op_type == "DequantizeLinear" and "sparse" in node.name for node in model.graph.node)
    flags = worker_options(model, BuildOptions(), traits_of("10.3.0"))["flags"]
    assert ("SPARSE_WEIGHTS" in flags) is (zeros >= 2)


@pytest.mark.parametrize(
    ("version", "half", "nodes_added", "half_weights"),
    [
        ("8.5.2", True, True, False), ("8.6.0", False, True, False), ("10.0.0", True, False, False),
        ("10.16.1.11", True, False, False), ("11.0.0.114", False, False, False), ("11.4.0.106", True, False, True),
    ],
)  # fmt: skip
def test_each_release_reads_the_model_in_its_own_form(integers, version, half, nodes_added, half_weights):
    given = as_wanted(integers, traits_of(version).form(half=half))
    quantizers = [sum(n.op_type == "QuantizeLinear" for n in model.graph.node) for model in (integers, given)]
    assert (quantizers[1] > quantizers[0]) is nodes_added
    types = {tensor.data_type for tensor in given.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in types) is half_weights
    if not nodes_added and not half_weights:
        assert onnx_bytes(given) == onnx_bytes(integers)


@pytest.mark.parametrize(
    ("device", "version", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "8.6.0", "nvidia-h100-80gb-hbm3_8.6.0.timing"),
        ("Orin (nvgpu)/../x", "10.3.0", "orin-nvgpu-x_10.3.0.timing"),
        ("", "10.3.0", "_10.3.0.timing"),
    ],
)
def test_timings_are_kept_for_each_gpu_and_release(device, version, name):
    assert cache_name(device, version) == name
    assert Path(name).name == name


@without_tensorrt
def test_a_machine_without_tensorrt_is_told_how_to_get_it(graph):
    with pytest.raises(EngineError, match="TensorRT is not installed; on a Jetson it comes with JetPack: sudo apt"):
        installed()
    with pytest.raises(EngineError, match="TensorRT is not installed"):
        build(graph.model, BuildOptions(), device="none", advance=lambda _step: None)


@without_tensorrt
def test_a_release_this_project_does_not_know_is_refused_before_a_process_starts(graph, claimed):
    claimed("12.0.1")
    with pytest.raises(EngineError, match=r"TensorRT 12\.0\.1: expected 8\.5 or newer, below 12"):
        build(graph.model, BuildOptions(), device="none", advance=lambda _step: None)


@without_tensorrt
@pytest.mark.parametrize("version", ["8.6.0", "11.4.0.106"])
def test_a_worker_whose_libraries_are_missing_says_so_and_keeps_the_timings(graph, claimed, tmp_path, version):
    claimed(version)
    kept = tmp_path / "cache" / cache_name("a gpu", version)
    kept.parent.mkdir()
    kept.write_bytes(b"timings of yesterday")
    options = BuildOptions(half=True)
    with pytest.raises(
        EngineError, match=r"TensorRT gave no engine: .*does not load \(No module named .*pip install"
    ) as told:
        build(graph.model, options, device="a gpu", cache_folder=kept.parent, advance=lambda _step: None)
    assert "\n" not in str(told.value)
    assert kept.read_bytes() == b"timings of yesterday"
    assert list(kept.parent.iterdir()) == [kept]


@without_tensorrt
@pytest.mark.parametrize("ask", [answers_in_fresh_process, lambda plan, feeds: layer_times(plan, feeds, None)])
def test_a_plan_cannot_be_asked_without_tensorrt(ask):
    with pytest.raises(EngineError, match=r"TensorRT gave no engine: .*does not load \(No module named .*pip install"):
        ask(b"no plan", {"images": np.zeros((1, 1, 3, 4, 4), np.float32)})


STUCK = """
    import os, sys, time
    from pathlib import Path
    from perception.engines.tensorrt_process import work
    sys.executable = {python!r}
    print("building", flush=True)
    work(Path({folder!r}), "build", lambda step: print(step, flush=True))
"""


def interpreter(folder: Path, program: str) -> str:
    """A program in the place of the worker's Python; it leaves its process number in the folder."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\nimport os, pathlib\n" + textwrap.dedent(program))
    path.chmod(0o755)
    return str(path)


def test_an_interrupt_ends_the_worker_too(tmp_path):
    python = interpreter(
        tmp_path,
        f"""
        import json, signal, time
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as deep in C++ as a build is
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
        print(json.dumps(dict(event="step", phase="Tactic selection", step=3, steps=40)), flush=True)
        time.sleep(60)
        """,
    )
    command = [sys.executable, "-c", textwrap.dedent(STUCK).format(python=python, folder=str(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "building\n"
        assert parent.stdout.readline() == "Tactic selection 3/40\n"
        parent.send_signal(signal.SIGINT)
        _, complaint = parent.communicate(timeout=20)
    assert "KeyboardInterrupt" in complaint
    assert parent.returncode != 0
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os.kill(os.getpid(), 9)", r"ended without a word \(signal 9\)"),
        ("os.abort()", r"ended without a word \(signal 6\)"),
        ("print('not JSON'); raise SystemExit(3)", r"ended without a word \(status 3\)"),
    ],
)
def test_a_worker_that_dies_is_told_by_how_it_ended(tmp_path, monkeypatch, end, told):
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, end))
    with pytest.raises(EngineError, match=told):
        answers_in_fresh_process(b"no plan", {"images": np.zeros((1, 1, 3, 4, 4), np.float32)})


@without_tensorrt
@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_a_refused_node_is_the_one_of_the_model_that_was_given(integers, claimed, tmp_path, monkeypatch, version):
    """Each release is given other nodes, and its parser counts those."""
    claimed(version)
    options = BuildOptions(half=True)
    nodes = as_wanted(integers, traits_of(version).form(half=True)).graph.node
    last = len(nodes) - 1
    told = f"node {nodes[last].name or last} ({nodes[last].op_type}): TensorRT's parser refuses it: no"
    refusal = f"import json; print(json.dumps(dict(event='refused', node={last}, message='no', code='')))"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"{refusal}; raise SystemExit(1)"))
    with pytest.raises(ModelError, match=re.escape(told)):
        build(integers, options, device="none", advance=lambda _step: None)


KEEPING = """
    import shutil, sys
    folder, kept = pathlib.Path(sys.argv[3]), pathlib.Path({kept!r})
    for name in ("model.onnx", "options.json"):
        shutil.copy(folder / name, kept / name)
    (folder / "engine.plan").write_bytes(b"a plan")
    (folder / "timing.cache").write_bytes(b"timings")
"""


@pytest.fixture
def given_to_builder(tmp_path, monkeypatch):
    """What the builder's process found in its folder, of what a call built."""

    def found(call):
        kept = tmp_path / "kept"
        kept.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", interpreter(tmp_path, KEEPING.format(kept=str(kept))))
            result = call()
        return {path.name: path.read_bytes() for path in kept.iterdir()}, result

    return found


def released_package(folder: Path, files: dict[str, bytes]):
    spec = (ROOT / "tests" / "specs" / "yolox_nano_416.yaml").read_bytes()
    parts = {"engine.plan": b"of another GPU", "model_spec.yaml": spec}
    parts |= {"profile.yaml": load_profile("x86_h200").to_yaml().encode(), **files}
    engine = EngineEntry(kind="tensorrt", file="engine.plan", precision="mixed")
    return write_package(folder, parts, name="a", engine=engine, build={})


@without_tensorrt
@pytest.mark.parametrize("version", [*VERSIONS, "11.0.0.114"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("quantizes", [False, True])
def test_a_vehicle_builds_from_the_very_bytes_that_the_compiler_would_build_from(
    graph, integers, claimed, tmp_path, given_to_builder, version, half, quantizes
):
    claimed(version)
    model, options = integers if quantizes else graph.model, BuildOptions(half=half, level=2)
    compiled, _ = given_to_builder(lambda: build(model, options, device="none", advance=lambda _step: None))
    package = released_package(tmp_path / "package", for_a_rebuild(model, options))
    wanted = OnDeviceBuild(kind="tensorrt")
    on_device, built = given_to_builder(
        lambda: build_on_device(package, wanted, tmp_path / "built", work=tmp_path / "work")
    )
    assert set(compiled) == {"model.onnx", "options.json"}
    assert on_device == compiled
    assert built.engine_bytes == b"a plan"


@without_tensorrt
def test_a_release_may_choose_the_level_and_the_workspace_and_nothing_else(
    integers, claimed, tmp_path, given_to_builder
):
    claimed("10.3.0")
    package = released_package(tmp_path / "package", for_a_rebuild(integers, BuildOptions(half=True)))

    def built(**options: object):
        wanted = OnDeviceBuild(kind="tensorrt", options=options)
        return build_on_device(package, wanted, tmp_path / "built", work=tmp_path / "work")

    given, _ = given_to_builder(lambda: built(level=0, workspace_bytes=7))
    assert b'"level": 0' in given["options.json"]
    assert b'"workspace_bytes": 7' in given["options.json"]
    for wrong in ({"tf32": True}, {"level": "5"}, {"level": True}):
        with pytest.raises(EngineError, match=r"on-device build option .*expected whole numbers for level and"):
            built(**wrong)


@without_tensorrt
def test_a_package_that_carries_no_network_for_tensorrt_is_refused(integers, claimed, tmp_path):
    claimed("8.6.0")
    wanted = OnDeviceBuild(kind="tensorrt")
    package = released_package(tmp_path / "package", {})
    with pytest.raises(PackageError, match=f"has no {BUILD_FILE}; it holds engine.plan"):
        build_on_device(package, wanted, tmp_path / "built", work=tmp_path / "work")
    files = for_a_rebuild(integers, BuildOptions(half=True))
    rebuild = Rebuild.of(files[BUILD_FILE])
    files[BUILD_FILE] = rebuild.model_copy(update={"networks": {"as_it_is": "model.onnx"}}).content()
    package = released_package(tmp_path / "package", files)
    with pytest.raises(EngineError, match=r"form float_weights, which TensorRT 8\.6\.0 reads, but as_it_is; compile"):
        build_on_device(package, wanted, tmp_path / "built", work=tmp_path / "work")
    assert not (tmp_path / "built").exists()


@without_tensorrt
def test_what_the_builder_on_a_vehicle_complains_of_is_told(integers, claimed, tmp_path, monkeypatch):
    claimed("8.6.0")
    package = released_package(tmp_path / "package", for_a_rebuild(integers, BuildOptions()))
    said = "import json; print(json.dumps(dict(event='refused', node=1, message='[a.cpp::b::3] no', code='')))"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"{said}; raise SystemExit(1)"))
    with pytest.raises(EngineError, match=r"TensorRT builds no engine on this device \(exit status 1\): no$"):
        build_on_device(package, OnDeviceBuild(kind="tensorrt"), tmp_path / "built", work=tmp_path / "work")


def test_a_float_network_is_carried_once_where_its_forms_are_the_same(graph, integers):
    assert set(for_a_rebuild(graph.model, BuildOptions(half=False))) == {
        "model.onnx", "model_half_types.onnx", BUILD_FILE,
    }  # fmt: skip
    assert set(for_a_rebuild(integers, BuildOptions(half=True))) == {
        "model.onnx", "model_float_weights.onnx", "model_half_types.onnx", BUILD_FILE,
    }  # fmt: skip


def alive(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True
