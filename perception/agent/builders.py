"""Engines made on the vehicle from a portable model, for machines whose engines fit one device only.

What a builder makes was gated nowhere: it runs only after the smoke run measured it on this very device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from hw_profiles.machine import Machine, read_machine
from perception.agent.index import OnDeviceBuild
from perception.engines.tensorrt_build import ENGINE_FILE, build_here
from perception.errors import EngineError
from perception.files import cannot_write
from perception.package import EngineEntry, EnginePackage, write_package
from perception.pipeline import threads_of

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Builder:
    """One kind of engine that can be made here.

    Attributes:
        file: name of the engine's file.
        build: the released package, options, a folder to work in → engine bytes.
        requires: what must stay as it is for the engine to open again.
    """

    file: str
    build: Callable[[EnginePackage, Options, Path], bytes]
    requires: Callable[[Machine], dict[str, str]]


def build_on_device(released: EnginePackage, wanted: OnDeviceBuild, folder: Path, *, work: Path) -> EnginePackage:
    """Make the package that this vehicle runs from the one that was released.

    Args:
        released: verified; its engine is the portable model, or the networks for TensorRT lie beside it.
        wanted: which builder, with which options.
        folder: the new package.
        work: a folder for what lies about meanwhile.

    Raises:
        EngineError: unknown builder, missing library, or the builder fails.
        PackageError: the package does not carry what the builder needs.
        OutputError: the disk is full.
    """
    if wanted.kind not in BUILDERS:
        raise EngineError(f"on-device build {wanted.kind!r} is unknown, expected one of {', '.join(BUILDERS)}")
    builder = BUILDERS[wanted.kind]
    try:
        work.mkdir(exist_ok=True)
        engine = builder.build(released, wanted.options, work)
    except OSError as error:
        raise cannot_write(work, error) from error
    kept = {
        name: (released.folder / name).read_bytes()
        for name in released.manifest.files
        if name != released.manifest.engine.file
    }
    machine = read_machine()
    entry = EngineEntry(
        kind=wanted.kind,
        file=builder.file,
        precision=released.manifest.engine.precision,
        requires=builder.requires(machine),
    )
    build: dict[str, JsonValue] = {
        "built_on": machine.board,
        "from_package_sha256": released.sha256,
        "options": dict(wanted.options),
    }
    return write_package(folder, {**kept, builder.file: engine}, name=released.manifest.name, engine=entry, build=build)


def _onnxrt(released: EnginePackage, options: Options, work: Path) -> bytes:
    """ONNX Runtime's own optimizations for the CPU it runs on, written out once."""
    from perception.engines.onnxrt import optimised_for_this_cpu

    threads = threads_of(released.profile)
    return optimised_for_this_cpu(released.engine_bytes, work / "optimised.onnx", threads=threads)


def _tensorrt(released: EnginePackage, options: Options, work: Path) -> bytes:
    """TensorRT's builder, in a process of its own: an assertion of it ends the process it happens in."""
    return build_here(released.content, work, options)


def _requires_onnxrt(machine: Machine) -> dict[str, str]:
    return {"onnxruntime": machine.libraries.onnxruntime or "unknown", "cpu_features": " ".join(machine.cpu.features)}


def _requires_tensorrt(machine: Machine) -> dict[str, str]:
    capability = machine.gpu.compute_capability if machine.gpu else None
    return {"tensorrt": machine.libraries.tensorrt or "unknown", "compute_capability": capability or "unknown"}


BUILDERS: dict[str, Builder] = {
    "onnxrt": Builder("engine.onnx", _onnxrt, _requires_onnxrt),
    "tensorrt": Builder(ENGINE_FILE, _tensorrt, _requires_tensorrt),
}
