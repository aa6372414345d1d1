"""Two engines on the same frames: how far apart their tensors are, and whether it shows in what they report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import agreement
from compile.grading import NO_DEADLINE_NS, agreement_both_ways, total_agreement
from perception.engines.engine import Engine, TensorInfo, Tensors
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.results import Result


class TappedEngine:
    """An engine that remembers what it answered last, so that a pipeline's tensors can be looked at."""

    def __init__(self, engine: Engine) -> None:
        """Wrap an open engine, which stays the caller's."""
        self._engine = engine
        self.inputs: tuple[TensorInfo, ...] = engine.inputs
        self.outputs: tuple[TensorInfo, ...] = engine.outputs
        self.answer: Tensors = {}

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        self.answer = self._engine.infer(feeds)
        return self.answer

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """One output tensor over all frames.

    Attributes:
        sqnr_db: signal to noise in decibel, the reference being the signal; infinite where equal.
    """

    tensor: str
    largest: float
    mean: float
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a candidate is from its reference.

    Attributes:
        frames: how many were compared.
        outputs: differences of the raw tensors.
        agreement: share of what either reports that both report.
        worst_frame: name of the frame on which they agree least.
        worst_agreement: how much they agree there.
    """

    frames: int
    outputs: tuple[OutputDifference, ...]
    agreement: float
    worst_frame: str
    worst_agreement: float

    def document(self) -> dict[str, JsonValue]:
        """For JSON; None stands for an infinite ratio."""
        return {
            "frames": self.frames,
            "agreement": self.agreement,
            "worst_frame": self.worst_frame,
            "worst_agreement": self.worst_agreement,
            "outputs": [
                {
                    "tensor": output.tensor,
                    "largest": output.largest,
                    "mean": output.mean,
                    "sqnr_db": output.sqnr_db if math.isfinite(output.sqnr_db) else None,
                }
                for output in self.outputs
            ],
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """An open engine and how to feed and read it: two engines compared may take their pixels differently."""

    spec: ModelSpec
    engine: Engine


def compare(reference: Subject, candidate: Subject, frames: Iterable[Frame], *, advance: Callable[[], None]) -> Parity:
    """Run both on every frame.

    Raises:
        ValueError: no frame was given.
    """
    tapped = TappedEngine(reference.engine), TappedEngine(candidate.engine)
    pipelines = [
        Pipeline(subject.spec, engine, deadline_ns=NO_DEADLINE_NS)
        for subject, engine in zip((reference, candidate), tapped, strict=True)
    ]
    sums = {output.name: _Difference() for output in reference.engine.outputs}
    names: list[str] = []
    results: list[tuple[Result, Result]] = []
    for frame in frames:
        first, second = (pipeline.step(frame).result for pipeline in pipelines)
        if first is None or second is None:
            raise RuntimeError(f"frame {frame.name}: a lock-step pipeline skipped it")
        for name, difference in sums.items():
            difference.add(tapped[0].answer[name], tapped[1].answer[name])
        names.append(frame.name)
        results.append((first, second))
        advance()
    return _parity(names, results, sums)


def _parity(names: list[str], results: list[tuple[Result, Result]], sums: dict[str, _Difference]) -> Parity:
    if not results:
        raise ValueError("frames: got none, expected at least one to compare on")
    agreed = agreement([first for first, _ in results], [second for _, second in results])
    by_frame = agreement_both_ways(agreed)
    worst = int(by_frame.argmin())
    return Parity(
        frames=len(results),
        outputs=tuple(difference.finished(name) for name, difference in sums.items()),
        agreement=total_agreement(agreed),
        worst_frame=names[worst],
        worst_agreement=float(by_frame[worst]),
    )


class _Difference:
    """Running sums over one output."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.total = 0.0
        self.signal_2 = 0.0
        self.error_2 = 0.0
        self.values = 0

    def add(self, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        signal = reference.astype(np.float64)
        error = np.abs(candidate.astype(np.float64) - signal)
        self.largest = max(self.largest, float(error.max(initial=0.0)))
        self.total += float(error.sum())
        self.signal_2 += float((signal**2).sum())
        self.error_2 += float((error**2).sum())
        self.values += error.size

    def finished(self, tensor: str) -> OutputDifference:
        ratio = self.signal_2 / self.error_2 if self.error_2 > 0 else math.inf
        sqnr_db = 10 * math.log10(ratio) if ratio > 0 else -math.inf
        return OutputDifference(tensor, self.largest, self.total / max(self.values, 1), sqnr_db)
