"""Reading machines: recorded ones from their files, and the one the tests run on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hw_profiles.machine import CPU_FEATURES, Cpu, read_machine
from tests.hw_profiles import recorded
from tests.hw_profiles.recorded import Files, lay_out


@pytest.mark.parametrize(
    ("files", "module", "chip", "l4t", "jetpack", "mode"),
    [
        (recorded.ORIN_NANO_8GB, "p3767-0005", "tegra234", "36.4.3", "6.2", "25W"),
        (recorded.ORIN_NX_16GB, "p3767-0000", "tegra234", "36.4.4", "6.2.1", "40W"),
        (recorded.AGX_ORIN_64GB, "p3701-0005", "tegra234", "35.4.1", "5.1.2", "MAXN"),
        (recorded.AGX_THOR, "p3834-0008", "tegra264", "38.2.2", "7.0", "MAXN"),
    ],
)
def test_a_jetson_is_known_by_its_files(
    tmp_path: Path, files: Files, module: str, chip: str, l4t: str, jetpack: str, mode: str
) -> None:
    jetson = read_machine(lay_out(tmp_path, files)).jetson
    assert jetson is not None
    assert (jetson.module, jetson.chip, jetson.l4t, jetson.jetpack) == (module, chip, l4t, jetpack)
    assert jetson.power_mode == mode


@pytest.mark.parametrize(
    ("files", "board", "model", "arch", "cores", "features"),
    [
        (recorded.ORIN_NANO_8GB, "NVIDIA Jetson Orin Nano", "Cortex-A78AE", "aarch64", 6, ("asimddp", "asimdhp")),
        (
            recorded.AGX_THOR,
            "NVIDIA Jetson AGX Thor",
            "Neoverse-V3AE",
            "aarch64",
            14,
            ("asimddp", "i8mm", "asimdhp", "sve"),
        ),
        (recorded.RASPBERRY_PI_5, "Raspberry Pi 5 Model B", "Cortex-A76", "aarch64", 4, ("asimddp", "asimdhp")),
        (
            recorded.X86_SERVER,
            "Dell Inc. PowerEdge XE9680",
            "Intel(R) Xeon(R) Gold 6430",
            "x86_64",
            4,
            ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8"),
        ),
    ],
)
def test_board_and_cpu_are_read(
    tmp_path: Path, files: Files, board: str, model: str, arch: str, cores: int, features: tuple[str, ...]
) -> None:
    machine = read_machine(lay_out(tmp_path, files))
    assert machine.board.startswith(board)
    assert (machine.cpu.model, machine.cpu.arch, machine.cpu.cores_present) == (model, arch, cores)
    assert machine.cpu.features == features


@pytest.mark.parametrize(
    ("files", "name", "capability", "max_clock_mhz"),
    [
        (recorded.ORIN_NANO_8GB, "Orin", "8.7", 918.0),
        (recorded.AGX_ORIN_64GB, "Orin", "8.7", 1300.5),
        (recorded.AGX_THOR, "Thor", "11.0", 1575.0),
        (recorded.X86_SERVER, "NVIDIA H200", None, None),
    ],
)
def test_the_gpu_is_read(
    tmp_path: Path, files: Files, name: str, capability: str | None, max_clock_mhz: float | None
) -> None:
    gpu = read_machine(lay_out(tmp_path, files)).gpu
    assert gpu is not None
    assert (gpu.name, gpu.compute_capability, gpu.max_clock_mhz) == (name, capability, max_clock_mhz)


def test_a_machine_without_nvidia_has_no_gpu(tmp_path: Path) -> None:
    machine = read_machine(lay_out(tmp_path, recorded.RASPBERRY_PI_5))
    assert machine.gpu is None
    assert machine.jetson is None


def test_the_driver_version_comes_from_the_kernel_driver(tmp_path: Path) -> None:
    gpu = read_machine(lay_out(tmp_path, recorded.X86_SERVER)).gpu
    assert gpu is not None
    assert gpu.driver == "580.159.04"


def test_libraries_are_found_without_importing_them(tmp_path: Path) -> None:
    libraries = read_machine(lay_out(tmp_path / "nano", recorded.ORIN_NANO_8GB)).libraries
    assert (libraries.tensorrt, libraries.tensorrt_library, libraries.pycuda) == ("10.3.0", "10.3.0.30", "2025.1")
    assert libraries.onnxruntime is None
    assert read_machine(lay_out(tmp_path / "pi", recorded.RASPBERRY_PI_5)).libraries.onnxruntime == "1.20.1"
    assert read_machine(lay_out(tmp_path / "server", recorded.X86_SERVER)).libraries.onnxruntime == "1.20.1"


def test_a_binding_for_a_python_too_old_does_not_count(tmp_path: Path) -> None:
    """JetPack 5 brings TensorRT for Python 3.8."""
    libraries = read_machine(lay_out(tmp_path, recorded.AGX_ORIN_64GB)).libraries
    assert (libraries.tensorrt, libraries.tensorrt_library) == (None, "8.5.2")


def test_a_package_that_was_removed_does_not_count(tmp_path: Path) -> None:
    removed = "Package: libnvinfer10\nStatus: deinstall ok config-files\nVersion: 10.3.0.30-1+cuda12.5\n"
    root = lay_out(tmp_path, {**recorded.ORIN_NX_16GB, "var/lib/dpkg/status": removed})
    assert read_machine(root).libraries.tensorrt_library is None


def test_jetpack_is_told_by_the_release_of_jetson_linux_where_the_package_is_missing(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {**recorded.ORIN_NANO_8GB, "var/lib/dpkg/status": "\n"})
    jetson = read_machine(root).jetson
    assert jetson is not None
    assert jetson.jetpack == "6.2"


def test_an_unknown_release_of_jetson_linux_is_not_guessed(tmp_path: Path) -> None:
    release = "# R41 (release), REVISION: 7.3, GCID: 1, BOARD: generic, EABI: aarch64\n"
    root = lay_out(tmp_path, {**recorded.AGX_THOR, "etc/nv_tegra_release": release})
    jetson = read_machine(root).jetson
    assert jetson is not None
    assert (jetson.l4t, jetson.jetpack) == ("41.7.3", None)


def test_the_sample_line_in_the_comment_of_nvpmodel_conf_is_no_mode(tmp_path: Path) -> None:
    jetson = read_machine(lay_out(tmp_path, recorded.ORIN_NX_16GB)).jetson
    assert jetson is not None
    assert jetson.power_modes == ((0, "MAXN_SUPER"), (1, "10W"), (2, "15W"), (3, "25W"), (4, "40W"))


@pytest.mark.parametrize("status", ["", "pmode:0099\n", "garbage"])
def test_a_power_mode_that_cannot_be_told_is_unknown(tmp_path: Path, status: str) -> None:
    root = lay_out(tmp_path, {**recorded.ORIN_NANO_8GB, "var/lib/nvpmodel/status": status})
    jetson = read_machine(root).jetson
    assert jetson is not None
    assert jetson.power_mode is None


def test_a_jetson_whose_files_are_hidden_by_a_container_is_still_a_jetson(tmp_path: Path) -> None:
    kept = {name: text for name, text in recorded.ORIN_NANO_8GB.items() if name.startswith("proc/")}
    jetson = read_machine(lay_out(tmp_path, kept)).jetson
    assert jetson is not None
    assert (jetson.module, jetson.l4t, jetson.jetpack, jetson.power_modes) == ("p3767-0005", None, None, ())


def test_clocks_are_in_megahertz(tmp_path: Path) -> None:
    cpu = read_machine(lay_out(tmp_path, recorded.ORIN_NANO_8GB)).cpu
    assert (cpu.clock_mhz, cpu.max_clock_mhz, cpu.governor) == (960.0, 1344.0, "schedutil")


def test_a_clock_is_taken_from_cpuinfo_where_the_kernel_has_no_cpufreq(tmp_path: Path) -> None:
    info = "processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.146\nflags\t\t: lm avx2\n"
    cpu = read_machine(lay_out(tmp_path, {"proc/cpuinfo": info})).cpu
    assert (cpu.clock_mhz, cpu.max_clock_mhz, cpu.governor) == (2596.146, None, None)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_is_read(tmp_path: Path, files: Files, quota: float | None) -> None:
    assert read_machine(lay_out(tmp_path, files)).cpu.quota_cores == quota


@pytest.mark.parametrize(("quota", "usable"), [(None, 4), (8.0, 4), (4.0, 4), (2.5, 2), (1.0, 1), (0.5, 1)])
def test_usable_cores_are_the_smaller_of_affinity_and_quota_and_never_none(quota: float | None, usable: int) -> None:
    cpu = Cpu("any", "x86_64", 4, 8, quota, features=(), clock_mhz=None, max_clock_mhz=None, governor=None)
    assert cpu.usable_cores == usable


def test_an_empty_file_system_answers_without_an_error(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert machine.memory_bytes is None
    assert machine.gpu is None
    assert machine.cpu.model == "unknown CPU"


def test_this_machine_is_read() -> None:
    machine = read_machine()
    assert machine.cpu.cores == len(os.sched_getaffinity(0))
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 1 << 28
    assert set(machine.cpu.features) <= set(CPU_FEATURES)


def test_a_machine_goes_through_json(tmp_path: Path) -> None:
    document = read_machine(lay_out(tmp_path, recorded.AGX_THOR)).document()
    assert json.loads(json.dumps(document))["jetson"]["module"] == "p3834-0008"
