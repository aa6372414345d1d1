"""The machine a search is for: how its engines are opened, and whether their time can be measured here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from compile.backends.onnxrt import ENGINE_FILE, NodeTime, node_times, opened
from compile.job import Job
from perception.engines.engine import Engine, Tensors
from perception.files import sha256_of_bytes

TRACED_RUNS = 10


class Target(Protocol):
    """Opens engines as the target machine runs them."""

    @property
    def is_timed(self) -> bool:
        """Whether this is the machine: else a search counts multiply-adds in the place of time."""

    @property
    def build_seconds(self) -> tuple[float, ...] | None:
        """How long each build so far took, where an engine must be built for minutes: then a search builds few, and
        reckons the others' time from theirs. None where engines open at once.
        """

    @property
    def engine_file(self) -> str:
        """Name of the engine in its package."""

    @property
    def requires(self) -> dict[str, str]:
        """What must match where an engine is opened, as preflight reads it."""

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """An engine from a candidate's ONNX bytes as it will run, closed at the end.

        Raises:
            EngineError: it does not open.
        """

    def simulated(self, content: bytes) -> AbstractContextManager[Engine]:
        """The same as a search tries it, many times: the same grids, without what takes minutes.

        Raises:
            EngineError: it does not open.
        """

    def timed_as(self, content: bytes) -> str:
        """Engines of one name take the same time, so that one of them is timed for all."""

    def preparing_s(self, content: bytes) -> float:
        """How long it takes until `opened` has an engine, where that is a build of minutes; 0 where it is not, or was
        built before.
        """

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """Where the time of one inference goes.

        Raises:
            EngineError: it does not open or run.
        """

    def serialised(self, content: bytes) -> bytes:
        """The engine that ships."""

    def beside(self, content: bytes) -> Mapping[str, bytes]:
        """Files that ship beside it."""

    def proof(self, content: bytes, feeds: Tensors) -> dict[str, float]:
        """What the engine answers where nothing of its build is in memory, against the same grids computed in float:
        output → signal over noise in decibel. Empty where an engine is not built.

        Raises:
            EngineError: it does not open, or answers with what is no number.
        """


@dataclass(frozen=True, slots=True)
class OnnxRuntimeTarget:
    """ONNX Runtime on this CPU."""

    threads: int
    is_timed: bool = True
    build_seconds: tuple[float, ...] | None = None
    engine_file: str = ENGINE_FILE

    @property
    def requires(self) -> dict[str, str]:
        """See `Target`."""
        return {"onnxruntime": f">={version('onnxruntime')}"}

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`."""
        return opened(content, threads=self.threads)

    def simulated(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`: it opens at once, so it is tried as it is."""
        return self.opened(content)

    def timed_as(self, content: bytes) -> str:
        """See `Target`."""
        return sha256_of_bytes(content)

    def preparing_s(self, content: bytes) -> float:
        """See `Target`."""
        return 0.0

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """See `Target`."""
        return node_times(content, feeds, threads=self.threads, runs=TRACED_RUNS)

    def serialised(self, content: bytes) -> bytes:
        """See `Target`: the runtime optimises plain ONNX at every open."""
        return content

    def beside(self, content: bytes) -> Mapping[str, bytes]:
        """See `Target`."""
        return {}

    def proof(self, content: bytes, feeds: Tensors) -> dict[str, float]:
        """See `Target`."""
        return {}


@dataclass(frozen=True, slots=True)
class SimulatedTarget(OnnxRuntimeTarget):
    """Another machine's integers, computed here in float behind the same grids: its accuracy without its speed."""

    is_timed: bool = False

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`."""
        return opened(content, threads=self.threads, integers=False)

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """See `Target`: nothing is timed."""
        return []


def open_target(job: Job) -> Target:
    """The target of a compilation's profile.

    Raises:
        EngineError, ProfileError: its library or its GPU is missing.
    """
    if job.profile.engine_kind == "tensorrt":
        from compile.backends.tensorrt_target import TensorRtTarget  # a vehicle's GPU is not everybody's

        return TensorRtTarget.of_job(job)
    return OnnxRuntimeTarget(job.threads)
