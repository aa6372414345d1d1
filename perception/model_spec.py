"""How a trained model wants its pixels and how its outputs read: YAML beside the ONNX file.

A model is fed exactly as its authors fed it, or it silently loses accuracy: colour order, range, resizing rule,
padding and interpolation are all part of the model. `tollgate inspect` writes a draft of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.engines.engine import TensorInfo
from perception.errors import SpecError
from perception.files import write_atomically

REFUSAL = Refusal(SpecError, "docs/model_spec.md")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PictureInput(_Strict):
    """The input tensor that receives the picture.

    A pixel `p` in 0..255 becomes `(p * scale - mean) / std`, channel by channel in the order of `colour`.
    """

    tensor: str
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    width_px: int = Field(gt=0)
    height_px: int = Field(gt=0)
    colour: Literal["BGR", "RGB"] = "BGR"
    scale: float = Field(default=1.0, gt=0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1, 1, 1)
    resize: Literal["letterbox_top_left", "letterbox_centre", "stretch"] = "stretch"
    pad_value: int = Field(default=0, ge=0, le=255)
    interpolation: Literal["linear", "area", "nearest", "cubic"] = "linear"

    @model_validator(mode="after")
    def _bytes_are_fed_as_they_are(self) -> PictureInput:
        if self.dtype == "uint8" and (self.scale, self.mean, self.std) != (1, (0, 0, 0), (1, 1, 1)):
            raise ValueError("dtype uint8 is fed pixels as they are, expected scale 1, mean 0, std 1")
        return self

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the tensor, batch 1."""
        if self.layout == "NCHW":
            return (1, 3, self.height_px, self.width_px)
        return (1, self.height_px, self.width_px, 3)


class SizeInput(_Strict):
    """A second input that tells the network a picture size, as RT-DETR and its kin ask for.

    It is always fed the network's own input size, so that boxes come back in network pixels and one geometry serves
    all models.
    """

    tensor: str
    order: Literal["width_height", "height_width"] = "width_height"
    dtype: Literal["int64", "int32", "float32"] = "int64"


class Decoding(_Strict):
    """How the output tensors become a result.

    Attributes:
        decoder: name in `perception.decode.DECODERS`.
        tensors: role → tensor name; which roles exist is said by the decoder.
        strides_px: network pixels per grid cell, level by level, for grid decoders.
        options: further settings of the decoder, by name.
        score_threshold: detections below it are not reported.
        nms_iou: overlap above which the weaker of two boxes goes; None where the network leaves no duplicates.
        nms_across_classes: one class may suppress another.
        max_detections: at most so many in one frame, best first.
    """

    decoder: str
    tensors: dict[str, str]
    strides_px: tuple[int, ...] = ()
    options: dict[str, float | int | str | bool] = Field(default_factory=dict)
    score_threshold: float = Field(default=0.3, ge=0, le=1)
    nms_iou: float | None = Field(default=None, gt=0, le=1)
    nms_across_classes: bool = False
    max_detections: int = Field(default=300, gt=0)


class ModelSpec(_Strict):
    """Everything about a model that its ONNX file does not say."""

    format: Literal["tollgate-model/1"] = "tollgate-model/1"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    task: Literal["detection", "segmentation"]
    licence: str = "unknown"
    source: str = "unknown"
    picture: PictureInput
    size_input: SizeInput | None = None
    decoding: Decoding
    classes: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> ModelSpec:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: the same name stands twice")
        return self

    @classmethod
    def load(cls, path: Path) -> ModelSpec:
        """Read a spec.

        Raises:
            SpecError: the file is missing, no YAML, or has missing, unknown or impossible fields.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(
                f"{path}: no readable ModelSpec ({error}); draft one with: tollgate inspect MODEL.onnx"
            ) from error
        return cls.from_yaml(content, where=str(path))

    @classmethod
    def from_yaml(cls, content: str, *, where: str) -> ModelSpec:
        """Parse YAML; `where` names it in errors.

        Raises:
            SpecError: no YAML mapping, or missing, unknown or impossible fields.
        """
        return model_from_yaml(cls, content, where=where, refusal=REFUSAL)

    def to_yaml(self) -> str:
        """As YAML, fields in the order of the class, defaults written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110)

    def save(self, path: Path) -> None:
        """Write the YAML whole or not at all."""
        write_atomically(path, self.to_yaml().encode())

    def check_against(self, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, where: str) -> None:
        """Compare the spec with the tensors a model or engine really has.

        Raises:
            SpecError: a tensor is missing or unexplained, or the picture's shape or type differs.
        """
        wanted = {self.picture.tensor} | ({self.size_input.tensor} if self.size_input else set())
        _same_inputs(wanted, {tensor.name for tensor in inputs}, where)
        _known_outputs(set(self.decoding.tensors.values()), {tensor.name for tensor in outputs}, where)
        picture = next(tensor for tensor in inputs if tensor.name == self.picture.tensor)
        if not picture.admits(self.picture.shape):
            raise SpecError(
                f"{where}: input {picture.name} has shape {list(picture.shape)}, the spec says "
                f"{list(self.picture.shape)} ({self.picture.layout}); correct width_px, height_px or layout"
            )
        if picture.dtype != self.picture.dtype:
            raise SpecError(
                f"{where}: input {picture.name} is {picture.dtype}, the spec says {self.picture.dtype}; correct dtype"
            )


def _same_inputs(wanted: set[str], present: set[str], where: str) -> None:
    if missing := sorted(wanted - present):
        raise SpecError(f"{where}: no input {', '.join(missing)}, it has {', '.join(sorted(present))}; correct tensor")
    if unfed := sorted(present - wanted):
        raise SpecError(f"{where}: input {', '.join(unfed)} is not fed by the spec; add it as size_input")


def _known_outputs(wanted: set[str], present: set[str], where: str) -> None:
    if missing := sorted(wanted - present):
        raise SpecError(
            f"{where}: no output {', '.join(missing)}, it has {', '.join(sorted(present))}; correct decoding.tensors"
        )
