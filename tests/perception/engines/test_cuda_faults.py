from __future__ import annotations

import pytest

from perception.engines.cuda_faults import DeviceLostError, DeviceMemoryError, fault_of
from perception.errors import EngineError

# As PyCUDA (cuGetErrorString), the driver's status names and TensorRT's log write them.
FULL = (
    "cuMemAlloc failed: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
    "Requested amount of GPU memory (8589934592 bytes) could not be allocated: OutOfMemory, out of memory",
)
LOST = (
    "cuStreamSynchronize failed: an illegal memory access was encountered",
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "cuEventSynchronize failed: unspecified launch failure",
    "CUDA_ERROR_LAUNCH_FAILED",
    "cuEventSynchronize failed: the launch timed out and was terminated",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "cuCtxSynchronize failed: uncorrectable ECC error encountered",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "cuCtxSynchronize failed: misaligned address",
    "cuCtxSynchronize failed: hardware stack error",
    "cuInit failed: no CUDA-capable device is detected",
    "cuInit failed: unknown error",
    "cuCtxPushCurrent failed: context is destroyed",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
)
OTHER = ("cuModuleLoadDataEx failed: device kernel image is invalid", "CUDA_ERROR_INVALID_VALUE", "")


@pytest.mark.parametrize("words", FULL)
def test_full_memory_says_what_can_be_closed(words):
    with pytest.raises(DeviceMemoryError, match=r"opening: the GPU's memory is full .*close other programs on it"):
        raise fault_of(words, doing="opening")


@pytest.mark.parametrize("words", LOST)
def test_a_lost_device_says_that_the_process_must_end(words):
    with pytest.raises(DeviceLostError, match=r"running: the GPU is lost to this process .*restart the program"):
        raise fault_of(words, doing="running")


@pytest.mark.parametrize("words", OTHER)
def test_any_other_fault_is_an_engine_error_with_the_librarys_words(words):
    fault = fault_of(words, doing="loading")
    assert type(fault) is EngineError
    assert str(fault) == f"loading: {words}"


def test_a_fault_is_one_line_however_much_the_library_says():
    told = str(fault_of("a\n  b\t" + "x" * 5000, doing="running"))
    assert told.startswith("running: a b xxx")
    assert "\n" not in told
    assert len(told) < 400
