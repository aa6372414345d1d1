"""A read-only view of the graph to be quantized: who makes a tensor, who reads it, its shape, and what is constant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.onnx_graph import UNKNOWN_SIDE, constants, consumers, element_types_of, producers, shapes_of


@dataclass(frozen=True, slots=True)
class GraphView:
    """Look-ups over an imported model: distinct node names, inferred shapes, initializers not listed as inputs.

    Attributes:
        model: the model looked at; nobody writes to it through the view.
        producers: tensor → the node that makes it.
        readers: tensor → the nodes that read it, in graph order, each once.
        constants: initializers by name.
        shapes: shape of every float32 activation tensor whose sides are all known.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
    """

    model: onnx.ModelProto
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, tuple[onnx.NodeProto, ...]]
    constants: Mapping[str, NDArray[np.generic]]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> GraphView:
        """Index an imported model."""
        graph = model.graph
        fixed = constants(graph)
        types = element_types_of(graph)
        return cls(
            model=model,
            producers=producers(graph),
            readers={name: tuple(nodes) for name, nodes in consumers(graph).items()},
            constants=fixed,
            shapes={
                name: shape
                for name, shape in shapes_of(graph).items()
                if name not in fixed and types.get(name) == onnx.TensorProto.FLOAT and UNKNOWN_SIDE not in shape
            },
            inputs=tuple(value.name for value in graph.input),
            outputs=tuple(value.name for value in graph.output),
        )

    @property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        """All nodes, in graph order."""
        return tuple(self.model.graph.node)

    def float_inputs(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """The float32 activation tensors a node reads, each once."""
        return tuple(dict.fromkeys(name for name in node.input if name in self.shapes))

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The node that reads `tensor`, where there is exactly one and the tensor is no graph output."""
        readers = self.readers.get(tensor, ())
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def bytes_of(self, tensor: str) -> int:
        """Memory a float32 activation tensor takes."""
        return 4 * prod(self.shapes[tensor])


def operators_of(graph: onnx.GraphProto) -> bytes:
    """What a graph computes but for its numbers and names: operators, attributes, wiring, shapes of constants."""
    sides = {tensor.name: [tensor.data_type, *tensor.dims] for tensor in graph.initializer}
    numbers = {value.name: str(at) for at, value in enumerate(graph.input)}
    told: list[object] = []
    for at, node in enumerate(graph.node):
        read = [sides.get(name) or numbers.get(name, name) for name in node.input]
        attributes = sorted(attribute.SerializeToString(deterministic=True).hex() for attribute in node.attribute)
        told.append([node.op_type, read, attributes])
        numbers.update((name, f"{at}.{place}") for place, name in enumerate(node.output))
    return json.dumps([told, [numbers.get(value.name, value.name) for value in graph.output]]).encode()
