"""What a model must not hold to be imported. Every refusal names the node or tensor, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compile.onnx_file import all_tensors
from compile.onnx_graph import all_nodes, constants, consumers, dtype_name, element_types_of, label
from perception.errors import ModelError

OLDEST_OPSET, NEWEST_OPSET = 9, 21
LARGEST_TENSOR_BYTES = 2**31 - 1
"""An activation beyond it is a mistake in the shapes, not a camera model."""

FEEDABLE_DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool")
STANDARD_DOMAINS = ("", "ai.onnx")
HOLDS_INFINITY_BY_RIGHT = {"Where", "Clip", "Max", "Min", "Pad", "Expand", "ConstantOfShape"}
"""Operators for which an infinite constant is a bound or a mask, not a broken weight."""

DRAWS_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}

WEIGHT_CARRIERS = frozenset({"Conv", "ConvTranspose", "DeformConv", "Gemm", "GRU", "LSTM", "MatMul", "RNN"})
"""Operators where most weights lie, whatever an engine can do with them."""

CONTROL_FLOW = {"If", "Loop", "Scan"}


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set; 0 where the model declares none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 0)


def check_versions(model: onnx.ModelProto, path: Path) -> None:
    """Refuse file formats and operator sets outside what the chain is tested with.

    Raises:
        ModelError: the IR version is newer than the installed onnx reads, or the opset is out of range.
    """
    if not 0 < model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{path}: written in IR version {model.ir_version}, the installed onnx {onnx.__version__} reads 1 to "
            f"{onnx.IR_VERSION}; export it again for an older version, or upgrade onnx"
        )
    opset = opset_of(model)
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ModelError(
            f"{path}: uses opset {opset or 'none'}, expected {OLDEST_OPSET} to {NEWEST_OPSET}; "
            "export it again with opset_version=17"
        )


def check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Refuse operators that no engine of this project knows.

    Raises:
        ModelError: a custom domain or an operator that its opset does not have; the node is named.
    """
    opset = opset_of(model)
    for node in all_nodes(model.graph):
        if node.domain not in STANDARD_DOMAINS:
            raise ModelError(
                f"{path}: {label(node)} is of the custom domain {node.domain!r}, expected standard ONNX operators "
                "only; export the model without this plugin or fused operator"
            )
        if not onnx.defs.has(node.op_type, opset):
            raise ModelError(
                f"{path}: {label(node)} is no operator of opset {opset}; export the model without plugins, "
                "or with a newer opset_version"
            )
        if not all(_is_text(attribute.s) for attribute in node.attribute):
            raise ModelError(f"{path}: {label(node)} has an attribute that is no UTF-8 text; the file is damaged")


def check_interface(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse inputs and outputs that no frame can feed and no decoder can read.

    Raises:
        ModelError: a sequence, map, optional, string or other tensor type that has no NumPy array.
    """
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            what = value.type.WhichOneof("value") or "no type"
            dtype = dtype_name(value.type.tensor_type.elem_type) if what == "tensor_type" else what.replace("_type", "")
            if dtype not in FEEDABLE_DTYPES and not (kind == "output" and what == "no type"):
                raise ModelError(
                    f"{path}: {kind} {value.name} is {_article(dtype)}, expected a tensor of "
                    f"{', '.join(FEEDABLE_DTYPES)}; export the network without that part"
                )


def check_weights(model: onnx.ModelProto, path: Path) -> None:
    """Refuse weights that are damaged or not numbers.

    Raises:
        ModelError: an initializer of the wrong length, sparse, or holding NaN or an infinite weight; it is named.
    """
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelError(f"{path}: initializer {name} is sparse, expected dense; export it again without sparsity")
    for tensor in all_tensors(model):
        array = _array_of(tensor, path)
        if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
            raise ModelError(f"{path}: {_not_a_number(model.graph, tensor, int(np.isnan(array).sum()), 'NaN')}")
    _refuse_infinite_weights(model.graph, path)


def check_structure(model: onnx.ModelProto, path: Path) -> None:
    """Let the reference checker look at the graph as a whole.

    Raises:
        ModelError: the graph breaks the ONNX standard: unsorted, undefined tensors, wrong arity or attributes.
    """
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: breaks the ONNX standard ({reason}); export it again") from error


def check_sizes(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse shapes that no camera computer could hold, before anything is run.

    Raises:
        ModelError: a tensor of 2 GiB or more; it is named.
    """
    for value in (*graph.input, *graph.value_info, *graph.output):
        sides = [max(1, side.dim_value) for side in value.type.tensor_type.shape.dim]
        size_bytes = int(np.prod(sides, dtype=object)) * 4 if sides else 4
        if size_bytes > LARGEST_TENSOR_BYTES:
            raise ModelError(
                f"{path}: tensor {value.name} of shape {sides} would take {size_bytes / 2**30:.1f} GiB, expected less "
                "than 2; correct the input's size"
            )


def check_determinism(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse a network that answers differently each time: nothing measured of it holds for the next frame.

    Raises:
        ModelError: a node that outputs depend on draws random numbers; it is named.
    """
    for node in all_nodes(graph):
        if node.op_type in DRAWS_RANDOM or _drops_out(node, graph):
            raise ModelError(
                f"{path}: {label(node)} draws random numbers, expected the same answer for the same picture; export "
                "the model in inference mode (model.eval()), without noise"
            )


def _drops_out(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Whether a Dropout is told to train."""
    mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
    fixed = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == mode]
    return any(bool(value) for value in fixed)


def notes_on(graph: onnx.GraphProto) -> tuple[str, ...]:
    """What is accepted but limits what can be done with the model, one sentence each."""
    notes = [
        f"{label(node)} is control flow: not supported for quantization, it stays in float"
        for node in graph.node
        if node.op_type in CONTROL_FLOW
    ]
    quantized = sum(node.op_type in ("QuantizeLinear", "QLinearConv", "ConvInteger") for node in graph.node)
    if quantized:
        notes.append(f"already quantized ({quantized} quantizing nodes): give the float model to let compile choose")
    types = element_types_of(graph)
    halves = [node for node in graph.node if node.op_type in WEIGHT_CARRIERS and _is_half(node, types)]
    if halves:
        notes.append(
            f"{len(halves)} layers have weights of float16 (the first is {label(halves[0])}): they stay as they are; "
            "export the model in float32 to let compile quantize it"
        )
    return tuple(notes)


def _is_half(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    return any(types.get(name) == onnx.TensorProto.FLOAT16 for name in node.input[1:2])


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _array_of(tensor: onnx.TensorProto, path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelError(
            f"{path}: initializer {tensor.name} of shape {list(tensor.dims)} cannot be read ({error}); "
            "the file is damaged, export or download it again"
        ) from error
    return array


def _refuse_infinite_weights(graph: onnx.GraphProto, path: Path) -> None:
    arrays, readers = constants(graph), consumers(graph)
    for tensor in graph.initializer:
        array = arrays[tensor.name]
        if not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all():
            continue
        if not all(node.op_type in HOLDS_INFINITY_BY_RIGHT for node in readers[tensor.name]):
            raise ModelError(f"{path}: {_not_a_number(graph, tensor, int(np.isinf(array).sum()), 'infinite')}")


def _not_a_number(graph: onnx.GraphProto, tensor: onnx.TensorProto, count: int, what: str) -> str:
    total = max(1, int(np.prod(list(tensor.dims), dtype=object)))
    node = next((node for node in all_nodes(graph) if _holds(node, tensor)), None)
    where = "" if node is None else f" of {label(node)}"
    return (
        f"initializer {tensor.name or '(constant)'}{where} holds {count} {what} of {total} values, expected finite "
        "weights; the training or a float16 export went wrong, export it again"
    )


def _holds(node: onnx.NodeProto, tensor: onnx.TensorProto) -> bool:
    """Whether a node reads a tensor, or is the Constant that it is kept in."""
    kept = any(attribute.t == tensor for attribute in node.attribute if attribute.HasField("t"))
    return kept or (bool(tensor.name) and tensor.name in node.input)


def _article(dtype: str) -> str:
    return f"an {dtype}" if dtype[0] in "aeiou" else f"a {dtype}"
