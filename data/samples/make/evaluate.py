"""How well a YOLOX-style ONNX detector finds what a drive's labels say: AP50 per class on the CPU.

python data/samples/make/evaluate.py --model data/samples/models/sample_detector.onnx --drive data/samples/drive

Objects more than 70 % hidden or under 16 px high are neither wanted nor wrong. 101-point interpolation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
import yaml

STRIDES = (8, 16, 32)
NMS_IOU = 0.6
LEAST_SCORE = 0.02
MATCH_IOU = 0.5
MOST_OCCLUSION = 0.7
LEAST_HEIGHT_PX = 16.0


@dataclass(frozen=True, slots=True)
class Truth:
    """One frame's wanted and ignorable boxes, by class: (N, 4) and (N,) bool."""

    boxes: np.ndarray
    kinds: np.ndarray
    ignored: np.ndarray


def decode(output: np.ndarray, width: int, height: int) -> np.ndarray:
    """(N, 9) raw rows to (N, 4) corners in input pixels."""
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((x.size, 1), stride))
    stride = np.concatenate(strides)
    centre = (output[:, :2] + np.concatenate(cells)) * stride
    half = np.exp(output[:, 2:4]) * stride / 2
    return np.concatenate([centre - half, centre + half], 1)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box with others (N, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / np.maximum(np.prod(box[2:] - box[:2]) + (others[:, 2:] - others[:, :2]).prod(1) - shared, 1e-9)


def detect(session: onnxruntime.InferenceSession, picture: np.ndarray) -> np.ndarray:
    """Rows of class, score, x1, y1, x2, y2 in the picture's pixels, after NMS per class."""
    _, _, height, width = session.get_inputs()[0].shape
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    output = session.run(None, {"images": small.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    scale = np.array([picture.shape[1] / width, picture.shape[0] / height] * 2)
    boxes, scores = decode(output, width, height) * scale, output[:, 4:5] * output[:, 5:]
    rows = []
    for kind in range(scores.shape[1]):
        order = np.flatnonzero(scores[:, kind] >= LEAST_SCORE)
        order = order[np.argsort(-scores[order, kind])][:300]
        while len(order):
            best, order = order[0], order[1:]
            rows.append([kind, scores[best, kind], *boxes[best]])
            order = order[overlap(boxes[best], boxes[order]) <= NMS_IOU]
    return np.array(rows).reshape(-1, 6)


def truths(drive: Path, classes: list[str]) -> dict[tuple[str, int], tuple[Truth, str]]:
    """Labels by camera and frame, with the frame's condition."""
    found = {}
    for line in (drive / "labels.jsonl").read_text().splitlines():
        frame = json.loads(line)
        objects = frame["objects"]
        boxes = np.array([o["box"] for o in objects]).reshape(-1, 4)
        hidden = [o["occlusion"] > MOST_OCCLUSION or o["box"][3] - o["box"][1] < LEAST_HEIGHT_PX for o in objects]
        truth = Truth(boxes, np.array([classes.index(o["class"]) for o in objects]), np.array(hidden, bool))
        found[frame["camera_id"], frame["frame_id"]] = truth, f"{frame['light']} {frame['weather']}"
    return found


def matched(rows: np.ndarray, truth: Truth, kind: int) -> tuple[list[tuple[float, bool]], int]:
    """Scores with right or wrong for one class in one frame, and how many objects were wanted."""
    mine = truth.kinds == kind
    wanted, spare = truth.boxes[mine & ~truth.ignored], truth.boxes[mine & truth.ignored]
    free, results = np.ones(len(wanted), bool), []
    for row in sorted(rows[rows[:, 0] == kind].tolist(), key=lambda r: -r[1]):
        box = np.array(row[2:])
        iou = overlap(box, wanted) * free if len(wanted) else np.zeros(0)
        if len(iou) and iou.max() >= MATCH_IOU:
            free[iou.argmax()] = False
            results.append((row[1], True))
        elif box[3] - box[1] >= LEAST_HEIGHT_PX and not (len(spare) and overlap(box, spare).max() >= MATCH_IOU):
            results.append((row[1], False))
    return results, len(wanted)


def average_precision(results: list[tuple[float, bool]], wanted: int) -> float:
    """101-point interpolated AP; NaN where nothing was wanted."""
    if not wanted:
        return float("nan")
    right = np.cumsum([r for _, r in sorted(results, key=lambda pair: -pair[0])] or [0])
    precision = right / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(right / wanted, np.linspace(0, 1, 101))
    return float(np.append(best_from_here, 0.0)[np.minimum(index, len(best_from_here))].mean())


def pictures(drive: Path, camera: dict[str, object], step: int) -> list[tuple[int, np.ndarray]]:
    """Every `step`-th frame of a camera with its number, BGR."""
    with av.open(str(drive / str(camera["video"]))) as container:
        frames = enumerate(container.decode(video=0))
        return [(i, frame.to_ndarray(format="bgr24")) for i, frame in frames if i % step == 0]


def main() -> None:
    """Print AP50 over everything, by camera and by condition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("data/samples/models/sample_detector.onnx"))
    parser.add_argument("--drive", type=Path, default=Path("data/samples/drive"))
    parser.add_argument("--step", type=int, default=1, help="take every n-th frame")
    args = parser.parse_args()
    description = yaml.safe_load((args.drive / "drive.yaml").read_text())
    session = onnxruntime.InferenceSession(str(args.model), providers=["CPUExecutionProvider"])
    truth = truths(args.drive, description["classes"])
    results: dict[tuple[str, int], list[tuple[float, bool]]] = defaultdict(list)
    wanted: dict[tuple[str, int], int] = defaultdict(int)
    for camera in description["cameras"]:
        for index, picture in pictures(args.drive, camera, args.step):
            rows = detect(session, picture)
            goal, condition = truth[camera["camera_id"], index]
            for kind in range(len(description["classes"])):
                found, count = matched(rows, goal, kind)
                for part in ("all", camera["camera_id"], condition):
                    results[part, kind] += found
                    wanted[part, kind] += count
    for part in dict.fromkeys(part for part, _ in results):
        scores = [average_precision(results[part, k], wanted[part, k]) for k in range(len(description["classes"]))]
        text = "  ".join(
            f"{c} {s:.3f} ({wanted[part, k]})"
            for k, (c, s) in enumerate(zip(description["classes"], scores, strict=True))
        )
        sys.stdout.write(f"{part}: mean {np.nanmean(scores):.3f}  {text}\n")


if __name__ == "__main__":
    main()
