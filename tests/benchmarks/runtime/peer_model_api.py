"""openvino-model-api's YOLOX over a video, as its README shows it; run by an environment of its own.

Usage: PYTHON peer_model_api.py MODEL VIDEO THREADS ROUNDS → seconds of each round, as a JSON list.
"""

from __future__ import annotations

import json
import sys
import time

import cv2
from model_api.models import Model


def main() -> None:
    """Time whole passes; the first one does not count."""
    model_path, video, threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    configuration = {
        "confidence_threshold": 0.3,
        "iou_threshold": 0.45,
        "agnostic_nms": False,
        "embedded_processing": False,
    }
    model = Model.create_model(
        model_path, model_type="YOLOX", configuration=configuration, device="CPU", nthreads=threads
    )
    model.preprocess = lambda inputs, meta: with_scale(model, inputs, meta)
    seconds = [one_pass(model, video) for _ in range(rounds + 1)]
    sys.stdout.write(json.dumps(seconds[1:]) + "\n")


def with_scale(model: Model, inputs: dict, meta: dict) -> tuple[dict, dict]:
    """Release 0.4.7 resizes inside the graph and then misses the scale when it decodes: give it."""
    height, width = meta["original_shape"][:2]
    return inputs, {**meta, "scale": min(model.w / width, model.h / height)}


def one_pass(model: Model, video: str) -> float:
    """Every frame of the video; returns the seconds it took."""
    started, capture = time.perf_counter(), cv2.VideoCapture(video)
    while True:
        grabbed, picture = capture.read()
        if not grabbed:
            break
        model(picture)
    capture.release()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
