"""What went wrong on the GPU, told apart by what can be done about it. Imports no CUDA."""

from __future__ import annotations

from perception.errors import EngineError


class DeviceMemoryError(EngineError):
    """The GPU has no room left: close an engine, or run fewer cameras."""


class DeviceLostError(EngineError):
    """The GPU, or this process's context on it, is gone: no engine of this process will run again."""


class KernelError(EngineError):
    """A kernel of ours does not compile here: frames can still be prepared on the CPU."""


# CUDA's own words, by cuGetErrorString and by cuGetErrorName. After any of the second kind the context is unusable.
# Source: NVIDIA, CUDA Driver API, CUresult.
_NO_MEMORY = ("out of memory", "OUT_OF_MEMORY")
_LOST = (
    "illegal memory access",
    "ILLEGAL_ADDRESS",
    "illegal instruction",
    "ILLEGAL_INSTRUCTION",
    "misaligned address",
    "MISALIGNED_ADDRESS",
    "unspecified launch failure",
    "LAUNCH_FAILED",
    "launch timed out",
    "LAUNCH_TIMEOUT",
    "uncorrectable",
    "ECC_UNCORRECTABLE",
    "hardware stack error",
    "HARDWARE_STACK_ERROR",
    "context is destroyed",
    "CONTEXT_IS_DESTROYED",
    "device not ready to be used",
    "DEVICE_UNAVAILABLE",
    "unknown error",
    "ERROR_UNKNOWN",
    "no CUDA-capable device",
    "NO_DEVICE",
)


def fault_of(words: str, *, doing: str) -> EngineError:
    """The error to raise for what CUDA or TensorRT said.

    Args:
        words: the library's message.
        doing: what was being done, for the sentence.
    """
    told = " ".join(words.split())[:300]
    if any(phrase in told for phrase in _NO_MEMORY):
        return DeviceMemoryError(
            f"{doing}: the GPU's memory is full ({told}); close other programs on it, or run fewer cameras"
        )
    if any(phrase in told for phrase in _LOST):
        return DeviceLostError(
            f"{doing}: the GPU is lost to this process ({told}); restart the program, and see dmesg for an Xid line"
        )
    return EngineError(f"{doing}: {told}")
