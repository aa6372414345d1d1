"""The network's weighted layers in a table: what each became, why, what it loses, what it takes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import onnx
from pydantic import JsonValue

from compile.backends.onnxrt import NodeTime
from compile.graph import GraphView

_SUFFIX = re.compile(r"_token_\d+$|_nchwc$")


def times_of_nodes(times: Sequence[NodeTime], graph: GraphView) -> dict[str, float]:
    """Node of the graph → microseconds, as far as the runtime's names tell.

    ONNX Runtime names a fused node after one of the nodes, or after the tensor it makes, with a suffix.
    """
    names = {node.name for node in graph.nodes}
    found: dict[str, float] = defaultdict(float)
    for time in times:
        name = _SUFFIX.sub("", time.name)
        if name not in names and name in graph.producers:
            name = _weighted_before(name, graph)
        if name in names:
            found[name] += time.mean_us
    return dict(found)


def _weighted_before(tensor: str, graph: GraphView) -> str:
    """The convolution that makes a tensor, through the activation that was fused behind it."""
    node = graph.producers[tensor]
    before = [graph.producers[name] for name in node.input if name in graph.producers]
    if node.op_type != "Conv" and before and before[0].op_type == "Conv":
        return str(before[0].name)
    return str(node.name)


def layers_document(
    layers: Iterable[onnx.NodeProto],
    *,
    integer_nodes: frozenset[str],
    why_float: Mapping[str, str],
    recipes: Mapping[str, str],
    figures: Mapping[str, Mapping[str, float]],
) -> list[JsonValue]:
    """For JSON: every weighted layer in the network's order.

    Args:
        layers: the weighted ones of the float network.
        integer_nodes: what computes in integers in the engine that ships.
        why_float: node → why it does not.
        recipes: node → how its 8 bits are made, in words.
        figures: `macs`, `loss`, `task_effect`, `time_us_float`, `time_us` → node → figure, as far as known.
    """
    return [
        {
            "node": node.name,
            "op_type": node.op_type,
            "precision": "int8" if node.name in integer_nodes else "float",
            "why": why_float.get(node.name, ""),
            "recipe": recipes.get(node.name, "") if node.name in integer_nodes else "",
            **{kind: values.get(node.name) for kind, values in figures.items()},
        }
        for node in layers
    ]
