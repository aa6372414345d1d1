"""Where Q/DQ pairs may stand. It depends on the engine that will read them: see `compile.rules`.

A pair (QuantizeLinear, DequantizeLinear) on a tensor allows an engine to keep it in 8 bits; whether the engine then
computes in integers depends on its fusions, and those differ. `place` applies one set of rules to one graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from compile.graph import GraphView
from compile.model_checks import WEIGHT_CARRIERS
from compile.onnx_graph import all_nodes, attribute_of, subgraphs, tensors_read
from compile.rules import PlacementRules, Scope


@dataclass(frozen=True, slots=True)
class Site:
    """One activation tensor that carries a Q/DQ pair.

    Attributes:
        tensor: its name.
        readers: nodes that read the dequantized tensor; None means all, graph outputs included.
        scaled_by: tensors whose common range sets the scale, in graph order.
    """

    tensor: str
    readers: tuple[str, ...] | None
    scaled_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Which nodes compute in integers, where the pairs stand, and what stays float for which reason.

    Attributes:
        rules: what was applied.
        integer_nodes: names, in graph order.
        sites: tensors with a pair, in graph order.
        absorbed: activation node that leaves the graph → node whose output takes its place.
        float_weighted: weighted node that stays float → why.
    """

    rules: PlacementRules
    integer_nodes: tuple[str, ...]
    sites: tuple[Site, ...]
    absorbed: Mapping[str, str]
    float_weighted: Mapping[str, str]

    @property
    def ranged_tensors(self) -> tuple[str, ...]:
        """Tensors whose range must be known, each once."""
        return tuple(dict.fromkeys(name for site in self.sites for name in site.scaled_by))


def place(graph: GraphView, rules: PlacementRules, *, scope: Scope, keep_float: Mapping[str, str]) -> Placement:
    """Decide where pairs stand.

    Args:
        graph: the float model.
        rules: of the engine kind.
        scope: how far beyond the weighted operators 8 bits reach.
        keep_float: node that must stay float → why.
    """
    draft = _Draft(graph, rules, rules.ops_of(scope))
    ends = _end_nodes(graph, rules) if rules.ends_in_float else frozenset()
    weighted = [node for node in graph.nodes if node.op_type in rules.weighted_ops]
    why_float = {node.name: keep_float.get(node.name) or _why_float(graph, rules, node, ends) for node in weighted}
    ahead = _ahead_of(graph, [name for name, why in why_float.items() if why is None], rules)
    for node in graph.nodes:
        if node.name in why_float:
            draft.add_weighted(node, why_float[node.name])
        elif (why := _why_no_kernel(rules, node)) is not None:
            draft.float_weighted[node.name] = why
        elif node.name in ahead and node.name not in keep_float and draft.follows(node):
            draft.add(node)
    return draft.finished()


@dataclass(slots=True)
class _Draft:
    """A placement under construction; nodes come in graph order."""

    graph: GraphView
    rules: PlacementRules
    following_ops: frozenset[str]
    integer_nodes: list[str] = field(default_factory=list)
    in_8_bits: set[str] = field(default_factory=set)
    read_by: dict[str, list[str]] = field(default_factory=dict)
    absorbed: dict[str, str] = field(default_factory=dict)
    float_weighted: dict[str, str] = field(default_factory=dict)
    sharing: list[tuple[str, ...]] = field(default_factory=list)

    def add_weighted(self, node: onnx.NodeProto, why_float: str | None) -> None:
        if why_float is None:
            self.add(node)
        else:
            self.float_weighted[node.name] = why_float

    def follows(self, node: onnx.NodeProto) -> bool:
        """Whether all a node reads is in 8 bits already, and its kernel can stay there."""
        inputs = self.graph.float_inputs(node)
        constants = [self.graph.constants[name] for name in node.input if name in self.graph.constants]
        return (
            node.op_type in self.following_ops
            and node.name not in self.absorbed
            and bool(inputs)
            and self.in_8_bits.issuperset(inputs)
            and not any(constant.dtype == np.float32 for constant in constants)
        )

    def add(self, node: onnx.NodeProto) -> None:
        """Let a node compute in integers."""
        self.integer_nodes.append(node.name)
        for tensor in self.graph.float_inputs(node):
            self.read_by.setdefault(tensor, []).append(node.name)
        if not self.rules.output_pairs:
            return
        output = self._absorbing(node)
        self.in_8_bits.add(output)
        if node.op_type in self.rules.pass_through_ops:
            self.sharing.append((node.input[0], output))

    def _absorbing(self, node: onnx.NodeProto) -> str:
        """The tensor that carries the output's pair: behind an activation which the clamping replaces.

        Behind what passes values through nothing is replaced: the grid it shares with its input reaches further.
        """
        reader = None if node.op_type in self.rules.pass_through_ops else self.graph.only_reader(node.output[0])
        if reader is None or reader.op_type not in self.rules.absorbs or not _keeps_zero(self.graph, reader):
            return str(node.output[0])
        self.absorbed[reader.name] = node.name
        return str(reader.output[0])

    def finished(self) -> Placement:
        self._pair_skip_branches()
        self._share_concat_scales()
        groups = _merged(self.sharing)
        order = {name: position for position, name in enumerate(_tensor_order(self.graph))}
        tensors = sorted({*self.read_by, *self.in_8_bits}, key=order.__getitem__)
        sites = tuple(
            Site(
                tensor=tensor,
                readers=None if tensor in self.in_8_bits else tuple(self.read_by[tensor]),
                scaled_by=tuple(sorted(groups.get(tensor, {tensor}), key=order.__getitem__)),
            )
            for tensor in tensors
        )
        return Placement(self.rules, tuple(self.integer_nodes), sites, self.absorbed, self.float_weighted)

    def _pair_skip_branches(self) -> None:
        for node in self.graph.nodes:
            if node.op_type not in self.rules.skip_branch_ops:
                continue
            fused = [name for name in node.input if self._ends_integer_node(name)]
            others = [name for name in self.graph.float_inputs(node) if name not in fused[:1]]
            if fused and others:
                self.read_by.setdefault(others[0], []).append(node.name)

    def _ends_integer_node(self, tensor: str) -> bool:
        producer = self.graph.producers.get(tensor)
        integer = producer is not None and producer.name in self.integer_nodes
        return integer and self.graph.only_reader(tensor) is not None

    def _share_concat_scales(self) -> None:
        if not self.rules.concat_shares_scale:
            return
        for node in self.graph.nodes:
            if node.op_type == "Concat" and node.output[0] in self.read_by:
                self.sharing.append((*self.graph.float_inputs(node), node.output[0]))


def _keeps_zero(graph: GraphView, clamp: onnx.NodeProto) -> bool:
    """Whether zero passes a Relu or Clip unchanged: a grid always holds zero, so it cannot clamp tighter than that."""
    low, high = (clamp.input[position] if len(clamp.input) > position else "" for position in (1, 2))
    if any(name and name not in graph.constants for name in (low, high)):
        return False
    return (not low or float(graph.constants[low]) <= 0) and (not high or float(graph.constants[high]) >= 0)


def _why_no_kernel(rules: PlacementRules, node: onnx.NodeProto) -> str | None:
    """Why a node that carries weights, itself or in its bodies, is none of the engine's weighted operators."""
    if node.op_type in WEIGHT_CARRIERS:
        return f"{rules.engine_kind} has no integer kernel for {node.op_type}"
    inside = [inner for body in subgraphs(node) for inner in all_nodes(body) if inner.op_type in WEIGHT_CARRIERS]
    return f"control flow: what it runs stays float, {inside[0].op_type} {inside[0].name} too" if inside else None


def _why_float(graph: GraphView, rules: PlacementRules, node: onnx.NodeProto, ends: frozenset[str]) -> str | None:
    """Why a weighted node cannot compute in integers; None where it can."""
    if len(node.input) < 2 or node.input[1] not in graph.constants:
        on_the_left = node.op_type == "MatMul" and node.input[0] in graph.constants
        return "its constant stands on the left" if on_the_left else "its weights are no constant"
    weight = graph.constants[node.input[1]]
    if weight.dtype != np.float32:
        return f"its weights are {weight.dtype}, expected float32"
    if node.input[0] not in graph.shapes:
        return "its input is not float32 of a fixed shape"
    if node.op_type in ("MatMul", "Gemm") and weight.ndim != 2:
        return f"its weights have {weight.ndim} dimensions, expected 2"
    if min(_channels(node, weight.shape)) < rules.min_channels:
        return f"fewer than {rules.min_channels} channels"
    return "last before a network output" if node.name in ends else None


def _channels(node: onnx.NodeProto, dims: tuple[int, ...]) -> tuple[int, int]:
    """Channels in and out of a weighted node."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return dims[0], dims[1]
    per_group = dims[1] * int(attribute_of(node, "group", 1))
    return (per_group, dims[0]) if node.op_type == "Conv" else (dims[0], per_group)


def _ahead_of(graph: GraphView, weighted: Collection[str], rules: PlacementRules) -> frozenset[str]:
    """Nodes whose values reach one of some weighted nodes before any other weighted one.

    Elsewhere 8 bits save nothing: behind a network's last layers, where results of different kinds, such as boxes and
    scores, are joined in one tensor, and in front of layers that stay float.
    """
    ahead: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op_type in rules.weighted_ops:
            wanted.update(node.input if node.name in weighted else ())
        elif not wanted.isdisjoint(node.output):
            ahead.add(node.name)
            wanted.update(tensors_read(node))
    return frozenset(ahead)


def _end_nodes(graph: GraphView, rules: PlacementRules) -> frozenset[str]:
    """Weighted nodes from which a network output is reached without passing another one."""
    ends: set[str] = set()
    seen: set[str] = set()
    open_tensors = list(graph.outputs)
    while open_tensors:
        node = graph.producers.get(open_tensors.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in rules.weighted_ops:
            ends.add(node.name)
        else:
            open_tensors.extend(node.input)
    return frozenset(ends)


def _merged(groups: Iterable[tuple[str, ...]]) -> dict[str, set[str]]:
    """Tensor → all tensors it shares a scale with, through any number of groups."""
    of: dict[str, set[str]] = {}
    for group in groups:
        union = set(group).union(*(of.get(name, ()) for name in group))
        for name in union:
            of[name] = union
    return of


def _tensor_order(graph: GraphView) -> list[str]:
    return [*graph.inputs, *(name for node in graph.nodes for name in node.output)]
