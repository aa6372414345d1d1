"""Arithmetic done once instead of in every frame: constants folded, normalizations multiplied into convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compile.cleaning import drop_unused, infer_shapes, keep
from compile.model_checks import CONTROL_FLOW
from compile.onnx_graph import (
    UNKNOWN_SIDE,
    attribute_of,
    constants,
    consumers,
    producers,
    shapes_of,
    tensors_read,
)
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import EngineError

LARGEST_FOLDED_ELEMENTS = 1 << 20
"""A folded constant beyond this would bloat the file for little time saved, unless it takes the place of one as large:
weights that are cast or turned where they are used are weights all the same."""

NEVER_FOLDED = CONTROL_FLOW | {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}
MOST_FOLDING_ROUNDS = 20


def fold_constants(model: onnx.ModelProto) -> list[str]:
    """Compute what depends on constants and fixed shapes only, until nothing is left to compute."""
    before = len(model.graph.node)
    for _ in range(MOST_FOLDING_ROUNDS):
        infer_shapes(model)
        changed = _fold_shapes(model.graph) + _fold_once(model)
        drop_unused(model.graph)
        if not changed:
            break
    folded = before - len(model.graph.node)
    return [f"{folded} nodes that compute constants folded"] if folded else []


def fuse_batch_norms(model: onnx.ModelProto) -> list[str]:
    """Multiply a BatchNormalization into the convolution before it, in float64.

    Quantization wants the pair as one: left apart, the normalization stays behind as a float node.
    """
    graph = model.graph
    arrays, readers, makers = constants(graph), consumers(graph), producers(graph)
    outputs = {value.name for value in graph.output}
    fused = []
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = makers.get(norm.input[0])
        alone = conv is not None and len(readers[conv.output[0]]) == 1 and conv.output[0] not in outputs
        if conv is not None and alone and _fusable(conv, norm, arrays):
            _fuse(graph, conv, norm, arrays)
            fused.append(norm.name)
    keep(graph.node, lambda node: node.name not in set(fused))
    drop_unused(graph)
    return [f"{len(fused)} BatchNormalization fused into convolutions"] if fused else []


def _fold_shapes(graph: onnx.GraphProto) -> int:
    """Replace Shape nodes of tensors whose sides are all known by constants; returns how many."""
    shapes = shapes_of(graph)
    outputs = {value.name for value in graph.output}
    folded = set()
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "Shape" and node.output[0] not in outputs else None
        if shape is not None and UNKNOWN_SIDE not in shape:
            part = shape[attribute_of(node, "start", 0) : attribute_of(node, "end", len(shape))]
            graph.initializer.append(numpy_helper.from_array(np.asarray(part, np.int64), node.output[0]))
            folded.add(node.name)
    return keep(graph.node, lambda node: node.name not in folded)


def _fold_once(model: onnx.ModelProto) -> int:
    """Compute every node whose inputs are all constants, by ONNX Runtime itself; returns how many nodes went."""
    graph = model.graph
    foldable = _foldable(graph)
    if not foldable:
        return 0
    inside = {name for node in foldable for name in node.output if name}
    names = {node.name for node in foldable}
    outside = [node for node in graph.node if node.name not in names]
    wanted = sorted(inside & {name for node in outside for name in tensors_read(node)})
    try:
        values = _computed(model, foldable, wanted)
    except EngineError:  # an operator without a kernel for constants of this type: it is left to the engine
        return 0
    graph.initializer.extend(numpy_helper.from_array(values[name].copy(), name) for name in wanted)
    return keep(graph.node, lambda node: node.name not in names)


def _foldable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that depend on constants only and make tensors of known, modest size, in order."""
    known = {tensor.name for tensor in graph.initializer}
    shapes = shapes_of(graph)
    outputs = {value.name for value in graph.output}
    found = []
    for node in graph.node:
        reads = tensors_read(node)
        most = max(LARGEST_FOLDED_ELEMENTS, sum(_elements(shapes.get(name)) for name in reads))
        small = all(0 <= _elements(shapes.get(name)) <= most for name in node.output if name)
        if node.op_type not in NEVER_FOLDED and reads and reads <= known and small and not outputs & set(node.output):
            known |= set(node.output)
            found.append(node)
    return found


def _elements(shape: tuple[int, ...] | None) -> int:
    """How many a tensor has; -1 where its shape is not known."""
    return -1 if shape is None or UNKNOWN_SIDE in shape else math.prod(shape)


def _computed(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], wanted: Sequence[str]
) -> Mapping[str, NDArray[np.generic]]:
    """Values of the tensors `wanted`, from a model of these nodes alone.

    Raises:
        EngineError: ONNX Runtime cannot run it.
    """
    read = {name for node in nodes for name in tensors_read(node)}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    results = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = onnx.helper.make_graph(list(nodes), "constants", [], results, weights)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return OnnxRuntimeEngine(part.SerializeToString(), threads=1).infer({})


def _fusable(conv: onnx.NodeProto, norm: onnx.NodeProto, arrays: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether all numbers are constants and the layout of the weights is one that `_fuse` knows."""
    plain = conv.op_type == "Conv" or (conv.op_type == "ConvTranspose" and attribute_of(conv, "group", 1) == 1)
    if not plain or attribute_of(norm, "training_mode", 0) or len([name for name in norm.output if name]) > 1:
        return False
    if not all(name in arrays for name in (*norm.input[1:], *conv.input[1:]) if name):
        return False
    return bool((arrays[norm.input[4]] + attribute_of(norm, "epsilon", 1e-5) > 0).all())


def _fuse(
    graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto, arrays: Mapping[str, NDArray[np.generic]]
) -> None:
    """Write y = γ (W x + b − μ) / σ + β as one convolution whose output takes the normalization's name."""
    gamma, beta, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:5])
    weight = arrays[conv.input[1]]
    bias = arrays[conv.input[2]].astype(np.float64) if len(conv.input) > 2 and conv.input[2] else np.zeros(len(mean))
    factor = gamma / np.sqrt(variance + attribute_of(norm, "epsilon", 1e-5))
    along_outputs = (-1, 1) if conv.op_type == "Conv" else (1, -1)
    scaled = weight * factor.reshape(*along_outputs, *[1] * (weight.ndim - 2))
    names = [f"{norm.name}_fused_weight", f"{norm.name}_fused_bias"]
    for name, value in zip(names, (scaled, (bias - mean) * factor + beta), strict=True):
        graph.initializer.append(numpy_helper.from_array(value.astype(weight.dtype), name))
    conv.input[:] = [conv.input[0], *names]
    conv.output[0] = norm.output[0]
