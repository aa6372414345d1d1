"""ONNX Runtime on a clock of its own: an engine takes what its convolutions take, however busy this machine is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import compile.shipment
import compile.target
import compile.timing
from compile.backends.onnxrt import NodeTime
from perception.engines.onnxrt import OnnxRuntimeEngine
from tests.compile.tensorrt_stand_in import Clock

FLOAT_US, INTEGER_US = 200.0, 100.0


def node_times(content: bytes, feeds: object, **options: object) -> list[NodeTime]:
    """Every convolution with its time: half as much where its pixels come in 8 bits."""
    graph = onnx.load_from_string(content).graph
    in_8_bits = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [
        NodeTime(node.name, node.op_type, INTEGER_US if node.input[0] in in_8_bits else FLOAT_US)
        for node in graph.node
        if node.op_type == "Conv"
    ]


class TimedEngine(OnnxRuntimeEngine):
    """The real engine, whose runs put the clock forward."""

    def __init__(self, content: bytes, clock: Clock, **options: object) -> None:
        super().__init__(content, **options)
        self._takes_ns, self._clock = round(sum(time.mean_us for time in node_times(content, None)) * 1e3), clock

    def infer(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        self._clock.now_ns += self._takes_ns
        return dict(super().infer(feeds))


@contextmanager
def steady_clock() -> Iterator[None]:
    """Compilations for the CPU inside are timed by it."""
    clock = Clock()

    @contextmanager
    def opened(content: bytes, **options: object) -> Iterator[OnnxRuntimeEngine]:
        engine = TimedEngine(content, clock, **options)
        yield engine
        engine.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile.timing, "time", clock)
        patch.setattr(compile.target, "opened", opened)
        patch.setattr(compile.shipment, "opened", opened)
        patch.setattr(compile.target, "node_times", node_times)
        yield
