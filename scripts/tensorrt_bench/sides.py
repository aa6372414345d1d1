"""What the tails are looked for in: one 1080p camera in both kinds of memory, six together, and the bare floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import pycuda.driver as cuda

from perception.engines.cuda_device import pinned
from perception.engines.cuda_frame import FrameLayout
from perception.engines.lending import Pixels
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_cameras import BatchedCameras, ForkedCameras
from perception.engines.tensorrt_frames import FrameMemory, FramePath
from scripts.tensorrt_bench.cases import CAMERAS, Case

FULL_HD = FrameLayout(1920, 1080)
MEMORIES: tuple[FrameMemory, ...] = ("copied", "mapped")
ANSWER_BYTES = 8 * 1024 + 8


@dataclass(frozen=True, slots=True)
class Side:
    """Work that is one launch: enqueued on a stream inside the device's context, its answer read when it is done."""

    name: str
    stream: cuda.Stream
    enqueue: Callable[[], None]
    read: Callable[[], object]


def one_camera(engine: TensorRtEngine, case: Case, memory: FrameMemory) -> Side:
    """A 1080p frame in a lent buffer, to detections."""
    path = FramePath(
        engine, case.spec, FULL_HD, buffers=1, memory=memory, score_threshold=case.spec.decoding.score_threshold
    )
    buffer = path.lend()
    buffer[...] = _pictures(case, 1)[0]
    return Side(f"one camera, {memory}", path.stream, lambda: path.enqueue(buffer), path.detections)


def six_paths(engine: TensorRtEngine, case: Case, memory: FrameMemory) -> tuple[list[FramePath], list[Pixels]]:
    """Six cameras on one engine, a picture in the buffer of each."""
    threshold, buffers = case.spec.decoding.score_threshold, []
    paths = [
        FramePath(engine, case.spec, FULL_HD, buffers=1, memory=memory, score_threshold=threshold)
        for _ in range(CAMERAS)
    ]
    for path, picture in zip(paths, _pictures(case, CAMERAS), strict=True):
        buffers.append(path.lend())
        buffers[-1][...] = picture
    return paths, buffers


def six_batched(batch: TensorRtEngine, case: Case, memory: FrameMemory) -> BatchedCameras:
    """Six cameras as one batch, a picture in the buffer of each."""
    threshold = case.spec.decoding.score_threshold
    together = BatchedCameras(batch, case.spec, [FULL_HD] * CAMERAS, memory=memory, score_threshold=threshold)
    for buffer, picture in zip(together.frames, _pictures(case, CAMERAS), strict=True):
        buffer[...] = picture
    return together


def six_forked(engine: TensorRtEngine, case: Case, memory: FrameMemory) -> Side:
    """Six cameras, one graph with a branch each."""
    forked = ForkedCameras(*six_paths(engine, case, memory), engine)
    return Side(f"six cameras, a branch each, {memory}", forked.stream, forked.enqueue, forked.read)


def six_in_a_batch(batch: TensorRtEngine, case: Case, memory: FrameMemory) -> Side:
    """Six cameras, one batch."""
    together = six_batched(batch, case, memory)
    return Side(f"six cameras, one batch, {memory}", together.stream, together.enqueue, together.read)


def floor(engine: TensorRtEngine) -> Side:
    """Copy of a 1080p frame, network, copy of as many bytes as candidates take; nothing else."""
    with engine.device.current("opening the floor"):
        lane = engine.open_lane()
        frame, target = pinned(FULL_HD.shape, "uint8"), cuda.mem_alloc(1920 * 1080 * 3)
        answer, source = pinned((ANSWER_BYTES,), "uint8"), cuda.mem_alloc(ANSWER_BYTES)

    def enqueue() -> None:
        cuda.memcpy_htod_async(target, frame, lane.stream)
        lane.enqueue_network()
        cuda.memcpy_dtoh_async(answer, source, lane.stream)

    return Side("floor", lane.stream, enqueue, lambda: None)


def _pictures(case: Case, count: int) -> list[np.ndarray]:
    return [np.asarray(cv2.resize(each, (1920, 1080)), np.uint8) for each in case.images(count)]
