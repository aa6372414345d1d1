"""Fixed sides for every input: engines are built, measured and judged for one size of picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import onnx

from compile.onnx_graph import UNKNOWN_SIDE, shape_of
from perception.errors import ModelError


def fix_shapes(model: onnx.ModelProto, batch: int, shapes: Mapping[str, tuple[int, ...]], path: Path) -> list[str]:
    """Give every input fixed sides: from `shapes`, the batch from `batch`; says what was open, in words.

    Raises:
        ModelError: a side stays open, contradicts the model, or `shapes` names an input that is not there.
    """
    names = [value.name for value in model.graph.input]
    if unknown := sorted(set(shapes) - set(names)):
        raise ModelError(f"{path}: no input {', '.join(unknown)} to give a shape, it has {', '.join(names)}")
    said = []
    for value in model.graph.input:
        before = _sides(value)
        where = f"{path}: input {value.name} has shape {before}"
        if value.name in shapes:
            after = _asked_shape(shape_of(value), shapes[value.name], where)
        else:
            after = _own_shape(value, batch, where, trained_side_px=_trained_sides(model))
        if after != shape_of(value):
            _set_shape(value, after)
            said.append(f"input {value.name}: {before} → {list(after)}")
    return said


def _asked_shape(declared: tuple[int, ...] | None, asked: tuple[int, ...], where: str) -> tuple[int, ...]:
    """What the caller asks for, where the model leaves it open. A side of 0 is open too: some exporters write it."""
    same_rank = declared is None or len(asked) == len(declared)
    fits = same_rank and all(old in (UNKNOWN_SIDE, 0, new) for old, new in zip(declared or (), asked, strict=False))
    if not fits or min(asked, default=1) < 1:
        raise ModelError(f"{where}, {list(asked)} was asked for; only open sides can be set, to 1 or more")
    return asked


def _own_shape(
    value: onnx.ValueInfoProto, batch: int, where: str, *, trained_side_px: tuple[str, ...]
) -> tuple[int, ...]:
    """The declared shape with its batch fixed; every other side must be fixed already."""
    declared = shape_of(value)
    if declared is None:
        raise ModelError(f"{where}, expected fixed sides; give --shape {value.name}=1,3,HEIGHT,WIDTH")
    shape = list(declared)
    if shape and shape[0] < 1 and len(shape) != 3:
        shape[0] = batch
    if min(shape, default=1) < 1:
        sides = iter((*trained_side_px, *["SIZE"] * len(shape)))
        example = ",".join(str(side) if side > 0 else next(sides) for side in shape)
        raise ModelError(
            f"{where}, expected fixed sides; give --shape {value.name}={example} with the size it was trained for, "
            "or export it with that size"
        )
    if len(shape) == 4 and shape[0] != batch:
        raise ModelError(f"{where}, expected batch {batch}; export it with batch {batch} or a dynamic batch")
    return tuple(shape)


def _trained_sides(model: onnx.ModelProto) -> tuple[str, ...]:
    """Height and width that the exporter noted as `imgsz` in the metadata; empty where it did not."""
    noted = next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), "")
    return tuple(re.findall(r"\d+", noted))[:2]


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    sides = value.type.tensor_type.shape
    sides.ClearField("dim")
    for side in shape:
        sides.dim.add().dim_value = side


def _sides(value: onnx.ValueInfoProto) -> str:
    """The declared shape as people know it, with the exporter's names for open sides."""
    if shape_of(value) is None:
        return "(none)"
    return f"[{', '.join(side.dim_param or str(side.dim_value or '?') for side in value.type.tensor_type.shape.dim)}]"
