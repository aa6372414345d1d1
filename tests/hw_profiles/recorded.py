"""Recorded machines: the few files by which `read_machine` and `sample` know a board, laid out below a folder.

The files have the shape of real ones. Where the shapes come from:

- device-tree `model` and `compatible`, carrier and module part numbers: Linux, arch/arm64/boot/dts/nvidia, and boards
  read out in public bug reports of rbonghi/jetson_stats (issue 779 for Thor);
- `/etc/nv_tegra_release`: NVIDIA's Jetson Linux R35.4.1, R36.4.3, R36.4.4 and R38.2.2;
- `/etc/nvpmodel.conf`: NVIDIA's nvpmodel_p3767_0003_super.conf, nvpmodel_p3767_0000_super.conf and
  nvpmodel_p3701_0000.conf, shortened to the lines that matter, the sample line in their leading comment included;
  `/var/lib/nvpmodel/status` beside it;
- package versions: nvidia-jetpack and libnvinfer of those releases;
- INA3221 rails, `soctherm_oc` counters, thermal zones: an Orin Nano and an AGX Orin read out in public issues; a zone
  that is powered down answers a read with an error, which an empty file stands for here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, str]

_A78AE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_NVPMODEL_HEADER = """#
# FORMAT:
# < POWER_MODEL ID=id_num NAME=mode_name >
# PARAM1_NAME ARG11_NAME ARG11_VAL
#
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
"""


def lay_out(root: Path, files: Files) -> Path:
    """Write a recorded machine below `root` and return `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def _arm_cpus(count: int, *, part: str, features: str) -> str:
    one = (
        f"BogoMIPS\t: 62.50\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
    )
    return "\n".join(f"processor\t: {number}\n{one}" for number in range(count))


def _nvpmodel(*names: str, default: int) -> str:
    modes = "".join(
        f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n\n" for number, name in enumerate(names)
    )
    return f"{_NVPMODEL_HEADER}\n{modes}< PM_CONFIG DEFAULT={default} >\n"


def _dpkg(**versions: str) -> str:
    stanza = "Package: {}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {}\n"
    return "\n".join(stanza.format(name.replace("_", "-"), version) for name, version in versions.items())


def _memory(total_kb: int) -> str:
    return f"MemTotal:       {total_kb} kB\nMemFree:        {total_kb // 4} kB\nMemAvailable:   {total_kb // 2} kB\n"


def _cpufreq(*, now_khz: int, most_khz: int, governor: str) -> Files:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        f"{folder}/scaling_cur_freq": f"{now_khz}\n",
        f"{folder}/scaling_max_freq": f"{most_khz}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
    }


def python_packages(minor: int, **versions: str) -> Files:
    folder = f"usr/lib/python3.{minor}/dist-packages"
    return {
        f"{folder}/{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for name, version in versions.items()
    }


def _rails(folder: str, **millivolt_milliampere: tuple[int, int]) -> dict[str, str]:
    files = {f"{folder}/name": "ina3221\n", f"{folder}/in7_label": "sum of shunt voltages\n"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(millivolt_milliampere.items(), start=1):
        files[f"{folder}/in{channel}_label"] = f"{label}\n"
        files[f"{folder}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{folder}/curr{channel}_input"] = f"{milliamperes}\n"
    return files


ORIN_NANO_8GB: Files = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/cpuinfo": _arm_cpus(6, part="0xd42", features=_A78AE),
    "proc/meminfo": _memory(7_802_040),
    "proc/self/statm": "60000 4000 900 1 0 9000 0\n",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
    "etc/nvpmodel.conf": _nvpmodel("15W", "25W", "MAXN_SUPER", default=1),
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
    "var/lib/dpkg/status": _dpkg(bash="5.1-6ubuntu1", nvidia_jetpack="6.2+b77", libnvinfer10="10.3.0.30-1+cuda12.5"),
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/thermal/thermal_zone0/temp": "63625\n",
    "sys/class/thermal/thermal_zone2/temp": "",
    "sys/class/thermal/thermal_zone8/temp": "64031\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "1\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "2\n",
    **_rails("sys/class/hwmon/hwmon1", VDD_IN=(4984, 1856), VDD_CPU_GPU_CV=(4984, 688), VDD_SOC=(4984, 432)),
    **_cpufreq(now_khz=960_000, most_khz=1_344_000, governor="schedutil"),
    **python_packages(10, tensorrt="10.3.0", pycuda="2025.1"),
}

ORIN_NX_16GB: Files = {
    "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
    "proc/cpuinfo": _arm_cpus(8, part="0xd42", features=_A78AE),
    "proc/meminfo": _memory(15_655_436),
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun 16 16:07:13 UTC 2025\n",
    "etc/nvpmodel.conf": _nvpmodel("MAXN_SUPER", "10W", "15W", "25W", "40W", default=4),
    "var/lib/nvpmodel/status": "pmode:0004",
    "var/lib/dpkg/status": _dpkg(nvidia_jetpack="6.2.1+b38", libnvinfer10="10.3.0.30-1+cuda12.5"),
    **_cpufreq(now_khz=729_600, most_khz=1_497_600, governor="schedutil"),
}

AGX_ORIN_64GB: Files = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0nvidia,tegra23x\0",
    "proc/cpuinfo": _arm_cpus(12, part="0xd42", features=_A78AE),
    "proc/meminfo": _memory(64_349_184),
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
    "DATE: Tue Aug  1 19:57:35 UTC 2023\n",
    "etc/nvpmodel.conf": _nvpmodel("MAXN", "MODE_15W", "MODE_30W", "MODE_50W", default=2),
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "var/lib/dpkg/status": _dpkg(nvidia_jetpack="5.1.2-b104", libnvinfer8="8.5.2-1+cuda11.4"),
    "sys/class/devfreq/17000000.ga10b/cur_freq": "1300500000\n",
    "sys/class/devfreq/17000000.ga10b/max_freq": "1300500000\n",
    **_rails("sys/class/hwmon/hwmon4", VDD_GPU_SOC=(20_000, 250), VDD_CPU_CV=(20_000, 160), VIN_SYS_5V0=(5000, 1100)),
    **_cpufreq(now_khz=2_201_600, most_khz=2_201_600, governor="performance"),
    **python_packages(8, tensorrt="8.5.2.2", pycuda="2024.1"),
}

AGX_THOR: Files = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "proc/cpuinfo": _arm_cpus(14, part="0xd83", features=f"{_A78AE} sve sve2 i8mm bf16"),
    "proc/meminfo": _memory(128_790_528),
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, EABI: aarch64, "
    "DATE: Thu Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\nINSTALL_TYPE=\n",
    "etc/nvpmodel.conf": _nvpmodel("MAXN", "120W", "90W", "70W", default=1),
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "var/lib/dpkg/status": _dpkg(libnvinfer10="10.13.3.9-1+cuda13.0"),
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "114000000\n",
    "sys/class/hwmon/hwmon2/name": "ina238\n",
    "sys/class/hwmon/hwmon2/power1_input": "38250000\n",
    **_cpufreq(now_khz=2_601_000, most_khz=2_601_000, governor="schedutil"),
    **python_packages(12, tensorrt="10.13.3.9", pycuda="2025.1"),
}

X86_SERVER: Files = {
    "proc/cpuinfo": "\n".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6430\n"
        "flags\t\t: fpu lm sse2 avx avx2 avx512f avx_vnni avx512_vnni amx_int8\n"
        for number in range(4)
    ),
    "proc/meminfo": _memory(131_072_000),
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release\n",
    "proc/driver/nvidia/gpus/0000:00:06.0/information": "Model: \t\t NVIDIA H200\nIRQ:   \t\t 41\n",
    "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
    "sys/class/dmi/id/product_name": "PowerEdge XE9680\n",
    "sys/fs/cgroup/cpu.max": "250000 100000\n",
    "sys/class/hwmon/hwmon0/temp1_input": "41000\n",
    "sys/class/hwmon/hwmon0/temp2_input": "47000\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:1/energy_uj": "7000000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "3\n",
    **_cpufreq(now_khz=2_100_000, most_khz=3_400_000, governor="powersave"),
    **python_packages(12, onnxruntime_gpu="1.20.1"),
}

RASPBERRY_PI_5: Files = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "proc/cpuinfo": _arm_cpus(
        4,
        part="0xd0b",
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    "proc/meminfo": _memory(8_245_248),
    "sys/class/thermal/thermal_zone0/temp": "51800\n",
    **_cpufreq(now_khz=1_500_000, most_khz=2_400_000, governor="ondemand"),
    **python_packages(11, onnxruntime="1.20.1"),
}
