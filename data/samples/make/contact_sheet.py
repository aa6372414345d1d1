"""A small contact sheet of a drive with its labels: six instants of each camera.

python data/samples/make/contact_sheet.py --drive data/samples/drive --out docs/images/sample_drive.jpg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import cv2
import numpy as np
import yaml

TONES = {"car": (96, 214, 96), "truck": (240, 170, 60), "pedestrian": (70, 90, 245), "cyclist": (230, 90, 220)}
INSTANTS_S = (2.0, 3.1, 4.9, 6.2, 7.9, 9.5)


def stills(drive: Path, camera: dict[str, object]) -> list[np.ndarray]:
    """The camera's pictures at INSTANTS_S with boxes of what is not mostly hidden."""
    lines = [json.loads(line) for line in (drive / "labels.jsonl").read_text().splitlines()]
    objects = {line["frame_id"]: line["objects"] for line in lines if line["camera_id"] == camera["camera_id"]}
    wanted = {round(t * float(str(camera["fps_hz"]))) for t in INSTANTS_S}
    pictures = []
    with av.open(str(drive / str(camera["video"]))) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in wanted:
                pictures.append(outlined(frame.to_ndarray(format="bgr24"), objects[index]))
    return pictures


def outlined(picture: np.ndarray, objects: list[dict[str, object]]) -> np.ndarray:
    """The picture with its labels, at half its size."""
    for one in objects:
        x1, y1, x2, y2 = (round(v) for v in one["box"])
        if one["occlusion"] <= 0.7 and y2 - y1 >= 16:
            cv2.rectangle(picture, (x1, y1), (x2, y2), TONES[str(one["class"])], 2, cv2.LINE_AA)
    return cv2.resize(picture, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, default=Path("data/samples/drive"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/sample_drive.jpg"))
    args = parser.parse_args()
    description = yaml.safe_load((args.drive / "drive.yaml").read_text())
    front, right = (stills(args.drive, camera) for camera in description["cameras"])
    rows = [np.hstack(front[i : i + 3]) for i in (0, 3)] + [np.hstack(right[i : i + 3]) for i in (0, 3)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 78])


if __name__ == "__main__":
    main()
