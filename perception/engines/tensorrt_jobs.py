"""What the process that talks to TensorRT does; `perception.engines.tensorrt_worker` says with which files."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt as trt

from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_process import tell
from perception.engines.trt_versions import traits_of
from perception.files import write_atomically

_RUNS, _WARM_UP_RUNS = 50, 10


class BuildLog(trt.ILogger):  # type: ignore[misc]
    """Passes the builder's lines on to the parent."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, message: str) -> None:  # noqa: ANN401  (TensorRT is untyped)
        """Called by TensorRT, from any of its threads."""
        if severity != trt.ILogger.Severity.VERBOSE:
            tell(event="log", severity=severity.name, message=message)


def build(folder: Path) -> int:
    """Build the plan; 1 where the builder gives none."""
    options = json.loads((folder / "options.json").read_text())
    traits = traits_of(trt.__version__)
    log = BuildLog()
    builder = trt.Builder(log)
    flags = sum(1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in traits.network_flags)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse((folder / "model.onnx").read_bytes()):
        for number in range(parser.num_errors):
            error = parser.get_error(number)
            tell(event="refused", message=error.desc(), node=error.node(), code=str(error.code()))
        return 1
    config = _config(builder, options)
    if options["dla_core"] is not None:
        _place_on_dla(network, config, options["dla_core"])
    cache = config.create_timing_cache(_content(folder / "timing.cache"))
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return 1
    write_atomically(folder / "timing.cache", bytes(config.get_timing_cache().serialize()))
    write_atomically(folder / "engine.plan", bytes(plan))
    return 0


def _config(builder: Any, options: dict[str, Any]) -> Any:  # noqa: ANN401
    config = builder.create_builder_config()
    if options["level"] is not None:
        config.builder_optimization_level = options["level"]
    if options["hardware_compatible"]:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_bytes"])
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for name in options["flags"]:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if not options["tf32"]:
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _progress()
    return config


def _place_on_dla(network: Any, config: Any, core: int) -> None:  # noqa: ANN401
    """Every layer on the DLA that can be; the others by name on the GPU, so that none moves there in silence."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if not config.can_run_on_DLA(layer):
            config.set_device_type(layer, trt.DeviceType.GPU)
            tell(event="fallback", layer=layer.name, kind=layer.type.name)


def _progress() -> Any:  # noqa: ANN401  (the class exists only in newer releases)
    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            tell(event="step", phase=phase_name, step=step, steps=self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Progress()


def answer(folder: Path) -> int:
    """Run the plan on each set of feeds, as a fresh process meets it."""
    engine = TensorRtEngine((folder / "engine.plan").read_bytes())
    feeds = _feeds(folder)
    count = len(next(iter(feeds.values())))
    collected = defaultdict(list)
    for number in range(count):
        for name, array in engine.infer({name: stack[number] for name, stack in feeds.items()}).items():
            collected[name].append(array.copy())
    engine.close()
    np.savez(folder / "answers.npz", **{name: np.stack(arrays) for name, arrays in collected.items()})  # type: ignore[arg-type]
    return 0


def layers(folder: Path) -> int:
    """Time each layer of the plan; the times add up to more than a frame, since each layer is waited for."""
    engine = TensorRtEngine((folder / "engine.plan").read_bytes())
    feeds = {name: stack[0] for name, stack in _feeds(folder).items()}
    engine.infer(feeds)
    times_ms: dict[str, list[float]] = defaultdict(list)

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times_ms[layer_name].append(ms)

    with engine.profiled(Profiler()) as run:
        for _ in range(_WARM_UP_RUNS + _RUNS):
            run()
    engine.close()
    medians = {name: float(np.median(values[_WARM_UP_RUNS:])) for name, values in times_ms.items()}
    write_atomically(folder / "layers.json", json.dumps(medians).encode())
    return 0


def _feeds(folder: Path) -> dict[str, Any]:
    with np.load(folder / "feeds.npz") as feeds:
        return {name: feeds[name] for name in feeds.files}


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


VERBS = {"build": build, "answer": answer, "layers": layers}
