"""A fixed answer after a fixed time: what the host side costs, and what a slow engine does to it."""

from __future__ import annotations

import json
import time

import numpy as np
from numpy.typing import NDArray

from perception.engines.engine import TensorInfo, Tensors, Wait
from perception.errors import EngineError


class NullEngine:
    """Answers every call with the same tensors after busy-waiting `service_ms`.

    Its file is JSON: `{"inputs": [[name, shape, dtype], …], "outputs": [[name, shape, dtype, fill], …],
    "service_ms": 0}`.
    """

    def __init__(
        self,
        inputs: tuple[TensorInfo, ...],
        answers: dict[str, NDArray[np.generic]],
        *,
        service_ms: float,
        wait: Wait = "auto",
    ) -> None:
        """Hold the answer.

        Args:
            inputs: what must be fed.
            answers: output name → the array given back at every call.
            service_ms: how long a call takes, in milliseconds.
            wait: `blocking` passes that time asleep.
        """
        self.inputs = inputs
        self.outputs = tuple(TensorInfo(name, a.shape, a.dtype.name) for name, a in answers.items())
        self._answers = answers
        self._service_ns = int(service_ms * 1e6)
        self._sleeps = wait == "blocking"

    @classmethod
    def from_bytes(cls, content: bytes, *, threads: int, wait: Wait = "auto") -> NullEngine:
        """Open from the JSON described at the class; `threads` are of no use.

        Raises:
            EngineError: not that JSON.
        """
        try:
            fields = json.loads(content)
            inputs = tuple(TensorInfo(name, tuple(shape), dtype) for name, shape, dtype in fields["inputs"])
            answers = {name: np.full(shape, fill, dtype=dtype) for name, shape, dtype, fill in fields["outputs"]}
            return cls(inputs, answers, service_ms=float(fields["service_ms"]), wait=wait)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"null engine: not its JSON ({error}); see perception.engines.null") from error

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        for tensor in self.inputs:
            if not tensor.admits(feeds[tensor.name].shape):
                raise ValueError(
                    f"input {tensor.name}: got {list(feeds[tensor.name].shape)}, expected {list(tensor.shape)}"
                )
        if self._sleeps:
            time.sleep(self._service_ns / 1e9)
            return self._answers
        until_ns = time.perf_counter_ns() + self._service_ns
        while time.perf_counter_ns() < until_ns:
            pass
        return self._answers

    def close(self) -> None:
        """See `Engine.close`."""
