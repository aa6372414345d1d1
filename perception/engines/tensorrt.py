"""TensorRT on an NVIDIA GPU: a plan's bytes as an engine, one CUDA graph a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perception.engines.cuda_device import CudaDevice, pinned
from perception.engines.cuda_faults import fault_of
from perception.engines.cuda_graph import Launch
from perception.engines.engine import TensorInfo, Tensors, Wait
from perception.engines.tensorrt_lane import Lane
from perception.engines.tensorrt_way import TensorRtWay
from perception.engines.trt_versions import traits_of
from perception.errors import EngineError
from perception.model_spec import ModelSpec

try:
    import pycuda.driver as cuda
    import tensorrt as trt
except ImportError as error:  # pragma: no cover - exercised by an environment without the extra
    raise EngineError(
        f"TensorRT does not load ({error}); on a Jetson it comes with JetPack, else: pip install 'tollgate[tensorrt]'"
    ) from error


# By name, not by TensorRT's own nptype(), which in release 8.5 asks NumPy for a type that NumPy has no more.
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
    "UINT8": "uint8",
}  # fmt: skip


class Closeable(Protocol):
    """What is given back by `close`; a second call does nothing."""

    def close(self) -> None:
        """Give everything back."""


class TensorRtEngine:
    """A network built by TensorRT, of static shapes. Its outputs are pinned arrays that hold until the next `infer`."""

    def __init__(self, content: bytes, *, wait: Wait = "auto") -> None:
        """Open a plan on GPU 0.

        Args:
            content: the plan, verified by whoever calls: version-compatible plans carry code for this host.
            wait: how a call waits for the GPU.

        Raises:
            EngineError: no GPU, another TensorRT or GPU than it was built with, or a dynamic shape.
        """
        traits_of(trt.__version__)
        self._wait = wait
        self._log = RuntimeLog()
        self._dependents: list[Closeable] = []
        with ExitStack() as undo:
            self.device = CudaDevice.acquire()
            undo.callback(self.device.release)
            with self.device.current("opening a TensorRT plan"):
                self._engine = _deserialized(content, self._log)
                self.inputs, self.outputs = _tensors(self._engine)
                self._lane = self.open_lane()
                self._feeds = {tensor.name: pinned(tensor.shape, tensor.dtype) for tensor in self.inputs}
                self._launch = Launch(self._lane.stream, self._enqueue)
            undo.pop_all()
        self._open = True

    @classmethod
    def from_bytes(cls, content: bytes, *, threads: int, wait: Wait = "auto") -> TensorRtEngine:
        """Open from a plan's bytes; a GPU has no use for `threads`."""
        return cls(content, wait=wait)

    @property
    def why_no_graph(self) -> str:
        """Empty where a call is one CUDA graph; else why it is not."""
        return self._launch.why_not

    def open_lane(self) -> Lane:
        """A further execution context on this engine, closed with it at the latest; inside the device's context."""
        lane = Lane(self._engine, (*self.inputs, *self.outputs), self.outputs, self._wait)
        self.closes_first(lane)
        return lane

    def open_frames(self, spec: ModelSpec, *, score_threshold: float) -> TensorRtWay:
        """See `TakesFrames`."""
        return TensorRtWay(self, spec, score_threshold=score_threshold)

    def closes_first(self, dependent: Closeable) -> None:
        """Close something that rests on this engine before the engine itself: an engine freed under it is a crash."""
        self._dependents.append(dependent)

    def forget(self, dependent: Closeable) -> None:
        """It was closed already, and need not be held any longer."""
        self._dependents = [each for each in self._dependents if each is not dependent]

    @contextmanager
    def profiled(self, profiler: Any) -> Iterator[Callable[[], None]]:  # noqa: ANN401  (TensorRT is untyped)
        """Lend a call that runs the network once, on what was fed last, telling an `IProfiler` each layer's time."""
        with self.device.current("timing the layers of a TensorRT engine"), self._lane.profiled(profiler):

            def run() -> None:
                self._lane.enqueue_network()
                self._lane.wait()

            yield run

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        for tensor in self.inputs:
            self._take(tensor, feeds[tensor.name])
        with self.device.current("running a TensorRT engine"):
            self._launch.start()
            self._lane.wait()
        return self._lane.answers

    def again(self) -> None:
        """Run once more on what was fed last, answers copied back as ever; for measurements."""
        with self.device.current("running a TensorRT engine"):
            self._launch.start()
            self._lane.wait()

    def close(self) -> None:
        """See `Engine.close`."""
        if not self._open:
            return
        self._open = False
        with self.device.current("closing a TensorRT engine"):
            self._launch.close()
            for dependent in reversed(self._dependents):
                dependent.close()
            self._dependents = []
            self._feeds = {}
            self._engine = None
        self.device.release()

    def _take(self, tensor: TensorInfo, array: NDArray[np.generic]) -> None:
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise ValueError(
                f"input {tensor.name}: got {array.dtype} {list(array.shape)}, "
                f"expected {tensor.dtype} {list(tensor.shape)}"
            )
        np.copyto(self._feeds[tensor.name], array)

    def _enqueue(self) -> None:
        for name, array in self._feeds.items():
            cuda.memcpy_htod_async(self._lane.addresses[name], array, self._lane.stream)
        self._lane.enqueue_network()
        self._lane.enqueue_answers()


class RuntimeLog(trt.ILogger):  # type: ignore[misc]
    """Keeps what TensorRT complains about, to be told in the error that follows."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.complaints: list[str] = []

    def log(self, severity: Any, message: str) -> None:  # noqa: ANN401  (TensorRT is untyped)
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.complaints.append(message)


def _deserialized(content: bytes, log: RuntimeLog) -> Any:  # noqa: ANN401  (TensorRT is untyped)
    runtime = trt.Runtime(log)
    if hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # the bytes were verified before they came here
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        words = "; ".join(log.complaints) or "no reason given"
        raise fault_of(
            f"{words}; a plan opens only with the TensorRT and on the GPU it was built with: compile again here",
            doing=f"opening a plan of {len(content)} bytes with TensorRT {trt.__version__}",
        )
    return engine


def _tensors(engine: Any) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:  # noqa: ANN401
    sides: tuple[list[TensorInfo], list[TensorInfo]] = ([], [])
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        shape = tuple(int(side) for side in engine.get_tensor_shape(name))
        if -1 in shape:
            raise EngineError(f"tensor {name}: shape {list(shape)} is dynamic; compile with fixed shapes (--shape)")
        dtype = engine.get_tensor_dtype(name).name
        if dtype not in _DTYPES:
            raise EngineError(
                f"tensor {name}: is of type {dtype}, expected one of {', '.join(_DTYPES)}; cast it in the model"
            )
        is_output = engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT
        sides[is_output].append(TensorInfo(name, shape, _DTYPES[dtype]))
    return tuple(sides[0]), tuple(sides[1])
