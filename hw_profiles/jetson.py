"""What a Jetson says about itself: module, Jetson Linux, JetPack, power mode, GPU clock.

Everything is read from files, nothing by running a program: `nvpmodel -q` wants root on some releases, and inside a
container it reads the container's device tree. Two files say the same: /var/lib/nvpmodel/status holds the number of the
mode, /etc/nvpmodel.conf its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.sysfs import entries_of, integer_of, text_of

DEVICE_TREE = "proc/device-tree"

# Compute capability of the GPU on the chip. Source: NVIDIA, "CUDA GPU Compute Capability" and its legacy page.
CHIPS = {"tegra194": ("Xavier", "7.2"), "tegra234": ("Orin", "8.7"), "tegra264": ("Thor", "11.0")}

# Releases of Jetson Linux and the JetPack they belong to, for images without the nvidia-jetpack package.
# Source: NVIDIA, JetPack archive; jetson_stats, jtop/core/jetson_variables.py.
JETPACK_OF_L4T = {
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2.0": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4.0": "7.1",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}

_MODULE = re.compile(r"p\d{4}-\d{4}")
_RELEASE = re.compile(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)")
_POWER_MODEL = re.compile(r"^\s*<\s*POWER_MODEL\b([^>]*)>", re.MULTILINE)  # the file's comments hold a sample line


@dataclass(frozen=True, slots=True)
class Jetson:
    """The module and its software.

    Attributes:
        module: part number of the compute module such as `p3767-0005`; None where the device tree does not name one.
        chip: system on chip such as `tegra234`.
        l4t: release of Jetson Linux such as `36.4.3`.
        power_mode: name of the nvpmodel mode now set.
        power_modes: (id, name) of every mode this module offers.
        gpu_clock_mhz, gpu_max_clock_mhz: now, and at most in this power mode.
    """

    module: str | None
    chip: str
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    power_modes: tuple[tuple[int, str], ...]
    gpu_clock_mhz: float | None
    gpu_max_clock_mhz: float | None


def read_jetson(root: Path) -> Jetson | None:
    """The Jetson below `root`; None where the machine is none."""
    compatible = compatible_of(root)
    chip = next((entry.removeprefix("nvidia,") for entry in compatible if entry.removeprefix("nvidia,") in CHIPS), None)
    if chip is None:
        return None
    l4t = _l4t(root)
    modes = _power_modes(root)
    clock_mhz, max_clock_mhz = gpu_clocks_mhz(root)
    return Jetson(
        module=_module(compatible),
        chip=chip,
        l4t=l4t,
        jetpack=_jetpack(root, l4t),
        power_mode=dict(modes).get(_power_mode_id(root)),
        power_modes=modes,
        gpu_clock_mhz=clock_mhz,
        gpu_max_clock_mhz=max_clock_mhz,
    )


def compatible_of(root: Path) -> tuple[str, ...]:
    """The device tree's names for the machine, most special first."""
    text = text_of(root / DEVICE_TREE / "compatible")
    return () if text is None else tuple(text.split("\0"))


def gpu_clocks_mhz(root: Path) -> tuple[float | None, float | None]:
    """GPU clock now and at most; devfreq names it `….ga10b` (JetPack 5), `….gpu` (6) or `gpu-gpc-0` (7)."""
    for folder in entries_of(root / "sys/class/devfreq", "*"):
        if folder.name.endswith((".ga10b", ".gv11b", ".gpu")) or folder.name == "gpu-gpc-0":
            return _megahertz(folder / "cur_freq"), _megahertz(folder / "max_freq")
    return None, None


def debian_version(root: Path, package: re.Pattern[str]) -> str | None:
    """Version of the first installed Debian package whose name matches, without revision and build suffix."""
    text = text_of(root / "var/lib/dpkg/status") or ""
    for stanza in text.split("\n\n"):
        name, _, rest = stanza.lstrip().removeprefix("Package: ").partition("\n")
        if package.fullmatch(name) and "Status: install ok installed" in rest:
            version = re.search(r"^Version: (?:\d+:)?([0-9.]+)", rest, re.MULTILINE)
            return None if version is None else version.group(1).rstrip(".")
    return None


def _module(compatible: tuple[str, ...]) -> str | None:
    """`nvidia,p3768-0000+p3767-0005-super` is a carrier and, after the plus sign, the module."""
    for entry in compatible:
        if found := _MODULE.findall(entry):
            return str(found[-1])
    return None


def _l4t(root: Path) -> str | None:
    found = _RELEASE.search(text_of(root / "etc/nv_tegra_release") or "")
    return None if found is None else f"{found.group(1)}.{found.group(2)}"


def _jetpack(root: Path, l4t: str | None) -> str | None:
    return debian_version(root, re.compile("nvidia-jetpack")) or JETPACK_OF_L4T.get(l4t or "")


def _power_mode_id(root: Path) -> int:
    found = re.search(r"pmode:(\d+)", text_of(root / "var/lib/nvpmodel/status") or "")
    return -1 if found is None else int(found.group(1))


def _power_modes(root: Path) -> tuple[tuple[int, str], ...]:
    modes = []
    for attributes in _POWER_MODEL.findall(text_of(root / "etc/nvpmodel.conf") or ""):
        number, name = re.search(r"\bID=(\d+)", attributes), re.search(r"\bNAME=(\S+)", attributes)
        if number and name:
            modes.append((int(number.group(1)), name.group(1)))
    return tuple(modes)


def _megahertz(path: Path) -> float | None:
    hertz = integer_of(path)
    return None if hertz is None else hertz / 1e6
