"""Lifts old models to the operator set that quantization needs, without changing what they compute."""

from __future__ import annotations

import re

import onnx
from onnx import version_converter

from compile.cleaning import keep
from compile.model_checks import opset_of
from compile.onnx_graph import all_nodes, label

PER_CHANNEL_OPSET = 13
"""QuantizeLinear and DequantizeLinear take an axis from here on. Source: ONNX operator changelog, opset 13."""

RESIZE_RULES_OPSET = 11
"""Resize says by attributes from here on how it finds its pixels. Source: ONNX operator changelog, opset 11."""


def upgrade_opset(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Lift an opset below 13 to 13, without which weights cannot be quantized per channel.

    Returns:
        What was done, and what to know where it could not be done: the node in the way. One of them is empty.
    """
    source_opset = opset_of(model)
    if source_opset >= PER_CHANNEL_OPSET:
        return [], []
    try:
        upgraded = _converted(model)
    except (version_converter.ConvertError, RuntimeError, ValueError) as error:
        return [], [_why_not_upgraded(model, error)]
    del upgraded.metadata_props[:]
    upgraded.metadata_props.extend(model.metadata_props)
    model.CopyFrom(upgraded)
    return [f"opset {source_opset} → {PER_CHANNEL_OPSET}, which per-channel quantization needs"], []


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in the opset wanted, resizing as it did.

    Before opset 11 corners of pixels meet, from then on middles do unless an attribute says otherwise, which the
    converter does not write: bilinear pictures would shift by half a pixel. It turns Upsample into Resize on the way
    to 10, under names of its own.

    Source: ONNX operator specification, Resize of 10 and of 11; onnx, version_converter/adapters.
    """
    if opset_of(model) >= RESIZE_RULES_OPSET:
        return version_converter.convert_version(model, PER_CHANNEL_OPSET)
    before = version_converter.convert_version(model, RESIZE_RULES_OPSET - 1)
    resized = {node.output[0] for node in all_nodes(before.graph) if node.op_type == "Resize"}
    after = version_converter.convert_version(before, PER_CHANNEL_OPSET)
    for node in all_nodes(after.graph):
        if node.op_type == "Resize" and node.output[0] in resized:
            _set_text(node, "coordinate_transformation_mode", "asymmetric")
            _set_text(node, "nearest_mode", "floor")
    return after


def _set_text(node: onnx.NodeProto, name: str, text: str) -> None:
    keep(node.attribute, lambda attribute: attribute.name != name)
    node.attribute.append(onnx.helper.make_attribute(name, text))


def _why_not_upgraded(model: onnx.ModelProto, error: Exception) -> str:
    """Name the node that the version converter stumbled over, where its message tells the operator."""
    reason = " ".join(str(error).split())
    words = set(re.findall(r"[A-Za-z0-9]+", reason))
    culprit = next((node for node in model.graph.node if node.op_type in words), None)
    where = f"{label(culprit)}: " if culprit is not None else ""
    return (
        f"opset {opset_of(model)} kept, so weights cannot be quantized per channel: {where}{reason[:200]}; "
        f"export again with opset_version={PER_CHANNEL_OPSET} or newer"
    )
