"""The protocol every decoder follows, and the questions all of them ask of a spec and of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.engines.engine import TensorInfo, Tensors
from perception.errors import EngineError, SpecError
from perception.geometry import Geometry, SizePx
from perception.model_spec import Decoding
from perception.results import Result

Option: TypeAlias = float | int | str | bool
Values = TypeVar("Values", bound=NDArray[np.generic])


class Decoder(Protocol):
    """Reads one network's outputs. Opened for one ModelSpec; one thread at a time."""

    def __call__(self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float) -> Result:
        """Turn the outputs of one inference into a result.

        Args:
            tensors: every output by name; only read, and only during the call.
            geometry: where the source picture lay inside the network's picture.
            source_size_px: width and height of the source picture.
            score_threshold: detections below it are not reported.

        Returns:
            A result that shares no memory with the tensors.

        Raises:
            EngineError: an output holds NaN or infinity; the tensor is named.
            SpecError: what only shows at run time, a shape or a class, does not fit the spec.
        """


class Outputs:
    """The tensors a decoder reads, by role."""

    def __init__(self, decoding: Decoding, outputs: Mapping[str, TensorInfo], *roles: tuple[str, ...]) -> None:
        """Bind roles to tensors; `roles` are the sets of roles the decoder can read.

        Raises:
            SpecError: the spec gives other roles than the decoder reads, or names an output that is not there.
        """
        if set(decoding.tensors) not in [set(readable) for readable in roles]:
            expected = " or ".join(", ".join(sorted(readable)) for readable in roles)
            raise SpecError(
                f"decoder {decoding.decoder}: got the roles {', '.join(sorted(decoding.tensors)) or 'none'}, "
                f"expected {expected}; correct decoding.tensors (docs/model_spec.md)"
            )
        if absent := sorted(set(decoding.tensors.values()) - set(outputs)):
            raise SpecError(
                f"decoder {decoding.decoder}: no output {', '.join(absent)}, "
                f"the model has {', '.join(outputs)}; correct decoding.tensors"
            )
        self.infos = {role: outputs[name] for role, name in decoding.tensors.items()}
        self._decoder = decoding.decoder

    def require_shape(self, role: str, *expected: tuple[int, ...]) -> None:
        """Refuse a tensor that can have none of the expected shapes; -1 stands for any length on either side.

        Raises:
            SpecError: none fits.
        """
        info = self.infos[role]
        if not any(can_be(info.shape, shape) for shape in expected):
            raise self._wrong_shape(info, info.shape, expected)

    def read(self, role: str, tensors: Tensors, *expected: tuple[int, ...]) -> NDArray[np.generic]:
        """The tensor of a role as it came, once its shape fits and every value is finite.

        Raises:
            SpecError: a shape that was unknown at opening does not fit.
            EngineError: NaN or infinity.
        """
        info = self.infos[role]
        tensor = tensors[info.name]
        if tensor.shape not in expected and not any(can_be(tensor.shape, shape) for shape in expected):
            raise self._wrong_shape(info, tensor.shape, expected)
        return finite(tensor, info.name)

    def read_floats(self, role: str, tensors: Tensors, *expected: tuple[int, ...]) -> NDArray[np.float32]:
        """The same as float32; a copy is only made of another type."""
        return self.read(role, tensors, *expected).astype(np.float32, copy=False)

    def _wrong_shape(self, info: TensorInfo, got: tuple[int, ...], expected: tuple[tuple[int, ...], ...]) -> SpecError:
        shapes = " or ".join(str(list(shape)).replace("-1", "N") for shape in expected)
        return SpecError(
            f"decoder {self._decoder}: output {info.name} has shape {list(got)}, expected {shapes}; "
            "correct classes, strides_px, the picture's size or the decoder"
        )


def options_of(decoding: Decoding, defaults: Mapping[str, Option]) -> dict[str, Option]:
    """The decoder's options with their defaults filled in.

    Raises:
        SpecError: an option the decoder does not have, or of another type than its default.
    """
    for name, value in decoding.options.items():
        if name not in defaults:
            known = f"it has {', '.join(sorted(defaults))}" if defaults else "it has none"
            raise SpecError(f"decoder {decoding.decoder}: no option {name!r}, {known}; correct decoding.options")
        if type(value) is not type(defaults[name]):
            raise SpecError(
                f"decoder {decoding.decoder}: option {name} got {value!r}, "
                f"expected a {type(defaults[name]).__name__} such as {defaults[name]!r}; correct decoding.options"
            )
    return {**defaults, **decoding.options}


def require_choice(decoding: Decoding, name: str, value: Option, choices: tuple[str, ...]) -> None:
    """Refuse an option whose value is none of its choices.

    Raises:
        SpecError: it is none of them.
    """
    if value not in choices:
        raise SpecError(
            f"decoder {decoding.decoder}: option {name} got {value!r}, expected one of {', '.join(choices)}; "
            "correct decoding.options"
        )


def finite(values: Values, name: str) -> Values:
    """`values`, once none of them is NaN or infinite.

    Raises:
        EngineError: one is; the sentence names the tensor.
    """
    if not np.isfinite(values).all():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise EngineError(
            f"output {name}: {bad} of {values.size} values are NaN or infinite, or become so when decoded; "
            "no result is given for this frame: check the model's precision and its input"
        )
    return values


def known_classes(labels: NDArray[np.generic], class_count: int, name: str) -> NDArray[np.intp]:
    """Labels as class indices.

    Raises:
        SpecError: a label is no whole number in 0 … class_count - 1; the sentence names the tensor.
    """
    class_ids = labels.astype(np.intp)
    wrong = (class_ids != labels) | (class_ids < 0) | (class_ids >= class_count)
    if wrong.any():
        raise SpecError(
            f"output {name}: class {labels[wrong][0]} came out, the spec names {class_count} classes, "
            f"0 to {class_count - 1}; correct classes"
        )
    return class_ids


def can_be(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a tensor of `shape` can have the `expected` one; -1 stands for any length on either side."""
    return len(shape) == len(expected) and all(
        -1 in (got, wanted) or got == wanted for got, wanted in zip(shape, expected, strict=True)
    )
