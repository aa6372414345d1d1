"""Cleaning an ONNX graph without changing what it computes. Each step works in place and says what it did, in words.

The steps are plain functions over a model; `compile.importer` runs them in order and proves on a random input that the
outputs stay the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableSequence
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, shape_inference

from compile.onnx_graph import (
    all_graphs,
    all_nodes,
    constants,
    producers,
    tensors_read,
)

OWN_SEPARATOR, PLAIN_SEPARATOR = "::", ":"
"""What is written into a graph later is named after what it belongs to: `images::codes`."""


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


def free_separator(model: onnx.ModelProto) -> list[str]:
    """Take `::` out of the names of nodes and inner tensors, so that no name made by quantization is there already.

    Inputs and outputs keep their names, by which frames are fed and results are read.
    """
    graphs = list(all_graphs(model.graph))
    tensors = {tensor.name for graph in graphs for tensor in graph.initializer}
    tensors |= {name for node in all_nodes(model.graph) for name in node.output}
    tensors |= {value.name for graph in graphs[1:] for value in graph.input}
    tensor_names = _without_separator(tensors - {value.name for value in (*model.graph.input, *model.graph.output)})
    node_names = _without_separator({node.name for node in all_nodes(model.graph)})
    for graph in graphs:
        for node in graph.node:
            node.name = node_names.get(node.name, node.name)
            node.input[:] = [tensor_names.get(name, name) for name in node.input]
            node.output[:] = [tensor_names.get(name, name) for name in node.output]
        for thing in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
            thing.name = tensor_names.get(thing.name, thing.name)
    count = len(tensor_names) + len(node_names)
    return [f"{count} names written with ':' instead of '::', which marks what quantization adds"] if count else []


def drop_initializer_inputs(model: onnx.ModelProto) -> list[str]:
    """Weights listed as inputs (as old exporters do) are no inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    dropped = keep(model.graph.input, lambda value: value.name not in weights)
    return [f"{dropped} initializers taken off the list of graph inputs"] if dropped else []


def drop_foreign_parts(model: onnx.ModelProto) -> list[str]:
    """Inline local functions, drop training parts and declarations of domains that no node uses."""
    said = []
    if model.functions:
        count = len(model.functions)
        model.CopyFrom(inliner.inline_local_functions(model))
        said.append(f"{count} local functions inlined")
    if model.training_info:
        model.ClearField("training_info")
        said.append("training part dropped")
    used = {node.domain for node in all_nodes(model.graph)} | {"", "ai.onnx"}
    keep(model.opset_import, lambda entry: entry.domain in used)
    return said


def tidy(model: onnx.ModelProto) -> list[str]:
    """Constants become initializers, no-ops go, and then whatever no output depends on."""
    graph = model.graph
    _lift_constants(graph)
    removed = _remove_no_ops(graph)
    nodes, weights, inputs = drop_unused(graph)
    said = [f"{count} {operator} removed" for operator, count in sorted(removed.items())]
    if nodes:
        said.append(f"{nodes} nodes that no output depends on dropped")
    if weights:
        said.append(f"{weights} unused initializers dropped")
    if inputs:
        said.append(f"inputs that no output depends on dropped: {', '.join(inputs)}")
    return said


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


def _without_separator(names: set[str]) -> dict[str, str]:
    """Name with the separator → a name without it that is not taken; names without it are left out."""
    taken = Counter(names)
    found: dict[str, str] = {}
    for name in sorted(names):
        if OWN_SEPARATOR in name:
            found[name] = _free_name(name.replace(OWN_SEPARATOR, PLAIN_SEPARATOR), taken, set(found.values()))
    return found


def _free_name(stem: str, taken: Mapping[str, int], seen: set[str]) -> str:
    name, count = stem, 2
    while name in taken or name in seen:
        name, count = f"{stem}_{count}", count + 1
    return name


def keep(field: Any, wanted: Callable[[Any], bool]) -> int:  # noqa: ANN401  (any repeated protobuf field)
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
    keep(graph.node, lambda node: node.name not in lifted)


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
    keep(graph.node, lambda node: node.name not in removed)
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
    if target in outputs and (source in outputs or source not in producers(graph)):
        return False
    del node.output[:]  # it is leaving: from here on it makes nothing
    _rename(graph, source, target) if target in outputs else _rename(graph, target, source)
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
    keep(graph.value_info, lambda value: value.name != old)


def _replace(names: MutableSequence[str], old: str, new: str) -> None:
    for position, name in enumerate(names):
        if name == old:
            names[position] = new


def drop_unused(graph: onnx.GraphProto) -> tuple[int, int, list[str]]:
    """Drop what no output depends on; returns numbers of nodes and initializers, and names of inputs dropped."""
    needed = {value.name for value in graph.output}
    alive = set()
    for node in reversed(graph.node):
        if needed & set(node.output):
            alive.add(node.name)
            needed |= tensors_read(node)
    nodes = keep(graph.node, lambda node: node.name in alive)
    weights = keep(graph.initializer, lambda tensor: tensor.name in needed)
    inputs = [value.name for value in graph.input if value.name not in needed]
    if len(inputs) < len(graph.input):
        keep(graph.input, lambda value: value.name in needed)
        return nodes, weights, inputs
    return nodes, weights, []
