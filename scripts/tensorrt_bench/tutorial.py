"""The loop that tutorials on TensorRT teach: letterbox on the host, pageable copies, NumPy from rows to boxes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from perception.engines.tensorrt import TensorRtEngine
from perception.model_spec import ModelSpec


def tutorial_loop(engine: TensorRtEngine, spec: ModelSpec, picture: NDArray[np.uint8]) -> Callable[[], object]:
    """One frame of it, on an engine that is open already."""
    name, size = spec.picture.tensor, spec.picture.width_px
    with engine.device.current("opening the tutorial's loop"):
        lane = engine.open_lane()
    (output,) = engine.outputs

    def run() -> object:
        tensor, ratio = letterboxed(picture, size)
        answer = np.empty(output.shape, output.dtype)
        with engine.device.current("the tutorial's loop"):
            cuda.memcpy_htod_async(lane.addresses[name], tensor, lane.stream)
            lane.enqueue_network()
            cuda.memcpy_dtoh_async(answer, lane.addresses[output.name], lane.stream)
            lane.stream.synchronize()
        return boxes_of(answer[0], size, ratio, spec.decoding.score_threshold)

    return run


def letterboxed(picture: NDArray[np.uint8], size: int) -> tuple[NDArray[np.float32], float]:
    """The picture resized into a grey square, as (1, 3, size, size) float32."""
    padded = np.full((size, size, 3), 114, np.uint8)
    ratio = min(size / picture.shape[0], size / picture.shape[1])
    resized = cv2.resize(picture, (int(picture.shape[1] * ratio), int(picture.shape[0] * ratio)))
    padded[: resized.shape[0], : resized.shape[1]] = resized
    return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32), ratio


def boxes_of(rows: NDArray[np.float32], size: int, ratio: float, threshold: float) -> list[tuple[int, list[int]]]:
    """Grid, boxes, scores, and suppression class by class."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        cells = size // stride
        x, y = np.meshgrid(np.arange(cells), np.arange(cells))
        grids.append(np.stack((x, y), 2).reshape(-1, 2))
        strides.append(np.full((cells * cells, 1), stride))
    grid, stride_of = np.concatenate(grids), np.concatenate(strides)
    centres = (rows[:, :2] + grid) * stride_of
    sides = np.exp(rows[:, 2:4]) * stride_of
    boxes = np.concatenate((centres - sides / 2, sides), 1) / ratio
    scores = rows[:, 4:5] * rows[:, 5:]
    found = []
    for class_id in range(scores.shape[1]):
        mask = scores[:, class_id] > threshold
        if mask.any():
            chosen, certain = boxes[mask], scores[mask, class_id]
            kept = cv2.dnn.NMSBoxes(chosen.tolist(), certain.tolist(), threshold, 0.45)
            found += [(class_id, chosen[index].astype(int).tolist()) for index in np.asarray(kept).ravel()]
    return found
