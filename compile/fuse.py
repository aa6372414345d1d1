"""Input fusion: the network takes the camera's bytes, and lays out and normalises them inside its own graph.

The host then only resizes. Whether that is faster depends on the engine and the machine: it is measured, not assumed.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compile.onnx_graph import all_nodes
from perception.model_spec import PictureInput


def can_fuse(picture: PictureInput) -> bool:
    """Whether there is anything to fuse: the network still wants floats."""
    return picture.dtype == "float32"


def fuse_input(model: onnx.ModelProto, picture: PictureInput) -> tuple[onnx.ModelProto, PictureInput]:
    """The same network for bytes: uint8, NHWC, 0..255, in the picture's own order of colours.

    Args:
        model: the network; its picture input is float32.
        picture: how it wants its pixels now.

    Returns:
        The model and how it wants its pixels from now on.

    Raises:
        ValueError: the picture's tensor is not float32.
    """
    if not can_fuse(picture):
        raise ValueError(f"input {picture.tensor}: got {picture.dtype}, expected float32")
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    plain = picture.model_copy(
        update={"dtype": "uint8", "layout": "NHWC", "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    )
    normalised = f"{picture.tensor}::normalised"
    for node in all_nodes(fused.graph):  # those in bodies too, which reach out for it
        node.input[:] = [normalised if name == picture.tensor else name for name in node.input]
    _retype_input(fused.graph, plain)
    nodes, constants = _normalising_nodes(picture, normalised)
    body = list(fused.graph.node)
    del fused.graph.node[:]
    fused.graph.node.extend([*nodes, *body])
    fused.graph.initializer.extend(constants)
    return fused, plain


def _normalising_nodes(picture: PictureInput, normalised: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """uint8 NHWC → float32 in the network's layout: (p · scale − mean) / std, steps that change nothing left out."""
    factor, offset = _factor_and_offset(picture)
    steps: list[tuple[str, NDArray[np.float32] | None, dict[str, object]]] = []
    if picture.layout == "NCHW":
        steps.append(("Transpose", None, {"perm": [0, 3, 1, 2]}))
    steps.append(("Cast", None, {"to": onnx.TensorProto.FLOAT}))
    if (factor != 1).any():
        steps.append(("Mul", factor, {}))
    if (offset != 0).any():
        steps.append(("Add", offset, {}))
    nodes, constants, current = [], [], picture.tensor
    for position, (operator, constant, attributes) in enumerate(steps):
        name = f"{picture.tensor}::{operator.lower()}"
        output = normalised if position == len(steps) - 1 else f"{name}::output"
        inputs = [current]
        if constant is not None:
            constants.append(numpy_helper.from_array(constant, f"{name}::constant"))
            inputs.append(f"{name}::constant")
        nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        current = output
    return nodes, constants


def _factor_and_offset(picture: PictureInput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """P · factor + offset, shaped to broadcast over the network's layout."""
    std = np.asarray(picture.std, np.float64)
    shape = (1, 3, 1, 1) if picture.layout == "NCHW" else (1, 1, 1, 3)
    factor = (picture.scale / std).reshape(shape).astype(np.float32)
    offset = (-np.asarray(picture.mean, np.float64) / std).reshape(shape).astype(np.float32)
    return factor, offset


def _retype_input(graph: onnx.GraphProto, picture: PictureInput) -> None:
    value = next(value for value in graph.input if value.name == picture.tensor)
    value.CopyFrom(helper.make_tensor_value_info(picture.tensor, onnx.TensorProto.UINT8, picture.shape))
