"""The hardware profile: for which machine, cameras and deadline an engine is compiled, measured and released.

A profile is a YAML file. Every number in it is a quantity on one line: its value, its unit, and the source it was taken
from or the decision it stands for. `docs/profiles.md` explains the file field by field.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hw_profiles.errors import ProfileError
from hw_profiles.quantity import (
    Cameras,
    Cores,
    Gibibytes,
    GigabytesPerSecond,
    Hertz,
    Lanes,
    Megahertz,
    Milliseconds,
    Pixels,
    Priority,
    Strict,
    Threads,
)
from hw_profiles.yaml_files import Refusal, model_from_yaml, yaml_from_model

BYTES_PER_GIB = 1 << 30
SHIPPED = "profiles"
REFUSAL = Refusal(ProfileError, "docs/profiles.md")

EngineKind = Literal["onnxrt", "tensorrt"]
ProfilePrecision = Literal["fp32", "fp16", "int8"]
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


class CameraSet(Strict):
    """The cameras the machine must serve: how many, how large, how often."""

    number: Cameras
    width: Pixels
    height: Pixels
    rate: Hertz

    @property
    def count(self) -> int:
        """Cameras served at once."""
        return int(self.number.value)

    @property
    def width_px(self) -> int:
        """Columns of a frame."""
        return int(self.width.value)

    @property
    def height_px(self) -> int:
        """Rows of a frame."""
        return int(self.height.value)

    @property
    def rate_hz(self) -> float:
        """Frames a second of each camera."""
        return float(self.rate.value)


class Budget(Strict):
    """How the deadline is shared out over the stages of one frame."""

    preprocess: Milliseconds
    infer: Milliseconds
    postprocess: Milliseconds

    @property
    def preprocess_ms(self) -> float:
        """Colour, resize, normalise, copy in."""
        return float(self.preprocess.value)

    @property
    def infer_ms(self) -> float:
        """The network alone."""
        return float(self.infer.value)

    @property
    def postprocess_ms(self) -> float:
        """Copy out, decode, suppress overlaps."""
        return float(self.postprocess.value)

    @property
    def total_ms(self) -> float:
        """All stages together."""
        return self.preprocess_ms + self.infer_ms + self.postprocess_ms


class ModuleId(Strict):
    """Part numbers by which the device tree names the compute module, such as `p3767-0005`."""

    numbers: tuple[str, ...] = Field(min_length=1, strict=False)
    source: str = Field(min_length=1)


class Gpu(Strict):
    """The GPU as its maker describes it.

    Attributes:
        max_clock: at most, in the power mode of the profile.
        memory: its own memory; absent where it shares the machine's.
    """

    name: str
    compute_capability: Version
    cuda_cores: Cores | None = None
    max_clock: Megahertz | None = None
    memory: Gibibytes | None = None
    source: str = Field(min_length=1)


class PowerMode(Strict):
    """An nvpmodel power mode. Its id differs between modules and is looked up on the machine."""

    name: str
    source: str = Field(min_length=1)


class JetPack(Strict):
    """The versions one JetPack release brings."""

    jetpack: Version
    l4t: Version
    tensorrt: Version
    cuda: Version
    source: str = Field(min_length=1)


class TensorRTRange(Strict):
    """TensorRT versions the profile covers: `minimum` ≤ version < `below`.

    Attributes:
        by_jetpack: on a Jetson, the releases the range is made of; empty elsewhere.
    """

    minimum: Version
    below: Version
    source: str = Field(min_length=1)
    by_jetpack: tuple[JetPack, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _range_holds_its_releases(self) -> TensorRTRange:
        if version_key(self.minimum) >= version_key(self.below):
            raise ValueError(f"got minimum {self.minimum}, expected less than below {self.below}")
        for release in self.by_jetpack:
            if release.tensorrt not in self:
                raise ValueError(
                    f"JetPack {release.jetpack} brings {release.tensorrt}, expected {self.minimum} … below {self.below}"
                )
        return self

    def __contains__(self, version: str) -> bool:
        return version_key(self.minimum) <= version_key(version) < version_key(self.below)


class RuntimeSettings(Strict):
    """How the deadline loop runs on this machine; what is absent has a default that needs no privilege.

    Attributes:
        lanes: engine processes side by side.
        pair_window: frames of several cameras within it belong together; absent: nothing is paired.
        pair_tolerance: sets further apart are counted as skewed.
        hang_after: an engine that takes longer for a frame is killed.
        fifo_priority: SCHED_FIFO for loop and engines.
        cpus: they run on these only; empty leaves the choice to the kernel.
        lock_memory: every page stays in memory.
        ladder: what is given up under overload, in this order.
        collect_garbage: Python's cyclic collector stays on.
        spin: who waits keeps its core busy: engines for work, for their GPU, for their own threads. False: nobody does.
            Absent: engines sleep until there is work, and wait for the rest as their library does by itself.
    """

    lanes: Lanes | None = None
    pair_window: Milliseconds | None = None
    pair_tolerance: Milliseconds | None = None
    hang_after: Milliseconds | None = None
    fifo_priority: Priority | None = None
    cpus: tuple[int, ...] = Field(default=(), strict=False)
    lock_memory: bool = False
    ladder: tuple[Literal["drop_shadow", "halve_rates", "smaller_engines", "cameras_off"], ...] | None = Field(
        default=None, strict=False
    )
    collect_garbage: bool = False
    spin: bool | None = None
    source: str = Field(min_length=1)


class TensorRTBuild(Strict):
    """How plans are built for the machine, where that is more than a precision.

    Attributes:
        runs_on: `gpu`, or the deep learning accelerator that runs what it can and leaves the rest to the GPU.
        opens_on: where a plan opens beside the TensorRT and the GPU it was built with: `newer_tensorrt` makes it carry
            code for the host, `other_gpus` (from Ampere on) costs some of its speed.
        level: how long the builder looks for fast kernels, 0 (seconds) to 5; absent: 3, as TensorRT itself.
    """

    runs_on: Literal["gpu", "dla0", "dla1"] = "gpu"
    opens_on: tuple[Literal["newer_tensorrt", "other_gpus"], ...] = Field(default=(), strict=False)
    level: int | None = Field(default=None, ge=0, le=5)
    source: str = Field(min_length=1)

    @property
    def dla_core(self) -> int | None:
        """Number of the accelerator; None where the GPU runs everything."""
        return None if self.runs_on == "gpu" else int(self.runs_on.removeprefix("dla"))


class Profile(Strict):
    """One machine in one power mode, the cameras it serves and the time it has.

    Attributes:
        board: the machine, in words.
        arch: instruction set as the kernel names it.
        engine_kind: which engine runs there.
        precisions: what the compiler may choose from.
        cpu_threads: threads of the CPU engine; absent: all cores.
        deadline: from the instant a frame was captured until its result can be used.
        memory: memory of the machine; on a Jetson shared by CPU and GPU.
        runtime: how the deadline loop runs there; absent: as anywhere.
    """

    format: Literal["tollgate-profile/1"] = "tollgate-profile/1"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$")
    board: str
    arch: Literal["x86_64", "aarch64"]
    engine_kind: EngineKind
    precisions: tuple[ProfilePrecision, ...] = Field(min_length=1, strict=False)
    cameras: CameraSet
    deadline: Milliseconds
    budget: Budget
    cpu_threads: Threads | None = None
    memory: Gibibytes | None = None
    memory_bandwidth: GigabytesPerSecond | None = None
    module: ModuleId | None = None
    power: PowerMode | None = None
    gpu: Gpu | None = None
    dla: Cores | None = None
    tensorrt: TensorRTRange | None = None
    runtime: RuntimeSettings | None = None
    tensorrt_build: TensorRTBuild | None = None

    @model_validator(mode="after")
    def _contradicts_nothing(self) -> Profile:
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError(f"precisions: got {', '.join(self.precisions)}, expected each once")
        if self.budget.total_ms > self.deadline_ms:
            raise ValueError(
                f"budget: its stages take {self.budget.total_ms:g} ms together, expected at most the deadline of "
                f"{self.deadline_ms:g} ms; shorten a stage or move the deadline"
            )
        if self.engine_kind == "tensorrt" and (self.tensorrt is None or self.gpu is None):
            raise ValueError("engine_kind: got 'tensorrt' without gpu and tensorrt, expected both")
        if self.engine_kind == "onnxrt" and (self.tensorrt is not None or self.tensorrt_build is not None):
            raise ValueError("tensorrt: got it with engine_kind 'onnxrt', expected none")
        core = None if self.tensorrt_build is None else self.tensorrt_build.dla_core
        if core is not None and core >= (self.dla_cores or 0):
            raise ValueError(
                f"tensorrt_build.runs_on: got dla{core}, expected one of the {self.dla_cores or 0} cores of dla"
            )
        return self

    @property
    def deadline_ms(self) -> float:
        """Captured → usable result, in milliseconds."""
        return float(self.deadline.value)

    @property
    def threads(self) -> int | None:
        """Threads of the CPU engine; None means all cores this process may use."""
        return None if self.cpu_threads is None else int(self.cpu_threads.value)

    @property
    def memory_bytes(self) -> int | None:
        """Nominal memory; the kernel reports somewhat less."""
        return None if self.memory is None else int(self.memory.value * BYTES_PER_GIB)

    @property
    def power_mode(self) -> str | None:
        """Name of the nvpmodel mode, where the machine has one."""
        return None if self.power is None else self.power.name

    @property
    def compute_capability(self) -> str | None:
        """CUDA compute capability of the GPU, such as "8.7"."""
        return None if self.gpu is None else self.gpu.compute_capability

    @property
    def dla_cores(self) -> int | None:
        """Deep learning accelerators; None where the profile does not say."""
        return None if self.dla is None else int(self.dla.value)

    @classmethod
    def from_yaml(cls, text: str, *, where: str) -> Profile:
        """Read a profile.

        Args:
            text: the YAML document.
            where: what to call it in a message.

        Raises:
            ProfileError: no YAML, unknown or missing field, wrong unit, or stages that exceed the deadline.
        """
        return model_from_yaml(cls, text, where=where, refusal=REFUSAL)

    def to_yaml(self) -> str:
        """The YAML document; reading it gives an equal profile."""
        return yaml_from_model(self)


def version_key(version: str) -> tuple[int, ...]:
    """Numbers of a dotted version for comparing, trailing zeros dropped: 10.3 equals 10.3.0."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def profile_names() -> tuple[str, ...]:
    """Names of the profiles this project ships, sorted."""
    folder = files("hw_profiles") / SHIPPED
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_profile(name_or_path: str | Path) -> Profile:
    """A shipped profile by name, or one's own by the path of its YAML file.

    Raises:
        ProfileError: unknown name, unreadable file, or a file that is no profile.
    """
    wanted = str(name_or_path)
    if wanted in profile_names():
        text = (files("hw_profiles") / SHIPPED / f"{wanted}.yaml").read_text(encoding="utf-8")
        return Profile.from_yaml(text, where=f"profile {wanted}")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise ProfileError(
            f"profile {wanted!r} is not known; expected one of {', '.join(profile_names())}, "
            "or the path of a .yaml file (docs/profiles.md)"
        )
    return Profile.from_yaml(_text_of(path), where=wanted)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(
            f"{path}: cannot be read ({error.strerror}); "
            f"expected a profile in YAML or one of {', '.join(profile_names())}"
        ) from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: byte {error.start} is no UTF-8; expected a profile in YAML") from error
