"""TensorRT as a build backend: ONNX with explicit Q/DQ, or float, in; a raw plan out, as trtexec loads it.

TensorRT itself runs in `perception.engines.tensorrt_worker`, a process of its own.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.backends.half_types import with_half_types
from compile.backends.onnxrt import build as onnx_bytes
from compile.backends.tensorrt_graph import has_sparse_weights, with_float_weights
from compile.backends.tensorrt_log import error_of, nodes_named
from hw_profiles.profile import Profile
from perception.engines.engine import Tensors
from perception.engines.tensorrt_build import BUILD_FILE, ENGINE_FILE, NETWORK_FILE, BuildOptions, Rebuild, write_inputs
from perception.engines.tensorrt_process import Advance, BuildEvents, work
from perception.engines.trt_versions import FORMS, Form, Traits, installed
from perception.errors import ModelError
from perception.files import write_atomically

TIMINGS_FILE = "timing.cache"


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


def build(
    model: onnx.ModelProto, options: BuildOptions, *, device: str, advance: Advance, cache_folder: Path | None = None
) -> bytes:
    """Build a plan. Two builds of one model may differ: a rebuilt engine is another engine.

    Args:
        model: float, or with QuantizeLinear and DequantizeLinear where integers are wanted; static shapes.
        options: how.
        device: name of the GPU, for the timing cache.
        advance: told each step of the builder that it reports, and each layer that a DLA leaves to the GPU.
        cache_folder: keep timings of kernels there, a file for each GPU and TensorRT; None keeps none.

    Raises:
        ModelError: TensorRT refuses a node, which is named.
        EngineError: no TensorRT, or the builder failed.
    """
    traits = installed()
    settings = worker_options(model, options, traits)
    given = as_wanted(model, traits.form(half=options.half))
    cache = cache_folder and cache_folder / cache_name(device, traits.version)
    with tempfile.TemporaryDirectory(prefix="tollgate-trt-") as name:
        folder = Path(name)
        write_inputs(folder, onnx_bytes(given), settings)
        if cache and cache.is_file():
            (folder / TIMINGS_FILE).write_bytes(cache.read_bytes())
        status, events = work(folder, "build", advance)
        if status != 0:
            raise error_of(BuildEvents.of(events), given.graph, exit_status=status)
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, (folder / TIMINGS_FILE).read_bytes())
        return (folder / ENGINE_FILE).read_bytes()


def for_a_rebuild(model: onnx.ModelProto, options: BuildOptions) -> dict[str, bytes]:
    """What a machine with another TensorRT needs to build the plan: the network in every form that it can have.

    Args:
        model: what `build` is given.
        options: what `build` is given.
    """
    files: dict[str, bytes] = {}
    networks: dict[Form, str] = {}
    for form in FORMS:
        try:
            content = onnx_bytes(as_wanted(model, form))
        except ModelError:  # told by the vehicle whose release reads no other form
            continue
        name = next((name for name, other in files.items() if other == content), _file_of(form))
        files[name], networks[form] = content, name
    quantized, sparse = _says_of(model)
    rebuild = Rebuild(options=options, quantized=quantized, sparse=sparse, networks=networks)
    return {**files, BUILD_FILE: rebuild.content()}


def options_for(profile: Profile, *, half: bool) -> BuildOptions:
    """How a profile wants its plans built.

    Args:
        profile: of a machine with TensorRT.
        half: allow FP16 for whatever is not quantized.
    """
    wanted = profile.tensorrt_build
    if wanted is None:
        return BuildOptions(half=half)
    return BuildOptions(
        half=half,
        level=BuildOptions().level if wanted.level is None else wanted.level,
        version_compatible="newer_tensorrt" in wanted.opens_on,
        hardware_compatible="other_gpus" in wanted.opens_on,
        dla_core=wanted.dla_core,
    )


def as_wanted(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """The model in a form that a release reads: how it takes integer weights, and who says what is FP16.

    Raises:
        ModelError: FP16 cannot be written into the model.
    """
    if form == "float_weights":
        return with_float_weights(model)
    return with_half_types(model) if form == "half_types" else model


def worker_options(model: onnx.ModelProto, options: BuildOptions, traits: Traits) -> dict[str, object]:
    """What the worker is told.

    Raises:
        EngineError: an option this release does not have.
    """
    quantized, sparse = _says_of(model)
    return options.settings(traits, quantized=quantized, sparse=sparse)


def _says_of(model: onnx.ModelProto) -> tuple[bool, bool]:
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return quantized, has_sparse_weights(model.graph)


def _file_of(form: Form) -> str:
    return NETWORK_FILE if form == "as_it_is" else f"model_{form}.onnx"


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
    status, events = work(folder, verb, lambda _step: None)
    if status != 0:
        raise error_of(BuildEvents.of(events), onnx.GraphProto(), exit_status=status)
