"""What a contender is, and what it leaves behind when it was built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.benchmarks.int8.material import Material

EngineKind = Literal["onnxrt", "rounded", "openvino"]
ENGINE_FILES: dict[EngineKind, str] = {"onnxrt": "engine.onnx", "rounded": "engine.onnx", "openvino": "engine.xml"}

FLOAT, OURS, OURS_INT8, OURS_TENSORRT = "float", "ours", "ours, int8 demanded", "ours, TensorRT placement"
OPENVINO_FLOAT = "OpenVINO float"
SECOND_RUN, MANY_FRAMES = "ours, second run", "ours, 512 frames"
PROBED = "yolox_nano_416"
"""The model whose search time, second run and memory are promised."""


class RefusedError(Exception):
    """A contender that works as meant and yet gives no engine: it found none good enough, or needs none."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build came to; the engine lies in its folder under its kind's name in `ENGINE_FILES`.

    Attributes:
        kind: who runs it; `rounded` is ONNX Runtime rounding to the grids and computing in float, as a stand-in for
            an engine that is not here.
        int8_share: share of the multiply-adds that compute in INT8.
        note: what else there is to know.
    """

    kind: EngineKind
    int8_share: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to an engine.

    Attributes:
        name: of its folder and its rows.
        build: makes the engine in a folder; whatever it raises is a failed row.
        timed: its latency means something on this machine.
        graded: False for a build that is only watched for its time and memory.
        only: the model it is built for; None builds it for all.
    """

    name: str
    build: Callable[[Material, Path], Built]
    timed: bool = True
    graded: bool = True
    only: str | None = None
