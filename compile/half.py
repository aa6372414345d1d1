"""A mark in the model itself that says what is not in 8 bits may compute in FP16, for engines that have both.

The mark is part of the model's bytes: an engine that may and one that may not are two engines, with two digests.
"""

from __future__ import annotations

import onnx

_KEY, _YES = "tollgate.half", "allowed"


def allowing_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the mark."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    if not allows_half(marked):
        marked.metadata_props.add(key=_KEY, value=_YES)
    return marked


def allows_half(model: onnx.ModelProto) -> bool:
    """Whether a model has the mark."""
    return any(entry.key == _KEY and entry.value == _YES for entry in model.metadata_props)
