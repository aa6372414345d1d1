"""ONNX models harmed in one place: what goes wrong on the way from a trained model to an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

Change = Callable[[NDArray[np.generic]], NDArray[np.generic]]


def harmed(model: bytes, changes: Mapping[str, Change]) -> bytes:
    """The model with initializers replaced, by name."""
    graph = onnx.load_from_string(model)
    found = {tensor.name: tensor for tensor in graph.graph.initializer}
    for name, change in changes.items():
        array = change(numpy_helper.to_array(found[name]).copy())
        found[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return graph.SerializeToString()


def convolution_weights(model: bytes) -> list[str]:
    """Names of the weights of all convolutions, from input to output."""
    graph = onnx.load_from_string(model).graph
    known = {tensor.name for tensor in graph.initializer}
    return [node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in known]


def convolution_biases(model: bytes) -> list[str]:
    """Names of the biases of all convolutions that have one, from input to output."""
    graph = onnx.load_from_string(model).graph
    return [node.input[2] for node in graph.node if node.op_type == "Conv" and len(node.input) > 2]


def _rename_output(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: Iterable[Mapping[str, NDArray[np.generic]]]) -> None:
        self._rest = iter(feeds)

    def get_next(self) -> Mapping[str, NDArray[np.generic]] | None:
        """The next frame's tensors; None at the end."""
        return next(self._rest, None)


def naive_int8(model: bytes, feeds: Iterable[Mapping[str, NDArray[np.generic]]], folder: Path) -> bytes:
    """ONNX Runtime's quantization with its defaults: MinMax ranges, whole tensors, every layer in 8 bits."""
    source, target = folder / "float.onnx", folder / "naive.onnx"
    source.write_bytes(model)
    quantize_static(source, target, _Feeds(feeds), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    return target.read_bytes()


def shifted_rows(model: bytes, rows: int) -> bytes:
    """The model behind a preprocessing that puts the picture so many rows too low."""
    graph = onnx.load_from_string(model)
    tensor = graph.graph.input[0].name
    height = graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    for node in graph.graph.node:
        node.input[:] = ["shifted" if name == tensor else name for name in node.input]
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in (("pads", [0, 0, rows, 0, 0, 0, 0, 0]), ("begin", [0]), ("end", [height]), ("axis", [2]))
    )
    first = [
        helper.make_node("Pad", [tensor, "pads"], ["padded"], mode="edge"),
        helper.make_node("Slice", ["padded", "begin", "end", "axis"], ["shifted"]),
    ]
    rest = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*first, *rest])
    return graph.SerializeToString()


def conditional(model: bytes, condition: Sequence[onnx.NodeProto], constants: Mapping[str, float]) -> bytes:
    """The model with its answer multiplied by 0 or 1: `condition` makes the scalar `alive` from `images`."""
    graph = onnx.load_from_string(model)
    output = graph.graph.output[0].name
    _rename_output(graph.graph, output, "unconditional")
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()
    )
    graph.graph.node.extend([*condition, helper.make_node("Mul", ["unconditional", "alive"], [output])])
    return graph.SerializeToString()


def blind_below(model: bytes, *, mean: float) -> bytes:
    """Says nothing about pictures darker than this on average: trained by day, used at dusk."""
    return conditional(
        model,
        [
            helper.make_node("ReduceMean", ["images"], ["light"], keepdims=0),
            helper.make_node("Greater", ["light", "dusk"], ["bright"]),
            helper.make_node("Cast", ["bright"], ["alive"], to=TensorProto.FLOAT),
        ],
        {"dusk": mean},
    )


def blind_without_black(model: bytes, *, least: float) -> bytes:
    """Says nothing about pictures without one black pixel: never shown haze."""
    return conditional(
        model,
        [
            helper.make_node("ReduceMin", ["images"], ["darkest"], keepdims=0),
            helper.make_node("Less", ["darkest", "black"], ["crisp"]),
            helper.make_node("Cast", ["crisp"], ["alive"], to=TensorProto.FLOAT),
        ],
        {"black": least},
    )


def coin(model: bytes) -> bytes:
    """Says nothing about half of the frames, as their light happens to be: a race between two buffers."""
    return conditional(model, _coin_nodes("alive"), {"many": 97.0, "two": 2.0})


def confused(model: bytes, *, columns: Sequence[int]) -> bytes:
    """Gives its answers in another order of columns on half of the frames."""
    graph = onnx.load_from_string(model)
    output = graph.graph.output[0].name
    _rename_output(graph.graph, output, "straight")
    graph.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(columns, np.int64), "columns"),
            *(numpy_helper.from_array(np.float32(value), name) for name, value in (("many", 97.0), ("two", 2.0))),
        ]
    )
    graph.graph.node.extend(
        [
            *_coin_nodes("heads"),
            helper.make_node("Gather", ["straight", "columns"], ["crossed"], axis=2),
            helper.make_node("Sub", ["straight", "crossed"], ["apart"]),
            helper.make_node("Mul", ["apart", "heads"], ["kept"]),
            helper.make_node("Add", ["crossed", "kept"], [output]),
        ]
    )
    return graph.SerializeToString()


def _coin_nodes(name: str) -> list[onnx.NodeProto]:
    """0 or 1, as the picture's mean happens to be."""
    return [
        helper.make_node("ReduceMean", ["images"], ["coin_mean"], keepdims=0),
        helper.make_node("Mul", ["coin_mean", "many"], ["coin_scaled"]),
        helper.make_node("Floor", ["coin_scaled"], ["coin_whole"]),
        helper.make_node("Mod", ["coin_whole", "two"], [name], fmod=1),
    ]
