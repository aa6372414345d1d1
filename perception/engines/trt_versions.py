"""What differs between the TensorRT releases this project builds and runs on: 8.5 to 11. Imports no TensorRT.

Name-based inputs and outputs (`set_tensor_address`, `execute_async_v3`) and pool limits exist in all of them. The rest
is decided here, once, from the version string; names are compared with the bindings
published for 8.6, 10.3, 10.16 and 11.4 by `tests/compile/backends/test_bindings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from hw_profiles.profile import version_key
from perception.errors import EngineError

OLDEST, BELOW = "8.5", "12"

Form = Literal["as_it_is", "float_weights", "half_types"]
FORMS: tuple[Form, ...] = ("as_it_is", "float_weights", "half_types")
"""How a network is written: with integer weights, with float ones behind a QuantizeLinear, with FP16 in its types."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How one TensorRT release wants to be talked to.

    Attributes:
        version: as TensorRT says it.
        precision: `flag` where the builder is allowed FP16 and INT8 by a flag; `typed` where the ONNX file alone says
            what each tensor is (strongly typed networks).
        network_flags: names in `NetworkDefinitionCreationFlag` that a network is created with.
        reports_progress: `IProgressMonitor` exists.
        version_compatible: plans can be built for newer releases too.
        integer_weights: weights may be stored as the integers that a DequantizeLinear reads.
        builder_levels: the builder can be told how long to look; before, it has one level.
        hardware_compatible: plans can be built for other GPUs too.
    """

    version: str
    precision: Literal["flag", "typed"]
    network_flags: tuple[str, ...]
    reports_progress: bool
    version_compatible: bool
    integer_weights: bool
    builder_levels: bool
    hardware_compatible: bool

    def builder_flags(self, *, half: bool, quantized: bool) -> tuple[str, ...]:
        """Names in `BuilderFlag` that allow the precisions of a network; none where the file says it all."""
        if self.precision == "typed":
            return ()
        return (*(("FP16",) if half else ()), *(("INT8",) if quantized else ()))

    def form(self, *, half: bool) -> Form:
        """How a network must be written that may compute in FP16, or not."""
        if not self.integer_weights:
            return "float_weights"
        return "half_types" if half and self.precision == "typed" else "as_it_is"


def installed() -> Traits:
    """The traits of the TensorRT on this machine.

    Raises:
        EngineError: none, or a release this project does not know.
    """
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings"):
        try:
            return traits_of(version(name))
        except PackageNotFoundError:
            continue
    raise EngineError("TensorRT is not installed; on a Jetson it comes with JetPack: sudo apt install nvidia-jetpack")


def traits_of(tensorrt_version: str) -> Traits:
    """The traits of a release.

    Args:
        tensorrt_version: such as `8.6.0` or `10.16.1.11`.

    Raises:
        EngineError: a release this project does not know.
    """
    key = version_key(tensorrt_version)
    if not version_key(OLDEST) <= key < version_key(BELOW):
        raise EngineError(
            f"TensorRT {tensorrt_version}: expected {OLDEST} or newer, below {BELOW}; install one of those releases"
        )
    typed = key >= (11,)
    return Traits(
        version=tensorrt_version,
        precision="typed" if typed else "flag",
        network_flags=("STRONGLY_TYPED",) if typed else ("EXPLICIT_BATCH",) if key < (10,) else (),
        reports_progress=key >= (10,),
        version_compatible=key >= (8, 6),
        integer_weights=key >= (10,),
        builder_levels=key >= (8, 6),
        hardware_compatible=key >= (8, 6),
    )
