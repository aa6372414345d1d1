"""Whether it pays to launch a frame's graph before the frame is there."""

from __future__ import annotations

import time
from typing import Any

from cuda.bindings import driver  # type: ignore[import-not-found, unused-ignore]

from perception.engines.cuda_device import CudaDevice, pinned
from perception.engines.cuda_graph import Launch
from scripts.tensorrt_bench.book import Book, regular_service
from scripts.tensorrt_bench.sides import Side
from scripts.tensorrt_bench.tails import made, spread

IDLE_NS, TURN = 300_000, 200
_EQUAL = 1  # CU_STREAM_WAIT_VALUE_EQ


def armed(side: Side, device: CudaDevice, book: Book, *, count: int) -> None:
    """Both ways in turn, idle for a while before each frame.

    The armed graph begins with a wait for a word in the host's memory: a frame then costs one store, not a launch.
    """
    word = _word(device)
    handle = driver.CUstream(side.stream.handle)

    def held() -> None:
        made(driver.cuStreamWaitValue32(handle, int(word.base.get_device_pointer()), 1, _EQUAL))
        side.enqueue()

    with device.current("arming a graph"):
        word[0] = 1
        graphs = {"armed": Launch(side.stream, held), "launched": Launch(side.stream, side.enqueue)}
    print(" ", {name: launch.why_not or "captured" for name, launch in graphs.items()}, flush=True)
    if not graphs["armed"].captured:
        return
    times_us: dict[str, list[float]] = {name: [] for name in graphs}
    with regular_service(book), device.current("running armed graphs"):
        for number in range(count):
            name = "armed" if number // TURN % 2 else "launched"
            times_us[name].append(_one(graphs[name], side, word if name == "armed" else None))
        word[0] = 1
    for name, times in times_us.items():
        us = spread(times)
        book.row(f"{side.name}, idle before each frame, {name}, p50", us["p50"] / 1e3, unit="ms", samples=len(times))
        book.row(
            f"{side.name}, idle before each frame, {name}, p99.9 over p50", us["p99.9"] / us["p50"], unit="ratio",
            samples=len(times),
        )  # fmt: skip
    for launch in graphs.values():
        launch.close()


def _one(launch: Launch, side: Side, word: Any) -> float:  # noqa: ANN401
    """µs from the frame being there to its detections."""
    if word is not None:
        word[0] = 0
        launch.start()
    _idle(IDLE_NS)
    begun_ns = time.perf_counter_ns()
    if word is None:
        launch.start()
    else:
        word[0] = 1
    side.stream.synchronize()
    side.read()
    return (time.perf_counter_ns() - begun_ns) / 1e3


def _idle(ns: int) -> None:
    until_ns = time.perf_counter_ns() + ns
    while time.perf_counter_ns() < until_ns:
        pass


def _word(device: CudaDevice) -> Any:  # noqa: ANN401
    """One word of page-locked memory that the GPU sees."""
    with device.current("allocating a word"):
        return pinned((1,), "uint32")
