"""The machine a search is for: how its engines are opened, and whether their time can be measured here."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from compile.backends.onnxrt import NodeTime, node_times, opened
from perception.engines.engine import Engine, Tensors

TRACED_RUNS = 10


class Target(Protocol):
    """Opens engines as the target machine runs them."""

    @property
    def is_timed(self) -> bool:
        """Whether this is the machine: else a search counts multiply-adds in the place of time."""

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """An engine from a candidate's ONNX bytes, closed at the end.

        Raises:
            EngineError: it does not open.
        """

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """Where the time of one inference goes.

        Raises:
            EngineError: it does not open or run.
        """


@dataclass(frozen=True, slots=True)
class OnnxRuntimeTarget:
    """ONNX Runtime on this CPU."""

    threads: int

    @property
    def is_timed(self) -> bool:
        """See `Target`."""
        return True

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`."""
        return opened(content, threads=self.threads)

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """See `Target`."""
        return node_times(content, feeds, threads=self.threads, runs=TRACED_RUNS)


@dataclass(frozen=True, slots=True)
class SimulatedTarget:
    """Another machine's integers, computed here in float behind the same grids: its accuracy without its speed."""

    threads: int

    @property
    def is_timed(self) -> bool:
        """See `Target`."""
        return False

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`."""
        return opened(content, threads=self.threads, integers=False)

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """See `Target`: nothing is timed."""
        return []
