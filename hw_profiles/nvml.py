"""NVIDIA's management library, through ctypes: it comes with the driver, so nothing has to be installed.

Source: NVIDIA, "NVML API Reference Guide" (nvml.h). A machine without the driver answers None everywhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

_SUCCESS, _TEMPERATURE_GPU, _CLOCK_SM = 0, 0, 1
# Reasons that mean slower than asked for: power cap, hardware slowdown, thermal slowdowns, power brake.
_SLOWED_DOWN = 0x04 | 0x08 | 0x20 | 0x40 | 0x80


@dataclass(frozen=True, slots=True)
class NvmlGpu:
    """The first GPU as the driver describes it."""

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    max_clock_mhz: float | None


@dataclass(frozen=True, slots=True)
class NvmlState:
    """The first GPU now; None where the driver does not tell."""

    clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    slowed_down: bool | None


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Nvml:
    """The library opened, with the handle of GPU 0. The driver releases both when the process ends."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def number(self, function: str, *arguments: int) -> int | None:
        """Ask a function that writes one unsigned number behind its last argument."""
        value = ctypes.c_ulonglong(0)
        return value.value if self._call(function, *arguments, ctypes.byref(value)) else None

    def name(self) -> str:
        buffer = ctypes.create_string_buffer(96)
        self._call("nvmlDeviceGetName", buffer, ctypes.c_uint(len(buffer)))
        return buffer.value.decode()

    def compute_capability(self) -> str:
        major, minor = ctypes.c_int(0), ctypes.c_int(0)
        self._call("nvmlDeviceGetCudaComputeCapability", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def memory_bytes(self) -> int:
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", ctypes.byref(memory))
        return int(memory.total)

    def driver(self) -> str:
        buffer = ctypes.create_string_buffer(80)
        self._library.nvmlSystemGetDriverVersion(buffer, ctypes.c_uint(len(buffer)))
        return buffer.value.decode()

    def _call(self, function: str, *arguments: object) -> bool:
        pointer: Callable[..., int] | None = getattr(self._library, function, None)
        return pointer is not None and pointer(self._handle, *arguments) == _SUCCESS


def read_nvml_gpu() -> NvmlGpu | None:
    """GPU 0 of this machine; None without NVIDIA's driver."""
    nvml = _opened()
    if nvml is None:
        return None
    clock = nvml.number("nvmlDeviceGetMaxClockInfo", _CLOCK_SM)
    return NvmlGpu(
        name=nvml.name(),
        compute_capability=nvml.compute_capability(),
        memory_bytes=nvml.memory_bytes(),
        driver=nvml.driver(),
        max_clock_mhz=None if clock is None else float(clock),
    )


def read_nvml_state() -> NvmlState | None:
    """GPU 0 at this instant; None without NVIDIA's driver."""
    nvml = _opened()
    if nvml is None:
        return None
    clock = nvml.number("nvmlDeviceGetClockInfo", _CLOCK_SM)
    temperature = nvml.number("nvmlDeviceGetTemperature", _TEMPERATURE_GPU)
    power_mw = nvml.number("nvmlDeviceGetPowerUsage")
    reasons = nvml.number("nvmlDeviceGetCurrentClocksThrottleReasons")
    return NvmlState(
        clock_mhz=None if clock is None else float(clock),
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if power_mw is None else power_mw / 1000,
        slowed_down=None if reasons is None else bool(reasons & _SLOWED_DOWN),
    )


@lru_cache(maxsize=1)
def _opened() -> _Nvml | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() != _SUCCESS:
        return None
    if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(handle)) != _SUCCESS:
        return None
    return _Nvml(library, handle)
