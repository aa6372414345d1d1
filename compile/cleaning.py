"""Cleaning an ONNX graph without changing what it computes. Each step works in place and says what it did, in words.

The steps are plain functions over a model; `compile.importer` runs them in order and proves on a random input that the
outputs stay the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference, version_converter

from compile.model_checks import CONTROL_FLOW, opset_of
from compile.onnx_graph import (
    UNKNOWN_SIDE,
    all_graphs,
    all_nodes,
    attribute_of,
    constants,
    consumers,
    label,
    producers,
    shapes_of,
    tensors_read,
)
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import EngineError

PER_CHANNEL_OPSET = 13
"""QuantizeLinear and DequantizeLinear take an axis from here on. Source: ONNX operator changelog, opset 13."""

LARGEST_FOLDED_ELEMENTS = 1 << 20
"""A folded constant beyond this would bloat the file for little time saved."""

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


def name_nodes(model: onnx.ModelProto) -> list[str]:
    """Give every node a unique name: its own where it has one, else operator and position, as in `Conv_12`."""
    taken = Counter(node.name for node in all_nodes(model.graph))
    named = 0
    seen: set[str] = set()
    for graph in all_graphs(model.graph):
        for position, node in enumerate(graph.node):
            if node.name and node.name not in seen:
                seen.add(node.name)
                continue
            stem = node.name or f"{node.op_type}_{position}"
            node.name = _free_name(stem, taken, seen)
            seen.add(node.name)
            named += 1
    return [f"{named} nodes without a name of their own given one"] if named else []


def drop_initializer_inputs(model: onnx.ModelProto) -> list[str]:
    """Weights listed as inputs (as old exporters do) are no inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    dropped = _keep(model.graph.input, lambda value: value.name not in weights)
    return [f"{dropped} initializers taken off the list of graph inputs"] if dropped else []


def drop_foreign_parts(model: onnx.ModelProto) -> list[str]:
    """Inline local functions, drop training parts and declarations of domains that no node uses."""
    said = []
    if model.functions:
        count = len(model.functions)
        model.CopyFrom(onnx.inliner.inline_local_functions(model))
        said.append(f"{count} local functions inlined")
    if model.training_info:
        model.ClearField("training_info")
        said.append("training part dropped")
    used = {node.domain for node in all_nodes(model.graph)} | {"", "ai.onnx"}
    _keep(model.opset_import, lambda entry: entry.domain in used)
    return said


def tidy(model: onnx.ModelProto) -> list[str]:
    """Constants become initializers, no-ops go, and then whatever no output depends on."""
    graph = model.graph
    _lift_constants(graph)
    removed = _remove_no_ops(graph)
    nodes, weights, inputs = _drop_unused(graph)
    said = [f"{count} {operator} removed" for operator, count in sorted(removed.items())]
    if nodes:
        said.append(f"{nodes} nodes that no output depends on dropped")
    if weights:
        said.append(f"{weights} unused initializers dropped")
    if inputs:
        said.append(f"inputs that no output depends on dropped: {', '.join(inputs)}")
    return said


def upgrade_opset(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Lift an opset below 13 to 13, without which weights cannot be quantized per channel.

    Returns:
        What was done, and what to know where it could not be done: the node in the way. One of them is empty.
    """
    source_opset = opset_of(model)
    if source_opset >= PER_CHANNEL_OPSET:
        return [], []
    try:
        upgraded = version_converter.convert_version(model, PER_CHANNEL_OPSET)
    except (version_converter.ConvertError, RuntimeError, ValueError) as error:
        return [], [_why_not_upgraded(model, error)]
    del upgraded.metadata_props[:]
    upgraded.metadata_props.extend(model.metadata_props)
    model.CopyFrom(upgraded)
    return [f"opset {source_opset} → {PER_CHANNEL_OPSET}, which per-channel quantization needs"], []


def set_ir_version(model: onnx.ModelProto) -> None:
    """The IR version that the opset asks for: readable by the oldest engines that know the operators."""
    model.ir_version = int(onnx.helper.find_min_ir_version_for(list(model.opset_import)))


def infer_shapes(model: onnx.ModelProto) -> None:
    """Fill in the shape of every tensor that can be known."""
    model.CopyFrom(shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True))


def forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop inferred shapes: after an input's shape changed they would contradict it."""
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def fold_constants(model: onnx.ModelProto) -> list[str]:
    """Compute what depends on constants and fixed shapes only, until nothing is left to compute."""
    before = len(model.graph.node)
    for _ in range(MOST_FOLDING_ROUNDS):
        infer_shapes(model)
        changed = _fold_shapes(model.graph) + _fold_once(model)
        _drop_unused(model.graph)
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
    _keep(graph.node, lambda node: node.name not in set(fused))
    _drop_unused(graph)
    return [f"{len(fused)} BatchNormalization fused into convolutions"] if fused else []


def _free_name(stem: str, taken: Mapping[str, int], seen: set[str]) -> str:
    name, count = stem, 2
    while name in taken or name in seen:
        name, count = f"{stem}_{count}", count + 1
    return name


def _keep(field: Any, wanted: Callable[[Any], bool]) -> int:  # noqa: ANN401  (any repeated protobuf field)
    """Keep the entries for which `wanted` holds; returns how many went."""
    entries = list(field)
    kept = [entry for entry in entries if wanted(entry)]
    if len(kept) < len(entries):
        del field[:]
        field.extend(kept)
    return len(entries) - len(kept)


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes of tensors and numbers become initializers."""
    outputs = {value.name for value in graph.output}
    lifted = set()
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] not in outputs:
            tensor = _constant_tensor(node)
            if tensor is not None:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                lifted.add(node.name)
    _keep(graph.node, lambda node: node.name not in lifted)


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    value = node.attribute[0]
    if value.name == "value":
        return onnx.TensorProto.FromString(value.t.SerializeToString())
    if value.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(value), np.float32))
    if value.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(value), np.int64))
    return None


def _remove_no_ops(graph: onnx.GraphProto) -> Counter[str]:
    """Take out Identity and inference-time Dropout, joining what stands on both sides."""
    removed: dict[str, str] = {}
    for node in graph.node:
        if _does_nothing(node, graph) and _join(graph, node):
            removed[node.name] = node.op_type
    _keep(graph.node, lambda node: node.name not in removed)
    return Counter(removed.values())


def _does_nothing(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    used = {name for other in graph.node for name in tensors_read(other)} | {value.name for value in graph.output}
    masks = [name for name in node.output[1:] if name in used]
    training = node.input[2] if len(node.input) > 2 else ""
    off = not training or (training in constants(graph) and not constants(graph)[training].any())
    return off and not masks


def _join(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Make readers of the node's output read its input; False where the names on both sides are fixed."""
    source, target = node.input[0], node.output[0]
    outputs = {value.name for value in graph.output}
    if target not in outputs:
        _rename(graph, target, source)
        return True
    if source in outputs or source not in producers(graph):
        return False
    _rename(graph, source, target)
    return True


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor where it is made and wherever it is read, bodies included."""
    for inner in all_graphs(graph):
        for node in inner.node:
            _replace(node.input, old, new)
            _replace(node.output, old, new)
        if inner is not graph:
            for value in inner.output:
                value.name = new if value.name == old else value.name
    _keep(graph.value_info, lambda value: value.name != old)


def _replace(names: MutableSequence[str], old: str, new: str) -> None:
    for position, name in enumerate(names):
        if name == old:
            names[position] = new


def _drop_unused(graph: onnx.GraphProto) -> tuple[int, int, list[str]]:
    """Drop what no output depends on; returns numbers of nodes and initializers, and names of inputs dropped."""
    needed = {value.name for value in graph.output}
    alive = set()
    for node in reversed(graph.node):
        if needed & set(node.output):
            alive.add(node.name)
            needed |= tensors_read(node)
    nodes = _keep(graph.node, lambda node: node.name in alive)
    weights = _keep(graph.initializer, lambda tensor: tensor.name in needed)
    inputs = [value.name for value in graph.input if value.name not in needed]
    if len(inputs) < len(graph.input):
        _keep(graph.input, lambda value: value.name in needed)
        return nodes, weights, inputs
    return nodes, weights, []


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
    return _keep(graph.node, lambda node: node.name not in folded)


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
    return _keep(graph.node, lambda node: node.name not in names)


def _foldable(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that depend on constants only and make tensors of known, modest size, in order."""
    known = {tensor.name for tensor in graph.initializer}
    shapes = shapes_of(graph)
    outputs = {value.name for value in graph.output}
    found = []
    for node in graph.node:
        reads = tensors_read(node)
        small = all(_is_small(shapes.get(name)) for name in node.output if name)
        if node.op_type not in NEVER_FOLDED and reads and reads <= known and small and not outputs & set(node.output):
            known |= set(node.output)
            found.append(node)
    return found


def _is_small(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and UNKNOWN_SIDE not in shape and math.prod(shape) <= LARGEST_FOLDED_ELEMENTS


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
