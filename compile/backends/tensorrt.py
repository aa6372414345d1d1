"""TensorRT as a build backend: ONNX with explicit Q/DQ, or float, in; a raw plan out, as trtexec loads it.

TensorRT itself runs in `compile.backends.tensorrt_worker`, a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.backends.half_types import with_half_types
from compile.backends.tensorrt_graph import has_sparse_weights, with_float_weights
from compile.backends.tensorrt_log import BuildEvents, error_of, nodes_named
from hw_profiles.profile import Profile
from perception.engines.engine import Tensors
from perception.engines.trt_versions import Traits, traits_of
from perception.errors import EngineError
from perception.files import json_bytes, write_atomically

ENGINE_FILE = "engine.plan"
_GIB = 1 << 30
_TOLD = {
    "step": "{phase} {step}/{steps}",
    "fallback": "layer {layer} ({kind}) runs on the GPU: the DLA cannot",
}

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    Attributes:
        half: allow FP16 for whatever is not quantized.
        level: builder optimization level, 0 (fast build) to 5 (fast engine).
        workspace_bytes: memory the builder may use for a layer's scratch space.
        version_compatible: the plan also opens with newer TensorRT releases; it then carries code for the host.
        hardware_compatible: the plan also opens on other GPUs from Ampere on, for some of its speed.
        dla_core: run what the deep learning accelerator of that number can on it, the rest on the GPU; None: all on
            the GPU.
        tf32: let float32 matrix products round to 19 bits; off, float32 means float32.
        cache_folder: keep timings there, a file for each GPU and TensorRT; None keeps none.
    """

    half: bool = False
    level: int = 3
    workspace_bytes: int = 4 * _GIB
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    tf32: bool = False
    cache_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One layer of the built engine.

    Attributes:
        name: TensorRT's name for it.
        nodes: the ONNX nodes it was fused from, as far as the name tells.
        median_us: time a run, in microseconds, each layer waited for.
    """

    name: str
    nodes: tuple[str, ...]
    median_us: float


def installed() -> Traits:
    """The traits of the TensorRT on this machine.

    Raises:
        EngineError: none, or a release this project does not know.
    """
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings"):
        try:
            return traits_of(version(name))
        except PackageNotFoundError:
            continue
    raise EngineError("TensorRT is not installed; on a Jetson it comes with JetPack: sudo apt install nvidia-jetpack")


def build(model: onnx.ModelProto, options: BuildOptions, *, device: str, advance: Advance) -> bytes:
    """Build a plan. Two builds of one model may differ: a rebuilt engine is another engine.

    Args:
        model: float, or with QuantizeLinear and DequantizeLinear where integers are wanted; static shapes.
        options: how.
        device: name of the GPU, for the timing cache.
        advance: told each step of the builder that it reports, and each layer that a DLA leaves to the GPU.

    Raises:
        ModelError: TensorRT refuses a node, which is named.
        EngineError: no TensorRT, or the builder failed.
    """
    traits = installed()
    settings = worker_options(model, options, traits)
    given = as_wanted(model, options, traits)
    cache = options.cache_folder and options.cache_folder / cache_name(device, traits.version)
    with tempfile.TemporaryDirectory(prefix="tollgate-trt-") as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(given.SerializeToString())
        (folder / "options.json").write_bytes(json_bytes(settings))
        if cache and cache.is_file():
            (folder / "timing.cache").write_bytes(cache.read_bytes())
        status, events = _work(folder, "build", advance)
        if status != 0:
            raise error_of(BuildEvents.of(events), given.graph, exit_status=status)
        if cache:
            write_atomically(cache, (folder / "timing.cache").read_bytes())
        return (folder / ENGINE_FILE).read_bytes()


def options_for(profile: Profile, *, half: bool, cache_folder: Path | None = None) -> BuildOptions:
    """How a profile wants its plans built.

    Args:
        profile: of a machine with TensorRT.
        half: allow FP16 for whatever is not quantized.
        cache_folder: see `BuildOptions`.
    """
    wanted = profile.tensorrt_build
    if wanted is None:
        return BuildOptions(half=half, cache_folder=cache_folder)
    return BuildOptions(
        half=half,
        version_compatible="newer_tensorrt" in wanted.opens_on,
        hardware_compatible="other_gpus" in wanted.opens_on,
        dla_core=wanted.dla_core,
        cache_folder=cache_folder,
    )


def as_wanted(model: onnx.ModelProto, options: BuildOptions, traits: Traits) -> onnx.ModelProto:
    """The model as the release reads it: how it takes integer weights, and who says what is FP16.

    Raises:
        ModelError: FP16 cannot be written into the model.
    """
    if not traits.integer_weights:
        return with_float_weights(model)
    return with_half_types(model) if options.half and traits.precision == "typed" else model


def worker_options(model: onnx.ModelProto, options: BuildOptions, traits: Traits) -> dict[str, object]:
    """What the worker is told.

    Raises:
        EngineError: an option this release does not have.
    """
    for name in ("version_compatible", "hardware_compatible"):
        if getattr(options, name) and not getattr(traits, name):
            raise EngineError(f"{name}: TensorRT {traits.version} cannot, expected 8.6 or newer; leave it out")
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if options.dla_core is not None and not (options.half or quantized):
        raise EngineError("dla_core: a DLA computes in FP16 and INT8, got float32 alone; allow FP16 or quantize")
    wanted = {"VERSION_COMPATIBLE": options.version_compatible, "SPARSE_WEIGHTS": has_sparse_weights(model.graph)}
    flags = traits.builder_flags(half=options.half, quantized=quantized)
    return {
        "flags": [*flags, *(flag for flag, is_wanted in wanted.items() if is_wanted)],
        "level": options.level if traits.builder_levels else None,
        "hardware_compatible": options.hardware_compatible,
        "dla_core": options.dla_core,
        "workspace_bytes": options.workspace_bytes,
        "tf32": options.tf32,
    }


def cache_name(device: str, tensorrt_version: str) -> str:
    """File name of the timing cache: timings of one GPU and release say nothing about another."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', device).strip('-').lower()}_{tensorrt_version}.timing"


def answers_in_fresh_process(plan: bytes, feeds: Tensors) -> dict[str, NDArray[np.generic]]:
    """What a plan answers where nothing of its build is in memory any more.

    Args:
        plan: the engine's bytes.
        feeds: input name → (K, …): K sets of inputs stacked.

    Returns:
        Output name → (K, …).

    Raises:
        EngineError: the plan does not open or run.
    """
    with tempfile.TemporaryDirectory(prefix="tollgate-trt-") as name:
        folder = Path(name)
        _run_plan(folder, plan, feeds, "answer")
        with np.load(folder / "answers.npz") as answers:
            return {output: answers[output] for output in answers.files}


def layer_times(plan: bytes, feeds: Tensors, graph: onnx.GraphProto) -> list[LayerTime]:
    """Where the time of one inference goes, slowest layer first.

    Args:
        plan: the engine's bytes.
        feeds: as for `answers_in_fresh_process`; the first set is used.
        graph: whose nodes the layers are named after.

    Raises:
        EngineError: the plan does not open or run.
    """
    with tempfile.TemporaryDirectory(prefix="tollgate-trt-") as name:
        folder = Path(name)
        _run_plan(folder, plan, feeds, "layers")
        medians_ms: Mapping[str, float] = json.loads((folder / "layers.json").read_bytes())
    times = [LayerTime(layer, tuple(nodes_named(layer, graph)), 1e3 * ms) for layer, ms in medians_ms.items()]
    return sorted(times, key=lambda time: -time.median_us)


def _run_plan(folder: Path, plan: bytes, feeds: Tensors, verb: str) -> None:
    (folder / ENGINE_FILE).write_bytes(plan)
    with (folder / "feeds.npz").open("wb") as file:
        np.savez(file, **dict(feeds))  # type: ignore[arg-type]
    status, events = _work(folder, verb, lambda _step: None)
    if status != 0:
        raise error_of(BuildEvents.of(events), onnx.GraphProto(), exit_status=status)


def _work(folder: Path, verb: str, advance: Advance) -> tuple[int, list[dict[str, object]]]:
    """Run the worker to its end; on an interrupt it is ended first."""
    command = [sys.executable, "-m", "compile.backends.tensorrt_worker", str(folder), verb]
    root = Path(__file__).resolve().parents[2]
    events: list[dict[str, object]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as worker:
        try:
            for line in worker.stdout or ():
                event = _event(line)
                events.append(event)
                if event["event"] in _TOLD:
                    advance(_TOLD[str(event["event"])].format_map(event))
        except BaseException:
            worker.kill()
            raise
    return worker.returncode, events


def _event(line: str) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": "log", "severity": "INFO", "message": line.rstrip()}  # the library's own words on stdout
