"""ONNX Runtime as a build backend: serialize, reload, look inside, and read its own per-node trace.

ONNX Runtime can save a graph it has optimised, but that file only fits the CPU it was made on; the package therefore
carries plain ONNX, and the runtime optimises it at every open.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from compile.onnx_graph import shapes_of
from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine

ENGINE_FILE = "engine.onnx"


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph as ONNX Runtime executes it, after its own fusions.

    Attributes:
        name: the runtime's name for it; fused nodes are named after what they were made of.
        op_type: its operator, `QLinearConv` for a convolution in integers.
        mean_us: time a run, in microseconds.
    """

    name: str
    op_type: str
    mean_us: float


def build(model: onnx.ModelProto) -> bytes:
    """The engine's bytes; equal models give equal bytes."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextmanager
def opened(
    content: bytes, *, threads: int, optimise: bool = True, integers: bool = True
) -> Iterator[OnnxRuntimeEngine]:
    """An engine from its bytes, closed at the end; for `optimise` and `integers` see `OnnxRuntimeEngine`.

    Raises:
        EngineError: ONNX Runtime refuses the bytes.
    """
    engine = OnnxRuntimeEngine(content, threads=threads, optimise=optimise, integers=integers)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def open_float_taps(model: onnx.ModelProto, tensors: Sequence[str], *, threads: int) -> Iterator[OnnxRuntimeEngine]:
    """The model with inner float32 tensors as further outputs.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    shapes = shapes_of(model.graph)
    present = {value.name for value in (*model.graph.output, *model.graph.input)}
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[name])
        for name in dict.fromkeys(tensors)
        if name not in present
    )
    with opened(build(tapped), threads=threads) as engine:
        yield engine


def node_times(content: bytes, feeds: Tensors, *, threads: int, runs: int) -> list[NodeTime]:
    """Where the time of one inference goes, slowest node first, from ONNX Runtime's trace.

    Tracing itself costs a few microseconds a node: shares are right, the sum is not the engine's latency.

    Raises:
        EngineError: the engine does not open or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        engine = OnnxRuntimeEngine(content, threads=threads, profile_prefix=str(Path(folder) / "trace"))
        for _ in range(runs):
            engine.infer(feeds)
        trace = json.loads(Path(engine.end_profiling()).read_bytes())
        engine.close()
    return _node_times(trace, runs)


def _node_times(trace: list[dict[str, object]], runs: int) -> list[NodeTime]:
    total_us: dict[tuple[str, str], float] = defaultdict(float)
    for event in trace:
        name = str(event.get("name", ""))
        details = event.get("args")
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and isinstance(details, dict):
            total_us[name.removesuffix("_kernel_time"), str(details["op_name"])] += float(str(event["dur"]))
    times = [NodeTime(name, op_type, time_us / runs) for (name, op_type), time_us in total_us.items()]
    return sorted(times, key=lambda node: -node.mean_us)
