"""A network for several pictures at once, made of one for a single picture.

python -m scripts.tensorrt_bench.batch MODEL.onnx …       writes MODEL.batch6.onnx beside each
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from perception.files import write_atomically
from scripts.tensorrt_bench.cases import CAMERAS


def batched(content: bytes, count: int) -> bytes:
    """The same graph for `count` pictures: first sides of inputs and outputs, and of constant shapes, follow.

    Raises:
        ValueError: an input or output has another first side than 1, or the graph does not carry the batch through.
    """
    model = onnx.load_from_string(content)
    given = {constant.name for constant in model.graph.initializer}
    values = [value for value in (*model.graph.input, *model.graph.output) if value.name not in given]
    for value in values:
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_value != 1:
            raise ValueError(f"{value.name}: its first side is {first.dim_value or first.dim_param}, expected 1")
        first.dim_value = count
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for constant in model.graph.initializer:
        if constant.name in shapes:
            constant.CopyFrom(_follows(constant, constant.name, count))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            node.attribute[0].t.CopyFrom(_follows(node.attribute[0].t, node.attribute[0].t.name, count))
    del model.graph.value_info[:]
    shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return model.SerializeToString()


def write_batched(model: Path) -> None:
    """Write MODEL.batch6.onnx beside MODEL.onnx."""
    write_atomically(model.with_suffix(f".batch{CAMERAS}.onnx"), batched(model.read_bytes(), CAMERAS))


def _follows(tensor: onnx.TensorProto, name: str, count: int) -> onnx.TensorProto:
    shape = np.array(numpy_helper.to_array(tensor))
    if shape.size and shape[0] == 1:
        shape[0] = count
    return numpy_helper.from_array(shape, name)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write_batched(Path(argument))
