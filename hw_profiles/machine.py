"""What this machine is: board, CPU, memory, GPU, power mode, and the libraries that could run an engine on it.

Everything comes from /proc, /sys, the device tree, Debian's package list and Python's package metadata: no program is
run and no inference library is imported, so that asking costs milliseconds and cannot fail for want of a GPU.
"""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from hw_profiles.jetson import CHIPS, DEVICE_TREE, Jetson, debian_version, read_jetson
from hw_profiles.nvml import read_nvml_gpu
from hw_profiles.sysfs import entries_of, integer_of, text_of

THIS_MACHINE = Path("/")

# CPU features that decide how fast and how exactly INT8 and FP16 run.
# Source: Linux, Documentation/arch/arm64/elf_hwcaps.rst and arch/x86/include/asm/cpufeatures.h.
CPU_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "VNNI (256 bit)",
    "avx512_vnni": "VNNI (512 bit)",
    "amx_int8": "AMX INT8",
    "asimddp": "dot product",
    "i8mm": "INT8 matrix multiply",
    "asimdhp": "FP16 arithmetic",
    "sve": "SVE",
}
INT8_FEATURES = ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")

_RECORDED_PYTHON = "lib/python3.1[0-9]/*-packages"  # those this project runs on: JetPack 5 has 3.8

# Arm's number for a core design. Source: Linux, arch/arm64/include/asm/cputype.h.
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
    "0xd83": "Neoverse-V3AE",
    "0xd84": "Neoverse-V3",
}


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor.

    Attributes:
        arch: `x86_64`, `aarch64`, or what the kernel calls it.
        cores: hardware threads this process may run on.
        cores_present: hardware threads of the machine.
        quota_cores: CPU time the container grants, in cores; None where it is not limited.
        features: those of `CPU_FEATURES` it has.
        clock_mhz, max_clock_mhz: now, and at most.
        governor: how the kernel chooses the clock.
    """

    model: str
    arch: str
    cores: int
    cores_present: int
    quota_cores: float | None
    features: tuple[str, ...]
    clock_mhz: float | None
    max_clock_mhz: float | None
    governor: str | None

    @property
    def usable_cores(self) -> int:
        """Threads that can truly run at once: the affinity, cut by the container's quota, at least 1."""
        return self.cores if self.quota_cores is None else max(1, min(self.cores, math.floor(self.quota_cores)))


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first NVIDIA GPU. `memory_bytes` is its own memory; None where it shares the machine's."""

    name: str
    compute_capability: str | None
    memory_bytes: int | None
    driver: str | None
    max_clock_mhz: float | None


@dataclass(frozen=True, slots=True)
class Libraries:
    """Versions installed for this Python; None where missing. Nothing is imported to find out.

    Attributes:
        tensorrt: TensorRT's Python binding.
        tensorrt_library: TensorRT's own library as a Debian package, which a virtual environment may not see.
    """

    onnxruntime: str | None
    tensorrt: str | None
    tensorrt_library: str | None
    pycuda: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine, read once."""

    board: str
    cpu: Cpu
    memory_bytes: int | None
    gpu: Gpu | None
    jetson: Jetson | None
    libraries: Libraries
    kernel: str | None

    def document(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return asdict(self)


def read_machine(root: Path = THIS_MACHINE) -> Machine:
    """Read a machine.

    Args:
        root: where its file system begins; another folder is a recorded machine, of which only files are asked.
    """
    jetson = read_jetson(root)
    cpu = _cpu(root)
    return Machine(
        board=_board(root) or f"{cpu.arch} computer",
        cpu=cpu,
        memory_bytes=memory_bytes(root, "MemTotal"),
        gpu=_gpu(root, jetson),
        jetson=jetson,
        libraries=_libraries(root),
        kernel=text_of(root / "proc/sys/kernel/osrelease"),
    )


def memory_bytes(root: Path, field: str) -> int | None:
    """A field of /proc/meminfo, such as MemTotal or MemAvailable."""
    found = re.search(rf"^{field}:\s+(\d+) kB", text_of(root / "proc/meminfo") or "", re.MULTILINE)
    return None if found is None else int(found.group(1)) * 1024


def _board(root: Path) -> str | None:
    if (model := text_of(root / DEVICE_TREE / "model")) is not None:
        return model
    names = (text_of(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    return " ".join(name for name in names if name) or None


def _cpu(root: Path) -> Cpu:
    info = text_of(root / "proc/cpuinfo") or ""
    words = set(_cpu_field(info, "flags|Features").split())
    present = len(re.findall(r"^processor\s*:", info, re.MULTILINE)) or os.cpu_count() or 1
    clock_mhz, max_clock_mhz = _cpu_clocks_mhz(root, info)
    return Cpu(
        model=_cpu_model(info),
        arch=_arch(info, words),
        cores=len(os.sched_getaffinity(0)) if root == THIS_MACHINE else present,
        cores_present=present,
        quota_cores=_quota_cores(root),
        features=tuple(name for name in CPU_FEATURES if name in words),
        clock_mhz=clock_mhz,
        max_clock_mhz=max_clock_mhz,
        governor=text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def _cpu_field(info: str, names: str) -> str:
    found = re.search(rf"^(?:{names})\s*:[ \t]*(.*)$", info, re.MULTILINE)
    return "" if found is None else found.group(1).strip()


def _cpu_model(info: str) -> str:
    part = _cpu_field(info, "CPU part")
    return _cpu_field(info, "model name") or _ARM_CORES.get(part) or (f"Arm core {part}" if part else "unknown CPU")


def _arch(info: str, words: set[str]) -> str:
    """Told by the CPU's own features: a recorded machine has no uname."""
    if _cpu_field(info, "CPU implementer"):
        return "aarch64" if "asimd" in words else "armv7l"
    return "x86_64" if "lm" in words else platform.machine()


def _cpu_clocks_mhz(root: Path, info: str) -> tuple[float | None, float | None]:
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    now_khz, most_khz = integer_of(folder / "scaling_cur_freq"), integer_of(folder / "scaling_max_freq")
    if now_khz is None:
        told = _cpu_field(info, "cpu MHz")
        return (float(told) if told else None), None
    return now_khz / 1000, None if most_khz is None else most_khz / 1000


def _quota_cores(root: Path) -> float | None:
    """Control groups of version 2 (one file) or 1 (two files)."""
    folder = root / "sys/fs/cgroup"
    quota, _, period = (text_of(folder / "cpu.max") or "").partition(" ")
    if not period:
        quota = text_of(folder / "cpu/cpu.cfs_quota_us") or ""
        period = text_of(folder / "cpu/cpu.cfs_period_us") or ""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _gpu(root: Path, jetson: Jetson | None) -> Gpu | None:
    if jetson is not None:
        name, capability = CHIPS[jetson.chip]
        return Gpu(name, capability, memory_bytes=None, driver=None, max_clock_mhz=jetson.gpu_max_clock_mhz)
    if root == THIS_MACHINE and (seen := read_nvml_gpu()) is not None:
        return Gpu(seen.name, seen.compute_capability, seen.memory_bytes, seen.driver, seen.max_clock_mhz)
    return _gpu_of_the_kernel_driver(root)


def _gpu_of_the_kernel_driver(root: Path) -> Gpu | None:
    """What the driver's /proc files tell without its library: a name, but no compute capability."""
    folder = root / "proc/driver/nvidia"
    for path in entries_of(folder / "gpus", "*/information"):
        if found := re.search(r"^Model:\s*(.+?)\s*$", text_of(path) or "", re.MULTILINE):
            driver = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text_of(folder / "version") or "")
            version = None if driver is None else driver.group(1)
            return Gpu(found.group(1), None, memory_bytes=None, driver=version, max_clock_mhz=None)
    return None


def _libraries(root: Path) -> Libraries:
    return Libraries(
        onnxruntime=_python_version(root, "onnxruntime", "onnxruntime-gpu"),
        tensorrt=_python_version(root, "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
        tensorrt_library=debian_version(root, re.compile(r"libnvinfer\d+")),
        pycuda=_python_version(root, "pycuda"),
    )


def _python_version(root: Path, *names: str) -> str | None:
    """Version of the first of these distributions: of this interpreter, or of the recorded machine's system Python."""
    for name in names:
        if root == THIS_MACHINE:
            found = metadata.distributions(name=name)
        else:
            folders = entries_of(root / "usr", _RECORDED_PYTHON) + entries_of(root / "usr/local", _RECORDED_PYTHON)
            found = metadata.distributions(name=name, path=[str(folder) for folder in folders])
        for distribution in found:
            return distribution.version
    return None
