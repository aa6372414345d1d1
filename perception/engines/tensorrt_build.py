"""What TensorRT's builder is given: one network in the form a release reads, and settings it has. Imports no TensorRT.

The compiler and the vehicle build by the same settings in the same process (`perception.engines.tensorrt_worker`). A
vehicle cannot rewrite networks, so a package for TensorRT carries its network in every form, and this file,
`tensorrt_build.json`::

    options    how the compiler built
    quantized  the network has QuantizeLinear
    sparse     a layer has two zeros in every four weights
    networks   form → file
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.engines.tensorrt_process import BuildEvents, plain, work
from perception.engines.trt_versions import Form, Traits, installed
from perception.errors import EngineError, PackageError
from perception.files import json_bytes

ENGINE_FILE, NETWORK_FILE, BUILD_FILE = "engine.plan", "model.onnx", "tensorrt_build.json"
CHOSEN_BY_A_RELEASE = ("level", "workspace_bytes")
_GIB = 1 << 30

Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    Attributes:
        half: allow FP16 for whatever is not quantized.
        level: builder optimization level, 0 (fast build) to 5 (fast engine).
        workspace_bytes: memory the builder may use for a layer's scratch space.
        version_compatible: the plan also opens with newer TensorRT releases; it then carries code for the host.
        hardware_compatible: the plan also opens on other GPUs from Ampere on, for some of its speed.
        dla_core: run what the deep learning accelerator of that number can on it, the rest on the GPU; None: all on
            the GPU.
        tf32: let float32 matrix products round to 19 bits; off, float32 means float32.
    """

    half: bool = False
    level: int = 3
    workspace_bytes: int = 4 * _GIB
    version_compatible: bool = False
    hardware_compatible: bool = False
    dla_core: int | None = None
    tf32: bool = False

    def settings(self, traits: Traits, *, quantized: bool, sparse: bool) -> dict[str, object]:
        """What the builder's process is told: the same for one release wherever it is built.

        Raises:
            EngineError: an option this release does not have.
        """
        for name in ("version_compatible", "hardware_compatible"):
            if getattr(self, name) and not getattr(traits, name):
                raise EngineError(f"{name}: TensorRT {traits.version} cannot, expected 8.6 or newer; leave it out")
        if self.dla_core is not None and not (self.half or quantized):
            raise EngineError("dla_core: a DLA computes in FP16 and INT8, got float32 alone; allow FP16 or quantize")
        wanted = {"VERSION_COMPATIBLE": self.version_compatible, "SPARSE_WEIGHTS": sparse}
        flags = traits.builder_flags(half=self.half, quantized=quantized)
        return {
            "flags": [*flags, *(flag for flag, is_wanted in wanted.items() if is_wanted)],
            "level": self.level if traits.builder_levels else None,
            "hardware_compatible": self.hardware_compatible,
            "dla_core": self.dla_core,
            "workspace_bytes": self.workspace_bytes,
            "tf32": self.tf32,
        }


class Rebuild(BaseModel):
    """`tensorrt_build.json`; for the fields see this module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-tensorrt-build/1"] = "tollgate-tensorrt-build/1"
    options: BuildOptions
    quantized: bool
    sparse: bool
    networks: dict[Form, str]

    def content(self) -> bytes:
        """The file's."""
        return json_bytes({**self.model_dump(mode="json"), "options": asdict(self.options)})

    @classmethod
    def of(cls, content: bytes) -> Rebuild:
        """Read the file.

        Raises:
            PackageError: it is none.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise PackageError(f"{BUILD_FILE}: {complaints_of(error)}; compile the package again") from error

    def network_for(self, traits: Traits) -> str:
        """The file that a release builds from.

        Raises:
            EngineError: the network could not be written in the form it reads.
        """
        form = traits.form(half=self.options.half)
        if form not in self.networks:
            raise EngineError(
                f"{BUILD_FILE}: has no network in the form {form}, which TensorRT {traits.version} reads, but "
                f"{', '.join(self.networks)}; compile the package on a machine with that release"
            )
        return self.networks[form]

    def chosen(self, wanted: Mapping[str, Any]) -> Rebuild:
        """With what a release asks for on its own.

        Raises:
            EngineError: it asks for what is none of its business, or for what is no number.
        """
        known = {field.name for field in fields(BuildOptions)} & set(CHOSEN_BY_A_RELEASE)
        if unknown := [name for name in wanted if name not in known or type(wanted[name]) is not int]:
            raise EngineError(
                f"on-device build option {unknown[0]}={wanted[unknown[0]]!r}: expected whole numbers for "
                f"{' and '.join(CHOSEN_BY_A_RELEASE)} only; publish the release again with other --build-options"
            )
        return self.model_copy(update={"options": replace(self.options, **wanted)})


def write_inputs(folder: Path, network: bytes, settings: Mapping[str, object]) -> None:
    """Lay out what the builder's process reads."""
    (folder / NETWORK_FILE).write_bytes(network)
    (folder / "options.json").write_bytes(json_bytes(dict(settings)))


def build_here(
    read: Callable[[str], bytes], folder: Path, wanted: Mapping[str, Any], *, told: Said = lambda _words: None
) -> bytes:
    """Build the plan of a package on this machine, with the TensorRT it has.

    Args:
        read: a file of the package by its name, verified.
        folder: to work in; timings of kernels stay there.
        wanted: builder level and workspace, where the release says so.
        told: each step of the builder.

    Raises:
        EngineError: no TensorRT, no network it reads, or the builder gives none.
        PackageError: the package was not compiled for TensorRT.
    """
    traits = installed()
    rebuild = Rebuild.of(read(BUILD_FILE)).chosen(wanted)
    settings = rebuild.options.settings(traits, quantized=rebuild.quantized, sparse=rebuild.sparse)
    write_inputs(folder, read(rebuild.network_for(traits)), settings)
    status, events = work(folder, "build", told)
    plan = folder / ENGINE_FILE
    if status or not plan.is_file():
        found = BuildEvents.of(events)
        words = [*(str(each["message"]) for each in found.refused), *found.errors, *found.failed, "it said nothing"]
        raise EngineError(f"TensorRT builds no engine on this device (exit status {status}): {plain(words[0])}")
    return plan.read_bytes()
