"""A stand-in for the process that talks to TensorRT: it builds nothing and answers by ONNX Runtime, as slowly as told.

    python STAND_IN -m perception.engines.tensorrt_worker FOLDER VERB        (as the parent calls its interpreter)

COSTS_MS says what each convolution takes as float, as half and in 8 bits, each by its name or by `other`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.backends.onnxrt import opened
from perception.engines.onnxrt import OnnxRuntimeEngine


def plan_of(network: bytes, settings: bytes) -> bytes:
    """A plan: the settings in the first line, then the network."""
    return json.dumps(json.loads(settings)).encode() + b"\n" + network


def costs_ms(plan: bytes, told: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Convolution → what it takes, by what it computes in."""
    settings, _, network = plan.partition(b"\n")
    half = "FP16" in json.loads(settings)["flags"]
    graph = onnx.load_model_from_string(network).graph
    in_8_bits = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            kind = "int8" if node.input[0] in in_8_bits else "half" if half else "float"
            found[node.name] = told[kind].get(node.name, told[kind]["other"])
        elif node.op_type == "BatchNormalization":
            found[node.name] = told["scale"]["other"]
    return found


class Clock:
    """In the place of `time`: it goes on when an engine says how long it took."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns


class SlowEngine(OnnxRuntimeEngine):
    """The plan's network, as fast as it is said to be by a clock of its own."""

    def __init__(self, plan: bytes, told: Mapping[str, Mapping[str, float]], clock: Clock) -> None:
        super().__init__(plan.partition(b"\n")[2], threads=1, integers=False)
        self._takes_ns, self._clock = round(sum(costs_ms(plan, told).values()) * 1e6), clock

    def infer(self, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        self._clock.now_ns += self._takes_ns
        return dict(super().infer(feeds))


def main(folder: Path, verb: str) -> int:
    """Do what the worker does."""
    told = json.loads(os.environ["COSTS_MS"])
    plan = folder / "engine.plan"
    if verb == "build":
        settings = (folder / "options.json").read_bytes()
        if os.environ.get("REFUSED_FLAG", "none") in json.loads(settings)["flags"]:
            sys.stdout.write(json.dumps({"event": "log", "severity": "ERROR", "message": "Assertion x failed."}) + "\n")
            return 1
        plan.write_bytes(plan_of((folder / "model.onnx").read_bytes(), settings))
        timings = folder / "timing.cache"
        known = timings.read_bytes() if timings.is_file() else b""
        timings.write_bytes(known + b"a build\n")
        return 0
    with np.load(folder / "feeds.npz") as feeds:
        stacked = {name: feeds[name] for name in feeds.files}
    if verb == "layers":
        (folder / "layers.json").write_text(json.dumps(costs_ms(plan.read_bytes(), told)))
        return 0
    with opened(plan.read_bytes().partition(b"\n")[2], threads=1, integers=False) as engine:
        answers = engine.infer({name: stack[0] for name, stack in stacked.items()})
        np.savez(folder / "answers.npz", **{name: value[None] for name, value in answers.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[3]), sys.argv[4]))
