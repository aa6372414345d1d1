"""May this machine run that package? Every reason against it at once, each with what to do, before anything is opened.

An engine that is opened on the wrong machine crashes, or worse: runs slower than it was measured. So the question is
asked of files and version numbers only, and answered in full: a person at a vehicle wants to fix all in one visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hw_profiles.errors import PreflightError
from hw_profiles.machine import Machine
from hw_profiles.profile import BYTES_PER_GIB, Profile, version_key

OLDEST_ONNXRUNTIME = "1.18"
# Kernel, firmware and carve-outs keep part of a module's memory: CUDA sees 14.1 GiB of an Orin NX 16GB on JetPack 5.
VISIBLE_SHARE = 0.85

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that stands against it."""

    what: str
    got: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: got {self.got}, expected {self.expected}; {self.remedy}"


def check(profile: Profile, machine: Machine, requires: Mapping[str, str] = _NOTHING) -> None:
    """Refuse a machine that does not satisfy a profile and an engine's own requirements.

    Raises:
        PreflightError: its message tells the first reason, its `reasons` all of them.
    """
    reasons = reasons_against(profile, machine, requires)
    if not reasons:
        return
    more = f" (and {len(reasons) - 1} more, see: tollgate doctor --profile {profile.name})" if len(reasons) > 1 else ""
    message = f"this machine may not run a package for {profile.name}: {reasons[0]}{more}"
    raise PreflightError(message, tuple(str(reason) for reason in reasons))


def reasons_against(profile: Profile, machine: Machine, requires: Mapping[str, str] = _NOTHING) -> tuple[Reason, ...]:
    """Everything that stands against running a package on a machine; empty when nothing does.

    Memory, power mode and libraries are asked of the right hardware only: on another they are another's.

    Args:
        profile: the machine it was built for.
        machine: the machine it shall run on.
        requires: what the engine itself needs (`EngineEntry.requires`): the keys of `REQUIREMENTS`. A version is met by
            the release named (`10.3` by any 10.3.x) or, written `>=1.18`, by any from there on. An unknown key stands
            against it: what is not understood cannot be promised.
    """
    reasons = list(hardware_against(profile, machine))
    if not reasons:
        reasons = [reason for examine in _SETTINGS for reason in examine(profile, machine)]
    for key, wanted in requires.items():
        reasons.extend(REQUIREMENTS.get(key, _unknown_requirement(key))(machine, wanted))
    return tuple(dict.fromkeys(reasons))


def hardware_against(profile: Profile, machine: Machine) -> tuple[Reason, ...]:
    """Reasons that no setting and no installation can remove: it is another machine."""
    return tuple(reason for examine in _HARDWARE for reason in examine(profile, machine))


def version_meets(got: str, wanted: str) -> bool:
    """Whether a version is the release `wanted` names, or at least it where it is written `>=…`."""
    if wanted.startswith(">="):
        return version_key(got) >= version_key(wanted)
    parts = wanted.split(".")
    return got.split(".")[: len(parts)] == parts


def _architecture(profile: Profile, machine: Machine) -> Iterator[Reason]:
    yield from _arch_is(machine, profile.arch)


def _module(profile: Profile, machine: Machine) -> Iterator[Reason]:
    if profile.module is None:
        return
    seen = machine.jetson.module if machine.jetson else None
    if seen not in profile.module.numbers:
        got = seen or ("a module that the device tree does not name" if machine.jetson else "no Jetson")
        yield Reason("module", got, " or ".join(profile.module.numbers), f"run on a {profile.board}")


def _memory(profile: Profile, machine: Machine) -> Iterator[Reason]:
    nominal, seen = profile.memory_bytes, machine.memory_bytes
    if nominal is not None and (seen is None or seen < VISIBLE_SHARE * nominal):
        expected = f"at least {VISIBLE_SHARE * nominal / BYTES_PER_GIB:.1f} GiB"
        got = "an unknown amount" if seen is None else f"{seen / BYTES_PER_GIB:.1f} GiB"
        yield Reason("memory", got, expected, "run on a machine with that much memory")


def _threads(profile: Profile, machine: Machine) -> Iterator[Reason]:
    wanted, usable = profile.threads, machine.cpu.usable_cores
    if wanted is not None and usable < wanted:
        remedy = (
            "give this process more cores (affinity, container quota), or lower cpu_threads in a profile of your own"
        )
        yield Reason("CPU cores", str(usable), f"at least {wanted}", remedy)


def _power_mode(profile: Profile, machine: Machine) -> Iterator[Reason]:
    wanted, jetson = profile.power_mode, machine.jetson
    if wanted is None or (jetson and jetson.power_mode and _same_mode(jetson.power_mode, wanted)):
        return
    got = (jetson.power_mode if jetson else None) or "unknown"
    yield Reason("power mode", got, wanted, _power_mode_remedy(wanted, machine))


def _power_mode_remedy(wanted: str, machine: Machine) -> str:
    modes = machine.jetson.power_modes if machine.jetson else ()
    for number, name in modes:
        if _same_mode(name, wanted):
            return f"run: sudo nvpmodel -m {number}"
    if not modes:
        return "install nvidia-l4t-nvpmodel, whose /etc/nvpmodel.conf names the power modes"
    offered = ", ".join(name for _, name in modes)
    return f"this installation offers {offered} only; flash a JetPack and board configuration with {wanted}"


def _same_mode(first: str, second: str) -> bool:
    return first.removeprefix("MODE_") == second.removeprefix("MODE_")


def _gpu(profile: Profile, machine: Machine) -> Iterator[Reason]:
    if profile.gpu is None or profile.module is not None:  # a module has one GPU
        return
    if machine.gpu is None:
        yield Reason("GPU", "none", profile.gpu.name, "run where NVIDIA's driver sees this GPU (nvidia-smi lists it)")
        return
    if not machine.gpu.name.startswith(profile.gpu.name):
        remedy = "budgets were set for that GPU; write a profile for this one (docs/profiles.md)"
        yield Reason("GPU", machine.gpu.name, profile.gpu.name, remedy)
        return
    yield from _capability_is(machine, profile.gpu.compute_capability)


def _library(profile: Profile, machine: Machine) -> Iterator[Reason]:
    yield from _engine_kind_is(machine, profile.engine_kind)
    seen = machine.libraries.tensorrt or machine.libraries.tensorrt_library
    if profile.tensorrt is not None and seen is not None and seen not in profile.tensorrt:
        releases = ", ".join(f"JetPack {release.jetpack}" for release in profile.tensorrt.by_jetpack)
        remedy = f"install one of {releases}" if releases else "install a TensorRT of that range"
        expected = f"{profile.tensorrt.minimum} or newer, below {profile.tensorrt.below}"
        yield Reason("TensorRT", seen, expected, f"{remedy}, or compile again for this release")


def _engine_kind_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    libraries = machine.libraries
    if wanted == "onnxrt":
        yield from _onnxruntime_is(machine, f">={OLDEST_ONNXRUNTIME}")
    elif wanted == "tensorrt":
        if libraries.tensorrt is None:
            yield _no_tensorrt(machine, "its Python binding")
        if libraries.pycuda is None:
            yield Reason("PyCUDA", "none", "any release", "run: pip install pycuda")
    else:
        yield Reason("engine", "onnxrt and tensorrt", wanted, "install the release of Tollgate that made the package")


def _no_tensorrt(machine: Machine, expected: str) -> Reason:
    if machine.libraries.tensorrt_library is not None:
        got = f"the library {machine.libraries.tensorrt_library} without Python"
        remedy = "make the environment with: python3 -m venv --system-site-packages"
        if machine.jetson and (machine.jetson.l4t or "").startswith("35."):
            remedy = "JetPack 5 has it for Python 3.8 only: install JetPack 6 or newer, or build it for this Python"
        return Reason("TensorRT", got, expected, remedy)
    remedy = "run: sudo apt install nvidia-jetpack" if machine.jetson else "run: pip install 'tollgate[tensorrt]'"
    return Reason("TensorRT", "none", expected, remedy)


def _arch_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    if machine.cpu.arch != wanted:
        yield Reason(
            "CPU architecture", machine.cpu.arch, wanted, f"run on {wanted}, or compile for {machine.cpu.arch}"
        )


def _capability_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    seen = machine.gpu.compute_capability if machine.gpu else None
    if seen != wanted:
        remedy = "an engine fits one GPU generation: compile on this machine, with a profile for it"
        if seen is None:
            remedy = "install NVIDIA's driver with its library libnvidia-ml.so.1, which tells it"
        yield Reason("compute capability", seen or "unknown", wanted, remedy)


def _gpu_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    seen = machine.gpu.name if machine.gpu else None
    if seen != wanted:
        remedy = "a TensorRT engine was timed on one GPU and fits no other: compile again on this machine"
        yield Reason("GPU", seen or "none", wanted, remedy)


def _driver_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    seen = machine.gpu.driver if machine.gpu else None
    if seen is None or not version_meets(seen, wanted):
        yield Reason("NVIDIA driver", seen or "none", _in_words(wanted), "update the driver, or compile again here")


def _onnxruntime_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    seen = machine.libraries.onnxruntime
    if seen is None or not version_meets(seen, wanted):
        specifier = wanted if wanted.startswith(">=") else f"=={wanted}"
        yield Reason("ONNX Runtime", seen or "none", _in_words(wanted), f"run: pip install 'onnxruntime{specifier}'")


def _in_words(wanted: str) -> str:
    return f"{wanted[2:]} or newer" if wanted.startswith(">=") else wanted


def _tensorrt_is(machine: Machine, wanted: str) -> Iterator[Reason]:
    seen = machine.libraries.tensorrt
    if seen is None:
        yield _no_tensorrt(machine, _in_words(wanted))
    elif not version_meets(seen, wanted):
        remedy = "a TensorRT engine opens only in the release that built it: compile again on this machine"
        yield Reason("TensorRT", seen, _in_words(wanted), remedy)


def _cpu_features_are(machine: Machine, wanted: str) -> Iterator[Reason]:
    if missing := [name for name in wanted.split() if name not in machine.cpu.features]:
        got = " ".join(machine.cpu.features) or "none"
        remedy = f"{' '.join(missing)} is missing: compile again on this machine"
        yield Reason("CPU features", got, wanted, remedy)


def _unknown_requirement(key: str) -> Callable[[Machine, str], Iterator[Reason]]:
    def examine(_machine: Machine, wanted: str) -> Iterator[Reason]:
        known = ", ".join(REQUIREMENTS)
        remedy = f"install the release of Tollgate that made the package; this one knows {known}"
        yield Reason(f"requirement {key}", "nothing known about it", wanted, remedy)

    return examine


_HARDWARE: tuple[Callable[[Profile, Machine], Iterator[Reason]], ...] = (_architecture, _module, _gpu)
_SETTINGS: tuple[Callable[[Profile, Machine], Iterator[Reason]], ...] = (
    _memory,
    _threads,
    _power_mode,
    _library,
)

REQUIREMENTS: dict[str, Callable[[Machine, str], Iterator[Reason]]] = {
    "engine_kind": _engine_kind_is,
    "arch": _arch_is,
    "onnxruntime": _onnxruntime_is,
    "tensorrt": _tensorrt_is,
    "compute_capability": _capability_is,
    "gpu": _gpu_is,
    "driver": _driver_is,
    "cpu_features": _cpu_features_are,
}
