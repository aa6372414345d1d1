"""Engines that run a real network and have one fault each."""

from __future__ import annotations

import time

import numpy as np

from perception.engines.engine import Tensors, Wait
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.engines.table import ENGINES

STALL_EVERY, STALL_S = 700, 0.020
LEAK_BYTES, HOARD_BYTES = 4096, 300 << 20
SETTLED_AT, SETTLED_BYTES = 1050, 2_000_000
DARK, DAZZLED_CALLS = 0.01, 6


class StallingEngine(OnnxRuntimeEngine):
    """Sleeps 20 ms in one call of seven hundred."""

    calls = 0

    def infer(self, feeds: Tensors) -> Tensors:
        self.calls += 1
        if self.calls % STALL_EVERY == 0:
            time.sleep(STALL_S)
        return super().infer(feeds)


class WanderingEngine(OnnxRuntimeEngine):
    """Its answers move by a bit in the last place with every call, as a counter in shared memory would move them."""

    calls = 0

    def infer(self, feeds: Tensors) -> Tensors:
        self.calls += 1
        answers = super().infer(feeds)
        return {name: np.nextafter(value, np.float32(self.calls % 2)) for name, value in answers.items()}


class RememberingEngine(OnnxRuntimeEngine):
    """Its answers depend on how much it has seen since it was opened."""

    calls = 0

    def infer(self, feeds: Tensors) -> Tensors:
        self.calls += 1
        return {name: value * np.float32(1 + 1e-6 * self.calls) for name, value in super().infer(feeds).items()}


class DicingEngine(OnnxRuntimeEngine):
    """Each time it is opened it is another engine, as one that picks its kernels by timing them."""

    def __init__(self, content: bytes, *, threads: int, wait: Wait = "auto") -> None:
        super().__init__(content, threads=threads, wait=wait)
        self._scale = np.float32(1 + 1e-3 * np.random.default_rng().random())

    def infer(self, feeds: Tensors) -> Tensors:
        return {name: value * self._scale for name, value in super().infer(feeds).items()}


class LeakingEngine(OnnxRuntimeEngine):
    """Keeps a page of memory with every call."""

    def __init__(self, content: bytes, *, threads: int, wait: Wait = "auto") -> None:
        super().__init__(content, threads=threads, wait=wait)
        self._kept: list[bytearray] = []

    def infer(self, feeds: Tensors) -> Tensors:
        self._kept.append(bytearray(b"x" * LEAK_BYTES))
        return super().infer(feeds)


class SettlingEngine(OnnxRuntimeEngine):
    """Takes 2 MB once, in the middle of a soak, as an allocator does that opens another arena."""

    calls, kept = 0, b""

    def infer(self, feeds: Tensors) -> Tensors:
        self.calls += 1
        if self.calls == SETTLED_AT:
            self.kept = bytes(b"x" * SETTLED_BYTES)
        return super().infer(feeds)


class HoardingEngine(OnnxRuntimeEngine):
    """Takes 300 MB at once and keeps them."""

    def __init__(self, content: bytes, *, threads: int, wait: Wait = "auto") -> None:
        super().__init__(content, threads=threads, wait=wait)
        self._kept = bytearray(b"x" * HOARD_BYTES)


class DazzledEngine(OnnxRuntimeEngine):
    """Once it saw a black picture it finds nothing for a while."""

    blind_for = 0

    def infer(self, feeds: Tensors) -> Tensors:
        answers = super().infer(feeds)
        if max(float(value.max()) for value in feeds.values()) < DARK:
            self.blind_for = DAZZLED_CALLS
        elif self.blind_for > 0:
            self.blind_for -= 1
            return {name: value * 0 for name, value in answers.items()}
        return answers


FAULTY = {
    "stalling": "StallingEngine",
    "wandering": "WanderingEngine",
    "remembering": "RememberingEngine",
    "dicing": "DicingEngine",
    "leaking": "LeakingEngine",
    "settling": "SettlingEngine",
    "hoarding": "HoardingEngine",
    "dazzled": "DazzledEngine",
}


def register() -> None:
    """Make the faulty kinds known in this process, beside the sound ones."""
    ENGINES.update({kind: (__name__, name) for kind, name in FAULTY.items()})
