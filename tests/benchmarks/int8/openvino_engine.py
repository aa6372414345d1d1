"""OpenVINO on the CPU behind this project's `Engine`, so that peers are fed, decoded and timed by the same code."""

from __future__ import annotations

from pathlib import Path

import openvino

from compile.timing import time_side_by_side
from perception.engines.engine import TensorInfo, Tensors
from perception.errors import EngineError

DTYPES = {"f32": "float32", "f16": "float16", "i64": "int64", "i32": "int32", "u8": "uint8"}
CONTEST_S = 3.0


class OpenVinoEngine:
    """A compiled OpenVINO model. Outputs belong to the request and hold until the next call, as `Engine` says."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        """Make one request for a compiled model."""
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_tensor_info(port) for port in compiled.inputs)
        self.outputs = tuple(_tensor_info(port) for port in compiled.outputs)
        self._ports = {port.any_name: port for port in compiled.outputs}

    @classmethod
    def from_file(cls, path: Path, *, threads: int, pinned: bool = True) -> OpenVinoEngine:
        """Open an IR or ONNX file for lowest latency, in float32 where it is not quantized.

        Raises:
            EngineError: OpenVINO refuses it.
        """
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": pinned,
        }
        try:
            return cls(openvino.Core().compile_model(path, "CPU", settings))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refuses {path.name}: {str(error).splitlines()[0]}") from error

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        return {name: self._request.get_tensor(port).data for name, port in self._ports.items()}

    def close(self) -> None:
        """See `Engine.close`: the request goes with the engine."""


def faster_pinning(path: Path, feeds: Tensors, *, threads: int) -> bool:
    """Whether OpenVINO is faster with its threads bound to cores: it depends on the machine and who else is there."""
    engines = {pinned: OpenVinoEngine.from_file(path, threads=threads, pinned=pinned) for pinned in (True, False)}
    jobs = {str(pinned): lambda engine=engine: engine.infer(feeds) for pinned, engine in engines.items()}
    times = time_side_by_side(jobs, reference="True", budget_s=CONTEST_S, advance=lambda: None)
    return times["True"].p50_ms <= times["False"].p50_ms


def _tensor_info(port: openvino.ConstOutput) -> TensorInfo:
    sides = tuple(side.get_length() if side.is_static else -1 for side in port.get_partial_shape())
    return TensorInfo(port.any_name, sides, DTYPES[port.get_element_type().get_type_name()])
