"""The GPU as this process owns it: one PyCUDA context, pushed while someone works with it, popped at the end.

TensorRT works in whatever context is current, so all engines of a process share this one; the last to close it
releases it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.engines.cuda_faults import KernelError, fault_of
from perception.errors import EngineError

try:
    import pycuda.compiler
    import pycuda.driver as cuda
except ImportError as error:  # pragma: no cover - exercised by an environment without the extra
    raise EngineError(f"PyCUDA does not load ({error}); run: pip install 'tollgate[tensorrt]'") from error
try:
    from cuda.bindings import nvrtc  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # kernels are then compiled by nvcc
    nvrtc = None

_lock = threading.Lock()
_shared: CudaDevice | None = None


class CudaDevice:
    """The process's context on GPU 0. Get it by `acquire`, give it back by `release`."""

    def __init__(self) -> None:
        """Make the context; it is current to nobody afterwards."""
        with faults("opening the GPU"):
            cuda.init()
            device = cuda.Device(0)
            flags = cuda.ctx_flags
            self._context = device.make_context(flags.SCHED_SPIN | flags.MAP_HOST)
        cuda.Context.pop()
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        self._owners = 0

    @classmethod
    def acquire(cls) -> CudaDevice:
        """The shared device; made at the first call.

        Raises:
            EngineError: no GPU, or no context on it.
        """
        global _shared
        with _lock:
            if _shared is None:
                _shared = cls()
            _shared._owners += 1
            return _shared

    def release(self) -> None:
        """Say that one owner is done; the last one destroys the context."""
        global _shared
        with _lock:
            self._owners -= 1
            if self._owners == 0:
                _shared = None
                self._context.detach()

    def outlive_frames(self) -> None:
        """Never destroy the context: frames that somebody still holds lie in memory that would go with it."""
        self._owners += 1

    def current(self, doing: str) -> CurrentDevice:
        """Work in the context, from any thread; `doing` begins the sentence of an error.

        Raises:
            EngineError: CUDA failed; `DeviceMemoryError` and `DeviceLostError` where it is one of those.
        """
        return CurrentDevice(self._context, doing)

    def kernel(self, source: str, name: str, signature: str) -> Any:  # noqa: ANN401  (PyCUDA is untyped)
        """Compile CUDA C++ and prepare one of its kernels; inside `current`.

        Args:
            source: the program; `name` is declared extern "C".
            name: the kernel.
            signature: argument types as `struct` writes them.

        Raises:
            KernelError: no compiler, or it refuses the source.
        """
        architecture = "sm_{}{}".format(*self.capability)
        module = cuda.module_from_buffer(compiled(source, architecture))
        function = module.get_function(name)
        function.prepare(signature)
        return function


class CurrentDevice:
    """A block of code in a context; a class of its own because it is entered at every frame."""

    __slots__ = ("_context", "_doing")

    def __init__(self, context: Any, doing: str) -> None:  # noqa: ANN401  (PyCUDA is untyped)
        self._context, self._doing = context, doing

    def __enter__(self) -> None:
        """Make the context current to this thread."""
        try:
            self._context.push()
        except cuda.Error as error:
            raise fault_of(str(error), doing=self._doing) from error

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Take it off; PyCUDA's errors become the project's."""
        cuda.Context.pop()
        if isinstance(error, cuda.Error):
            raise fault_of(str(error), doing=self._doing) from error


@contextmanager
def faults(doing: str) -> Iterator[None]:
    """Turn PyCUDA's errors into the project's."""
    try:
        yield
    except cuda.Error as error:
        raise fault_of(str(error), doing=doing) from error


@lru_cache(maxsize=64)
def compiled(source: str, architecture: str) -> bytes:
    """Machine code for one architecture, by NVRTC where `cuda.bindings` finds it, else by nvcc; once for each source.

    Raises:
        KernelError: neither exists, or the source is refused.
    """
    refusals = []
    for compiler in (_by_nvrtc, _by_nvcc) if nvrtc is not None else (_by_nvcc,):
        try:
            return compiler(source, architecture)
        except (cuda.CompileError, OSError, RuntimeError) as error:  # a missing library is a RuntimeError
            refusals.append(" ".join(str(error).split())[:300])
    raise KernelError(
        f"CUDA kernel: does not compile ({'; '.join(refusals)}); install cuda-bindings with NVRTC, or put nvcc on the "
        "PATH"
    )


def _by_nvcc(source: str, architecture: str) -> bytes:
    return bytes(pycuda.compiler.compile(source, arch=architecture, no_extern_c=True))


def _by_nvrtc(source: str, architecture: str) -> bytes:
    program = _result(nvrtc.nvrtcCreateProgram(source.encode(), b"tollgate.cu", 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode()]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _result(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.decode(errors="replace"))
    code = b" " * _result(nvrtc.nvrtcGetCUBINSize(program))
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(code)


def _result(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401  (cuda.bindings is untyped)
    if answer[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(str(answer[0]))
    return answer[1]


def pinned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Page-locked host memory the GPU can reach, zeroed; freed with its last reference, inside `current`."""
    array: NDArray[Any] = cuda.pagelocked_zeros(shape, np.dtype(dtype), mem_flags=cuda.host_alloc_flags.DEVICEMAP)
    return array


def on_device(array: NDArray[np.generic]) -> Any:  # noqa: ANN401  (PyCUDA is untyped)
    """A copy of the array in GPU memory; inside `current`."""
    return cuda.to_device(np.ascontiguousarray(array))
