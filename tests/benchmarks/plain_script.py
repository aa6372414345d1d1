"""What a user writes in an afternoon: OpenCV capture, letterbox, session.run, NumPy decode, NMS. The peer to beat."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def yolox_on_video(
    model: Path, video: Path, *, input_size: tuple[int, int], threads: int, score_threshold: float = 0.3
) -> int:
    """Run a YOLOX model over a whole video; returns how many boxes were found."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    capture = cv2.VideoCapture(str(video))
    found = 0
    while True:
        grabbed, picture = capture.read()
        if not grabbed:
            break
        tensor, ratio = letterbox(picture, input_size)
        (output,) = session.run(None, {name: tensor})
        found += len(boxes_of(output[0], input_size, ratio, score_threshold))
    capture.release()
    return found


def letterbox(picture: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Resize into the top left corner of a grey canvas; NCHW float32."""
    height, width = input_size
    ratio = min(height / picture.shape[0], width / picture.shape[1])
    resized = cv2.resize(picture, (int(picture.shape[1] * ratio), int(picture.shape[0] * ratio)))
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[: resized.shape[0], : resized.shape[1]] = resized
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32), ratio


def boxes_of(rows: np.ndarray, input_size: tuple[int, int], ratio: float, score_threshold: float) -> list[int]:
    """Decode every row, keep the confident ones, suppress duplicates."""
    grids, strides = [], []
    for stride in (8, 16, 32):
        high, wide = input_size[0] // stride, input_size[1] // stride
        xs, ys = np.meshgrid(np.arange(wide), np.arange(high))
        grids.append(np.stack([xs, ys], 2).reshape(-1, 2))
        strides.append(np.full((high * wide, 1), stride))
    grid, stride_of = np.concatenate(grids), np.concatenate(strides)
    centre, size = (rows[:, :2] + grid) * stride_of, np.exp(rows[:, 2:4]) * stride_of
    boxes = np.concatenate([centre - size / 2, size], 1) / ratio
    scores = rows[:, 4:5] * rows[:, 5:]
    best = scores.argmax(1)
    confident = scores[np.arange(len(scores)), best]
    keep = confident > score_threshold
    return list(cv2.dnn.NMSBoxes(boxes[keep].tolist(), confident[keep].tolist(), score_threshold, 0.45))
