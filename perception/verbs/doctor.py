"""Say what this machine is, which hardware profiles it satisfies, and what stands against the others.

A package is compiled, measured and released for one profile: a board in a power mode, its cameras and their deadline.
Doctor reads files only (/proc, /sys, device tree, package lists): it needs no GPU, no root and no inference library.
Every reason against a profile comes with what to do about it.

  tollgate doctor                              this machine and all shipped profiles
  tollgate doctor --profile x86_cpu            exit code 0: satisfied, 1: not
  tollgate doctor --profile my_robot.yaml      the same for a profile of your own (docs/profiles.md)
  tollgate doctor --json                       everything as one JSON document
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from hw_profiles.machine import CPU_FEATURES, INT8_FEATURES, THIS_MACHINE, Machine, read_machine
from hw_profiles.preflight import Reason, hardware_against, reasons_against
from hw_profiles.profile import BYTES_PER_GIB, Profile, load_profile, profile_names
from hw_profiles.telemetry import Telemetry, sample
from perception.terminal import Terminal

SATISFIED, NOT_SATISFIED = 0, 1
ENGINES = {"onnxrt": "ONNX Runtime", "tensorrt": "TensorRT"}

Findings = Mapping[str, tuple[Reason, ...]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="judge this machine against one profile: a shipped name or a .yaml file; exit code 1 when not satisfied",
    )
    parser.add_argument("--root", type=Path, default=THIS_MACHINE, help=argparse.SUPPRESS)  # a recorded machine


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    machine, now = read_machine(arguments.root), sample(arguments.root)
    profiles = _nearest_first(profile_names() if arguments.profile is None else (arguments.profile,), machine)
    findings = {profile.name: reasons_against(profile, machine) for profile in profiles}
    _show_machine(machine, now, terminal)
    if arguments.profile is not None:
        _show_demands(profiles[0], terminal)
    _show_findings(findings, terminal)
    terminal.result(_document(machine, now, findings))
    refused = arguments.profile is not None and any(findings.values())
    return NOT_SATISFIED if refused else SATISFIED


def _nearest_first(names: Iterable[str], machine: Machine) -> list[Profile]:
    """Satisfied profiles, then those that want a setting or an installation, then those of other hardware."""

    def distance(profile: Profile) -> tuple[bool, bool]:
        return bool(hardware_against(profile, machine)), bool(reasons_against(profile, machine))

    return sorted(map(load_profile, names), key=distance)


def _show_machine(machine: Machine, now: Telemetry, terminal: Terminal) -> None:
    rows = {
        "module": _module(machine),
        "CPU": _cpu(machine),
        "INT8 on CPU": _int8(machine),
        "CPU clock": _clock(machine),
        "memory": _memory(machine, now),
        "GPU": _gpu(machine),
        "power mode": _power_mode(machine),
        "libraries": _libraries(machine),
        "now": _now(now),
    }
    shown = [(name, escape(text)) for name, text in rows.items() if text]
    terminal.table("", ("This machine", escape(machine.board)), shown)


def _show_demands(profile: Profile, terminal: Terminal) -> None:
    cameras, budget = profile.cameras, profile.budget
    rows = [
        ("engine", f"{ENGINES[profile.engine_kind]}, {' or '.join(profile.precisions)}"),
        ("cameras", f"{cameras.count} of {cameras.width_px}×{cameras.height_px} at {cameras.rate_hz:g} Hz"),
        ("deadline", f"{profile.deadline_ms:g} ms from capture to result"),
        ("budget", f"{budget.preprocess_ms:g} + {budget.infer_ms:g} + {budget.postprocess_ms:g} ms"),
    ]
    rows += [("power mode", profile.power_mode)] if profile.power_mode else []
    terminal.say("")
    terminal.table("", (f"Profile {profile.name}", escape(profile.board)), rows)


def _show_findings(findings: Findings, terminal: Terminal) -> None:
    rows = []
    for name, reasons in findings.items():
        if not reasons:
            rows.append((f"[green]✓ {name}[/]", "nothing"))
        for number, reason in enumerate(reasons):
            against = escape(f"{reason.what}: {reason.got}, needs {reason.expected}")
            rows.append((f"[red]✗[/] {name}" if number == 0 else "", f"{against} [dim]→ {escape(reason.remedy)}[/]"))
    terminal.say("")
    terminal.table("", ("Profile", "what stands against it [dim]→ what to do[/]"), rows)


def _module(machine: Machine) -> str:
    jetson = machine.jetson
    if jetson is None:
        return ""
    software = f"JetPack {jetson.jetpack or 'unknown'}, Jetson Linux {jetson.l4t or 'unknown'}"
    return f"{jetson.module or 'unknown'}, {jetson.chip}, {software}"


def _cpu(machine: Machine) -> str:
    cpu = machine.cpu
    cores = f"{cpu.usable_cores} of {cpu.cores_present}" if cpu.usable_cores < cpu.cores_present else str(cpu.cores)
    return f"{cpu.model}, {cpu.arch}, {cores} cores"


def _int8(machine: Machine) -> str:
    words = [CPU_FEATURES[name] for name in machine.cpu.features if name in INT8_FEATURES]
    if words:
        return ", ".join(words)
    return "no instruction for it: INT8 is seldom faster here, and on x86 it may saturate"


def _clock(machine: Machine) -> str:
    cpu = machine.cpu
    if cpu.clock_mhz is None:
        return ""
    most = f" of {cpu.max_clock_mhz:.0f}" if cpu.max_clock_mhz else ""
    governor = f", governor {cpu.governor}" if cpu.governor else ""
    return f"{cpu.clock_mhz:.0f}{most} MHz{governor}"


def _memory(machine: Machine, now: Telemetry) -> str:
    if machine.memory_bytes is None:
        return "unknown"
    free = f", {now.available_bytes / BYTES_PER_GIB:.1f} GiB of it free" if now.available_bytes else ""
    return f"{machine.memory_bytes / BYTES_PER_GIB:.1f} GiB{free}"


def _gpu(machine: Machine) -> str:
    gpu = machine.gpu
    if gpu is None:
        return "none found"
    words = [gpu.name, f"compute capability {gpu.compute_capability or 'unknown'}"]
    words += [f"{gpu.memory_bytes / BYTES_PER_GIB:.1f} GiB"] if gpu.memory_bytes else []
    words += [f"at most {gpu.max_clock_mhz:.0f} MHz"] if gpu.max_clock_mhz else []
    words += [f"driver {gpu.driver}"] if gpu.driver else []
    return ", ".join(words)


def _power_mode(machine: Machine) -> str:
    if machine.jetson is None:
        return ""
    others = ", ".join(name for _, name in machine.jetson.power_modes if name != machine.jetson.power_mode)
    return f"{machine.jetson.power_mode or 'unknown'}" + (f" (others: {others})" if others else "")


def _libraries(machine: Machine) -> str:
    libraries = machine.libraries
    found = {
        "ONNX Runtime": libraries.onnxruntime,
        "TensorRT": libraries.tensorrt,
        "TensorRT library": libraries.tensorrt_library if libraries.tensorrt is None else None,
        "PyCUDA": libraries.pycuda,
    }
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or "no inference library"


def _now(now: Telemetry) -> str:
    words = [f"{now.temperature_c:.0f} °C"] if now.temperature_c else []
    words += [f"GPU {now.gpu_temperature_c:.0f} °C"] if now.gpu_temperature_c else []
    words += [f"{now.power_w:.1f} W"] if now.power_w else []
    words += [f"slowed down {now.throttle_events} times since boot"] if now.throttle_events else []
    return ", ".join(words)


def _document(machine: Machine, now: Telemetry, findings: Findings) -> dict[str, object]:
    return {
        "machine": machine.document(),
        "now": asdict(now),
        "profiles": {
            name: {"satisfied": not reasons, "reasons": [asdict(reason) for reason in reasons]}
            for name, reasons in findings.items()
        },
    }
