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
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from hw_profiles.machine import CPU_FEATURES, INT8_FEATURES, THIS_MACHINE, Machine, read_machine
from hw_profiles.preflight import Reason, reasons_against
from hw_profiles.profile import BYTES_PER_GIB, Profile, load_profile, profile_names
from hw_profiles.telemetry import Telemetry, sample
from perception.terminal import Terminal

SATISFIED, NOT_SATISFIED = 0, 1
ENGINES = {"onnxrt": "ONNX Runtime", "tensorrt": "TensorRT"}

Findings = Mapping[Profile, tuple[Reason, ...]]


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
    names = profile_names() if arguments.profile is None else (arguments.profile,)
    machine, now = read_machine(arguments.root), sample(arguments.root)
    findings = {profile: reasons_against(profile, machine) for profile in map(load_profile, names)}
    _show_machine(machine, now, terminal)
    _show_profiles(findings, terminal)
    _show_reasons(findings, terminal)
    terminal.result(_document(machine, now, findings))
    refused = arguments.profile is not None and any(findings.values())
    return NOT_SATISFIED if refused else SATISFIED


def _show_machine(machine: Machine, now: Telemetry, terminal: Terminal) -> None:
    rows = {
        "board": _board(machine),
        "CPU": _cpu(machine),
        "INT8 on CPU": _int8(machine),
        "CPU clock": _clock(machine),
        "memory": _memory(machine, now),
        "GPU": _gpu(machine),
        "power mode": _power_mode(machine),
        "libraries": _libraries(machine),
        "now": _now(now),
    }
    shown = [(f"[dim]{name}[/]", escape(text)) for name, text in rows.items() if text]
    terminal.table("This machine", ("", ""), shown)


def _show_profiles(findings: Findings, terminal: Terminal) -> None:
    rows = [(_verdict(reasons), profile.name, *_demands(profile)) for profile, reasons in findings.items()]
    header = ("", "profile", "engine", "cameras", "deadline", "built for")
    terminal.table("\nProfiles", header, sorted(rows, key=lambda row: "✗" in row[0]))


def _show_reasons(findings: Findings, terminal: Terminal) -> None:
    for profile, reasons in findings.items():
        if reasons:
            rows = [tuple(escape(text) for text in asdict(reason).values()) for reason in reasons]
            terminal.table(f"\nAgainst {profile.name}", ("what", "found", "expected", "what to do"), rows)


def _verdict(reasons: tuple[Reason, ...]) -> str:
    if not reasons:
        return "[green]✓ satisfied[/]"
    return f"[red]✗[/] {len(reasons)} reason{'s' if len(reasons) > 1 else ''}"


def _demands(profile: Profile) -> tuple[str, str, str, str]:
    cameras = profile.cameras
    picture = f"{cameras.count} × {cameras.width_px}×{cameras.height_px}, {cameras.rate_hz:g} Hz"
    return ENGINES[profile.engine_kind], picture, f"{profile.deadline_ms:g} ms", escape(profile.board)


def _board(machine: Machine) -> str:
    jetson = machine.jetson
    if jetson is None:
        return machine.board
    software = f"JetPack {jetson.jetpack}" if jetson.jetpack else "JetPack unknown"
    return f"{machine.board}, module {jetson.module or 'unknown'}, {software} (Jetson Linux {jetson.l4t or 'unknown'})"


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
            profile.name: {"satisfied": not reasons, "reasons": [asdict(reason) for reason in reasons]}
            for profile, reasons in findings.items()
        },
    }
