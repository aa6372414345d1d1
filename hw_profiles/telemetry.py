"""How this machine is while it runs: clocks, temperature, throttling, memory, power.

`sample` is meant to be called beside every batch of measurements: it reads a handful of kernel files whose places were
found once, and None stands for everything the machine does not tell. Power is read where the board measures it (INA3221
or INA238 on a Jetson, the driver on a discrete GPU); on x86 it is the difference of two RAPL counters: `power_between`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hw_profiles.jetson import gpu_clocks_mhz
from hw_profiles.machine import THIS_MACHINE, memory_bytes
from hw_profiles.nvml import read_nvml_state
from hw_profiles.sysfs import entries_of, integer_of, text_of

CPUS_ASKED = 8  # enough to see a package throttled, few enough to stay cheap on a server

# Rails that add up to what a module draws: an Orin NX or Nano has one, an AGX Orin three.
# Source: energymon, README of its jetson implementation.
MODULE_RAILS = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One look at the machine; None where it does not tell.

    Attributes:
        at_ns: `time.monotonic_ns` of the look.
        cpu_clock_mhz: the fastest of the first CPUs; under load a fall of it is throttling.
        temperature_c: the hottest thermal zone.
        throttle_events: slow-downs since boot, by heat or over-current; compare two looks.
        rss_bytes: memory this process holds.
        available_bytes: memory that can be had without swapping.
        power_w: drawn by the module (Jetson) or the GPU.
        energy_uj: counter of the CPU package since boot, in microjoules; wraps around.
        gpu_slowed_down: the GPU runs slower than asked for: heat, power cap or brake.
    """

    at_ns: int
    cpu_clock_mhz: float | None
    gpu_clock_mhz: float | None
    temperature_c: float | None
    gpu_temperature_c: float | None
    throttle_events: int | None
    gpu_slowed_down: bool | None
    rss_bytes: int | None
    available_bytes: int | None
    power_w: float | None
    energy_uj: int | None


@dataclass(frozen=True, slots=True)
class _Sensors:
    """Where a machine keeps what; found once, because looking for files costs more than reading them."""

    cpu_clocks: tuple[Path, ...]
    temperatures: tuple[Path, ...]
    throttle_counts: tuple[Path, ...]
    rails: tuple[tuple[Path, Path], ...]
    power_uw: Path | None
    energy_uj: tuple[Path, ...]


def sample(root: Path = THIS_MACHINE) -> Telemetry:
    """Look at the machine once.

    Args:
        root: where its file system begins; another folder is a recorded machine.
    """
    sensors = _sensors(root)
    gpu = read_nvml_state() if root == THIS_MACHINE else None
    clock_mhz, _ = gpu_clocks_mhz(root)
    power_w = _rails_w(sensors)
    return Telemetry(
        at_ns=time.monotonic_ns(),
        cpu_clock_mhz=_largest(sensors.cpu_clocks, 1e-3),
        gpu_clock_mhz=gpu.clock_mhz if gpu else clock_mhz,
        temperature_c=_largest(sensors.temperatures, 1e-3),
        gpu_temperature_c=gpu.temperature_c if gpu else None,
        throttle_events=_total(sensors.throttle_counts),
        gpu_slowed_down=gpu.slowed_down if gpu else None,
        rss_bytes=_rss_bytes(root),
        available_bytes=memory_bytes(root, "MemAvailable"),
        power_w=gpu.power_w if gpu and power_w is None else power_w,
        energy_uj=_total(sensors.energy_uj),
    )


def power_between(first: Telemetry, second: Telemetry) -> float | None:
    """Mean power of the CPU package in watts from two looks; None without a counter, or where it wrapped around."""
    seconds = (second.at_ns - first.at_ns) / 1e9
    if first.energy_uj is None or second.energy_uj is None or seconds <= 0 or second.energy_uj < first.energy_uj:
        return None
    return (second.energy_uj - first.energy_uj) / 1e6 / seconds


@lru_cache(maxsize=8)
def _sensors(root: Path) -> _Sensors:
    cpus = root / "sys/devices/system/cpu"
    allowed = sorted(os.sched_getaffinity(0)) if root == THIS_MACHINE else range(CPUS_ASKED)
    zones = entries_of(root / "sys/class/thermal", "thermal_zone*/temp")
    monitors = entries_of(root / "sys/class/hwmon", "hwmon*")
    return _Sensors(
        cpu_clocks=tuple(cpus / f"cpu{number}/cpufreq/scaling_cur_freq" for number in list(allowed)[:CPUS_ASKED]),
        temperatures=zones or entries_of(root / "sys/class/hwmon", "hwmon*/temp*_input"),
        throttle_counts=entries_of(root / "sys/class/hwmon", "hwmon*/oc*_event_cnt")
        or entries_of(cpus, "cpu0/thermal_throttle/package_throttle_count"),
        rails=_rails(monitors),
        power_uw=next((folder / "power1_input" for folder in monitors if text_of(folder / "name") == "ina238"), None),
        energy_uj=entries_of(root / "sys/class/powercap", "intel-rapl:?/energy_uj"),
    )


def _rails(monitors: tuple[Path, ...]) -> tuple[tuple[Path, Path], ...]:
    """Voltage (mV) and current (mA) files of the rails that make up the module's input."""
    found: dict[str, tuple[Path, Path]] = {}
    for folder in monitors:
        if text_of(folder / "name") == "ina3221":
            for label in entries_of(folder, "in*_label"):
                channel = label.name.removeprefix("in").removesuffix("_label")
                found[text_of(label) or ""] = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
    for names in MODULE_RAILS:
        if all(name in found for name in names):
            return tuple(found[name] for name in names)
    return ()


def _rails_w(sensors: _Sensors) -> float | None:
    if sensors.power_uw is not None:
        power_uw = integer_of(sensors.power_uw)
        return None if power_uw is None else power_uw / 1e6
    products = []
    for voltage, current in sensors.rails:
        millivolts, milliamperes = integer_of(voltage), integer_of(current)
        if millivolts is None or milliamperes is None:
            return None
        products.append(millivolts * milliamperes / 1e6)
    return sum(products) if products else None


def _largest(paths: tuple[Path, ...], scale: float) -> float | None:
    """Largest plausible reading: zones that are switched off answer with an error or with absurd cold."""
    readings = [reading for path in paths if (reading := integer_of(path)) is not None and reading > 0]
    return max(readings) * scale if readings else None


def _total(paths: tuple[Path, ...]) -> int | None:
    readings = [reading for path in paths if (reading := integer_of(path)) is not None]
    return sum(readings) if readings else None


def _rss_bytes(root: Path) -> int | None:
    fields = (text_of(root / "proc/self/statm") or "").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None
