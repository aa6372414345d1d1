"""The smoke run: a release's recorded frames through its engine on this machine, held against what was recorded.

A recording is one `.npz` without pickles: for each frame its picture as PNG and every output tensor of the engine that
passed the gates. On the vehicle each frame goes through the whole pipeline again. What is judged is a short gate set:
the tensors, what users of the model see in them, and the time it takes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from perception.agent.index import Tolerance
from perception.agreement import agreed_on
from perception.engines.engine import TensorInfo, Tensors
from perception.errors import VerificationError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import Pipeline, open_pipeline
from perception.results import Result

ROUNDS = 5


class Check(BaseModel):
    """One gate of the short set: passed where `got` is at most `limit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    got: float | None
    limit: float
    unit: str
    samples: int

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; a figure that is none never does."""
        return self.got is not None and math.isfinite(self.got) and self.got <= self.limit

    def __str__(self) -> str:
        got = "no number" if self.got is None else f"{self.got:.4g}"
        return f"{self.name}: got {got}, at most {self.limit:.4g} ({self.unit}, {self.samples} frames)"


@dataclass(frozen=True, slots=True)
class _Recorded:
    picture: NDArray[np.uint8]
    outputs: Mapping[str, NDArray[np.generic]]


def record(package: EnginePackage, frames: Sequence[Frame]) -> bytes:
    """Run frames through a package and keep pictures and output tensors.

    Raises:
        EngineError: the engine failed.
        ValueError: no frame.
    """
    if not frames:
        raise ValueError("a smoke run needs at least one frame; got none")
    arrays: dict[str, NDArray[np.generic]] = {}
    with open_pipeline(package) as pipeline:
        for number, frame in enumerate(frames):
            _, png = cv2.imencode(".png", frame.pixels)
            arrays[f"{number:03d}/picture"] = png
            for name, tensor in pipeline.engine.infer(pipeline.prepare(frame)).items():
                arrays[f"{number:03d}/output/{name}"] = tensor.copy()
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def measure(package: EnginePackage, recording: bytes, tolerance: Tolerance) -> tuple[Check, ...]:
    """Run the recorded frames through a package on this machine, and judge.

    Raises:
        PreflightError: this machine may not run the package.
        EngineError: the engine does not open, or fails.
        VerificationError: the recording cannot be read.
    """
    recorded = tuple(_read(recording))
    with open_pipeline(package) as pipeline:
        checks = _against_recorded(pipeline, recorded, tolerance)
        return (*checks, _latency(pipeline, recorded, tolerance.latency_p90_ms))


def _against_recorded(pipeline: Pipeline, recorded: Sequence[_Recorded], tolerance: Tolerance) -> tuple[Check, Check]:
    played = _Played(pipeline.engine.inputs, pipeline.engine.outputs)
    reference = Pipeline(pipeline.spec, played, deadline_ns=1)
    differences: dict[str, list[tuple[float, float]]] = {}
    disagreements = []
    for number, each in enumerate(recorded):
        frame = _frame(each, number)
        played.answer = each.outputs
        expected = reference.step(frame).result
        got = pipeline.engine.infer(pipeline.prepare(frame))
        for name, tensor in each.outputs.items():
            differences.setdefault(name, []).append(_squares(got[name], tensor))
        disagreements.append(_disagreement(pipeline.step(frame).result, expected))
    return (
        Check(name="relative_error", got=_number(max(map(_relative, differences.values()))),
              limit=tolerance.relative_error, unit="ratio", samples=len(recorded)),
        Check(name="disagreement", got=_number(_share(disagreements)), limit=tolerance.disagreement, unit="ratio",
              samples=len(recorded)),
    )  # fmt: skip


def _latency(pipeline: Pipeline, recorded: Sequence[_Recorded], limit_ms: float) -> Check:
    """The 90th percentile after one round of warming up."""
    frames = [_frame(each, number) for number, each in enumerate(recorded)]
    for frame in frames:
        pipeline.step(frame)
    times_ns = [pipeline.step(frame).timings.total_ns for _ in range(ROUNDS) for frame in frames]
    p90_ms = float(np.percentile(times_ns, 90, method="higher")) / 1e6
    return Check(name="latency_p90", got=p90_ms, limit=limit_ms, unit="ms", samples=len(times_ns))


class _Played:
    """An engine that answers what was recorded, so that recorded tensors are decoded as new ones are."""

    def __init__(self, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.answer: Tensors = {}

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        return self.answer

    def close(self) -> None:
        """See `Engine.close`."""


def _read(recording: bytes) -> Iterator[_Recorded]:
    try:
        with np.load(io.BytesIO(recording), allow_pickle=False) as arrays:
            names = arrays.files
            for number in sorted({name.split("/")[0] for name in names}):
                prefix = f"{number}/output/"
                outputs = {name.removeprefix(prefix): arrays[name] for name in names if name.startswith(prefix)}
                picture = cv2.imdecode(arrays[f"{number}/picture"], cv2.IMREAD_COLOR)
                yield _Recorded(np.asarray(picture, np.uint8), outputs)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, cv2.error) as error:
        raise VerificationError(
            f"the smoke run's recording cannot be read ({error}); publish the release again"
        ) from error


def _frame(recorded: _Recorded, number: int) -> Frame:
    return Frame(recorded.picture, "smoke", number, number, f"{number:03d}")


def _squares(got: NDArray[np.generic], expected: NDArray[np.generic]) -> tuple[float, float]:
    """Sum of squares of the difference, and of what was recorded."""
    if got.shape != expected.shape:
        return math.inf, 1.0
    wanted = expected.astype(np.float64)
    return float(np.sum((got.astype(np.float64) - wanted) ** 2)), float(np.sum(wanted**2))


def _relative(squares: Sequence[tuple[float, float]]) -> float:
    difference, reference = np.sum(squares, axis=0)
    if difference == 0:
        return 0.0
    return math.sqrt(difference / reference) if reference else math.inf


def _disagreement(got: Result | None, expected: Result | None) -> tuple[int, int]:
    """How many objects or cells only one of both reports, and how many both report, each counted for itself."""
    if got is None or expected is None:
        return 1, 1
    try:
        said = agreed_on(expected, got, score=0.0)
    except ValueError:
        return 1, 1
    return said.apart, said.told


def _share(counts: Sequence[tuple[int, int]]) -> float:
    only_one, total = np.sum(counts, axis=0)
    return float(only_one / total) if total else 0.0


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
