"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.engines.engine import TensorInfo, Tensors, Wait
from perception.errors import EngineError

try:
    import onnxruntime
except ImportError as error:  # pragma: no cover - exercised by an environment without the extra
    raise EngineError("onnxruntime is not installed; run: pip install 'tollgate[cpu]'") from error

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeEngine:
    """An ONNX graph run by ONNX Runtime's CPU execution provider.

    Outputs of static shape are written into arrays allocated once at open; only outputs whose shape is known at run
    time alone are allocated by the runtime, at each call.
    """

    def __init__(
        self,
        content: bytes,
        *,
        threads: int,
        profile_prefix: str | None = None,
        optimise: bool = True,
        integers: bool = True,
        wait: Wait = "auto",
    ) -> None:
        """Open a session.

        Args:
            content: serialized ONNX model.
            threads: intra-operator threads.
            profile_prefix: write ONNX Runtime's own per-node trace to files of this prefix.
            optimise: let the runtime fuse and lay out the graph; off only to look at single nodes.
            integers: compute in integers between Q/DQ pairs; off rounds to their grids and computes in float, which is
                what an engine with other fusions than ONNX Runtime's would give.
            wait: `blocking` lets threads that wait for each other sleep; else they keep their cores busy a while.

        Raises:
            EngineError: ONNX Runtime refuses the model.
        """
        options = _session_options(threads, profile_prefix=profile_prefix, optimise=optimise)
        if not integers:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if wait == "blocking":
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} refuses the model: {_one_line(error)}"
            ) from error
        self.inputs = tuple(_tensor_info(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor_info(value) for value in self._session.get_outputs())
        self._binding = self._session.io_binding()
        self._held: dict[str, NDArray[np.generic]] = {}
        self._bound_inputs: dict[str, int] = {}
        for tensor in self.outputs:
            self._bind_output(tensor)

    @classmethod
    def from_bytes(cls, content: bytes, *, threads: int, wait: Wait = "auto") -> OnnxRuntimeEngine:
        """Open from the bytes of an ONNX file."""
        return cls(content, threads=threads, wait=wait)

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        for tensor in self.inputs:
            self._bind_input(tensor, feeds)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_one_line(error)}") from error
        if len(self._held) == len(self.outputs):
            return self._held
        values = self._binding.get_outputs()
        return {tensor.name: value.numpy() for tensor, value in zip(self.outputs, values, strict=True)}

    def end_profiling(self) -> str:
        """Stop the per-node trace; returns the path of ONNX Runtime's JSON file."""
        return str(self._session.end_profiling())

    def close(self) -> None:
        """See `Engine.close`."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._held.clear()

    def _bind_output(self, tensor: TensorInfo) -> None:
        if -1 in tensor.shape or not tensor.shape:  # the runtime says () of a scalar, and where it knows no rank too
            self._binding.bind_output(tensor.name)
            return
        array = np.zeros(tensor.shape, tensor.dtype)
        self._held[tensor.name] = array
        self._binding.bind_output(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def _bind_input(self, tensor: TensorInfo, feeds: Tensors) -> None:
        """Bind the caller's array, unless the very same memory is bound already."""
        array = feeds[tensor.name]
        if not tensor.admits(array.shape) or array.dtype != np.dtype(tensor.dtype) or not array.flags.c_contiguous:
            raise ValueError(
                f"input {tensor.name}: got {array.dtype} {list(array.shape)}, "
                f"expected C-contiguous {tensor.dtype} {list(tensor.shape)}"
            )
        address = array.ctypes.data
        if self._bound_inputs.get(tensor.name) != address or -1 in tensor.shape:
            self._binding.bind_input(tensor.name, "cpu", 0, array.dtype, array.shape, address)
            self._bound_inputs[tensor.name] = address


def optimised_for_this_cpu(content: bytes, path: Path, *, threads: int) -> bytes:
    """The graph as ONNX Runtime rewrites it for the CPU it runs on, so that opening it again costs no time.

    Args:
        content: serialized ONNX model.
        path: where ONNX Runtime writes it.
        threads: intra-operator threads.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    options = _session_options(threads, profile_prefix=None, optimise=True)
    options.optimized_model_filepath = str(path)
    try:
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} refuses the model: {_one_line(error)}") from error
    return path.read_bytes()


def _session_options(threads: int, *, profile_prefix: str | None, optimise: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors come back as exceptions; a second telling on stderr helps nobody
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return options


def _tensor_info(value: onnxruntime.NodeArg) -> TensorInfo:
    if value.type not in _DTYPES:
        raise EngineError(f"tensor {value.name}: type {value.type} cannot be fed, expected one of {', '.join(_DTYPES)}")
    shape = tuple(side if isinstance(side, int) else -1 for side in value.shape)
    return TensorInfo(value.name, shape, _DTYPES[value.type])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
