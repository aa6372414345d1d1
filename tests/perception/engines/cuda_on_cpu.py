"""The project's CUDA sources, compiled as C++ for the CPU: the very text the GPU's compiler is given."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

# Threads of a block run one after the other, but for a warp's 32 lanes, which meet at each shuffle, and for those of
# `over_a_block`, which meet at each __syncthreads.
SHIMS = r"""
#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>
using std::isfinite;
#define __device__
#define __global__
struct Place { int x = 0, y = 0, z = 0; };
static thread_local Place blockIdx, blockDim, threadIdx;
#define __shared__ static
static std::barrier lanes_meet(32);
static std::unique_ptr<std::barrier<>> block_meets;
inline void __syncthreads() { block_meets->arrive_and_wait(); }
static float passed[32];

template <typename T> T __shfl_down_sync(unsigned, T value, int distance)
{
    const int lane = threadIdx.x % 32;
    passed[lane] = (float)value;
    lanes_meet.arrive_and_wait();
    const T other = lane + distance < 32 ? (T)passed[lane + distance] : value;
    lanes_meet.arrive_and_wait();
    return other;
}

__attribute__((noinline)) static float __fmul_rn(float a, float b) { return a * b; }
__attribute__((noinline)) static double __dmul_rn(double a, double b) { return a * b; }
inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline int atomicAdd(int* at, int value) { const int before = *at; *at += value; return before; }
"""

OVER_A_GRID = r"""
template <typename Kernel> void over_a_grid(int columns, int rows, Kernel kernel)
{
    blockDim = {32, 8, 1};
    for (blockIdx.y = 0; blockIdx.y < rows; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < columns; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < 8; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x) kernel();
}

template <typename Kernel> void over_warps(int warps, Kernel kernel)
{
    std::vector<std::thread> lanes;
    for (int lane = 0; lane < 32; ++lane)
        lanes.emplace_back([=] {
            blockDim = {32, 1, 1};
            threadIdx.x = lane;
            for (blockIdx.x = 0; blockIdx.x < warps; ++blockIdx.x) kernel();
        });
    for (auto& lane : lanes) lane.join();
}

template <typename Kernel> void over_a_block(int count, Kernel kernel)
{
    block_meets = std::make_unique<std::barrier<>>(count);
    std::vector<std::thread> threads;
    for (int number = 0; number < count; ++number)
        threads.emplace_back([=] {
            blockDim = {count, 1, 1};
            threadIdx.x = number;
            kernel();
        });
    for (auto& thread : threads) thread.join();
}
"""


def separated(source: str, kernel: str, number: int) -> str:
    """One program of several in a file: in a namespace of its own, its constants taken back after it."""
    names = re.findall(r"^#define (\w+)", source, re.MULTILINE)
    undone = "".join(f"#undef {name}\n" for name in (*names, kernel))
    return f"namespace program_{number} {{\n#define {kernel} {kernel}_{number}\n{source}\n}}\n{undone}"


def library_of(programs: Sequence[str], folder: Path) -> ctypes.CDLL:
    """Compile and load C++; skips where there is no compiler, and fails there under TOLLGATE_CI=1."""
    compiler = shutil.which("g++")
    if compiler is None:
        if os.environ.get("TOLLGATE_CI") == "1":
            pytest.fail("no g++ on the PATH, but TOLLGATE_CI=1 says it must be")
        pytest.skip("no g++ on the PATH")
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text("\n".join((SHIMS, OVER_A_GRID, *programs)))
    fused = ["-O2", "-march=native", "-ffp-contract=fast"]  # products melt into sums, as the GPU's compiler has it
    options = ["-std=c++20", *fused, "-shared", "-fPIC", "-pthread", "-o", str(library)]
    done = subprocess.run([compiler, *options, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return ctypes.CDLL(str(library))


def address(array) -> ctypes.c_void_p:
    """Where a C-contiguous array's values lie."""
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
