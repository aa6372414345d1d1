"""TensorRT's own words as sentences that name the ONNX node. Imports no TensorRT."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx

from perception.engines.cuda_faults import DeviceMemoryError, fault_of
from perception.engines.tensorrt_process import BuildEvents, plain
from perception.errors import EngineError, ModelError, TollgateError


def error_of(events: BuildEvents, graph: onnx.GraphProto, *, exit_status: int) -> TollgateError:
    """The error to raise for a build that gave no plan.

    Args:
        events: what the worker told.
        graph: the model's graph, whose node names are looked for.
        exit_status: of the worker; negative where a signal ended it.
    """
    if events.refused:
        return _refusal(events.refused[0], graph)
    for line in events.errors:
        fault = fault_of(line, doing="building a TensorRT engine")
        if isinstance(fault, DeviceMemoryError):
            return fault
    named = [(names, line) for line in events.errors if (names := nodes_named(line, graph))]
    if named:
        names, line = named[0]
        kinds = {node.name: node.op_type for node in graph.node}
        told = ", ".join(f"{name} ({kinds[name]})" for name in names[:3])
        return ModelError(
            f"node {told}: TensorRT cannot build it: {plain(line)}; keep it in float, or change the model"
        )
    if events.errors or events.failed:
        return EngineError(f"TensorRT gave no engine: {plain((*events.errors, *events.failed)[0])}")
    ended = f"signal {-exit_status}" if exit_status < 0 else f"status {exit_status}"
    return EngineError(f"TensorRT's builder ended without a word ({ended}); run again with a lower builder level")


def nodes_named(text: str, graph: onnx.GraphProto) -> list[str]:
    """Names of the graph's nodes that stand in a line or in a layer's name, in the order they stand there."""
    apart = text.replace("...", " ... ")  # a fused layer is called {ForeignNode[first...last]}
    places = {}
    for node in graph.node:
        if not node.name or node.name not in apart:  # spares hundreds of patterns a layer
            continue
        if found := re.search(rf"(?<![\w./:-]){re.escape(node.name)}(?![\w/-]|[.:]+\w)", apart):
            places[node.name] = found.start()
    return sorted(places, key=lambda name: places[name])


def _refusal(event: Mapping[str, object], graph: onnx.GraphProto) -> ModelError:
    number = int(str(event["node"]))
    words = plain(str(event["message"]))
    if not 0 <= number < len(graph.node):
        return ModelError(f"model: TensorRT's parser refuses it: {words}")
    node = graph.node[number]
    return ModelError(f"node {node.name or number} ({node.op_type}): TensorRT's parser refuses it: {words}")
