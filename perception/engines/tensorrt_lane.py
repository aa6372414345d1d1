"""One TensorRT execution context with a stream and device memory of its own; several may share one engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from perception.engines.cuda_device import pinned
from perception.engines.engine import TensorInfo, Wait
from perception.errors import EngineError


class Lane:
    """Device memory for every tensor, bound to a context. Made, used and closed inside the device's context.

    Attributes:
        stream: PyCUDA's stream that all work of this lane goes to.
        addresses: tensor name → address on the GPU.
        answers: output name → pinned array that `enqueue_answers` fills.
    """

    def __init__(self, engine: Any, tensors: Sequence[TensorInfo], outputs: Sequence[TensorInfo], wait: Wait) -> None:  # noqa: ANN401
        """Allocate everything.

        Raises:
            EngineError: TensorRT gives no execution context, most often for want of memory.
        """
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT gives no execution context; close other programs on the GPU (out of memory)")
        self.stream = cuda.Stream()
        blocking = cuda.event_flags.DISABLE_TIMING | cuda.event_flags.BLOCKING_SYNC
        sleeps = wait == "blocking" or (wait == "auto" and len(os.sched_getaffinity(0)) == 1)
        self._done = cuda.Event(blocking) if sleeps else None
        self._memory = {tensor.name: cuda.mem_alloc(max(1, size_bytes(tensor))) for tensor in tensors}
        self.addresses = {name: int(memory) for name, memory in self._memory.items()}
        self.answers: dict[str, NDArray[np.generic]] = {t.name: pinned(t.shape, t.dtype) for t in outputs}
        for name, address in self.addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise EngineError(f"tensor {name}: TensorRT refuses its memory; compile the engine again")

    def enqueue_network(self) -> None:
        """Put the network on the stream.

        Raises:
            EngineError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(self.stream.handle):
            raise EngineError("TensorRT could not start the network; see the lines it logged before")

    def enqueue_answers(self) -> None:
        """Put the copies of all outputs to the host on the stream."""
        for name, array in self.answers.items():
            cuda.memcpy_dtoh_async(array, self.addresses[name], self.stream)

    @contextmanager
    def profiled(self, profiler: Any) -> Iterator[None]:  # noqa: ANN401  (TensorRT is untyped)
        """Report each layer's time to an `IProfiler` in the block."""
        self._context.profiler = profiler
        try:
            yield
        finally:
            self._context.profiler = None

    def wait(self) -> None:
        """Until everything on the stream is done, by spinning (the context's own way) or blocking."""
        if self._done is None:
            self.stream.synchronize()
            return
        self._done.record(self.stream)
        self._done.synchronize()

    def close(self) -> None:
        """Give everything back; arrays of `answers` that are still held keep their memory."""
        self.answers = {}
        self._context = None
        for memory in self._memory.values():
            memory.free()
        self._memory = {}


def size_bytes(tensor: TensorInfo) -> int:
    """Bytes of a tensor of static shape."""
    return int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
