"""What a package said about every frame of a recording, as arrays that can be kept as evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame
from perception.results import Detections, Result, SegmentationMap


@dataclass(frozen=True, slots=True)
class FrameKey:
    """Which frame of the recording it was.

    Attributes:
        camera_id: as `Frame` has it, and so the next ones.
        frame_id: see there.
        name: see there.
        width_px: of the picture.
        height_px: of the picture.
        captured_ns: nanoseconds of the recording's clock.
        glimpse: digest of every fourth pixel of every fourth row; equal for copies of one picture.
    """

    camera_id: str
    frame_id: int
    name: str
    width_px: int
    height_px: int
    captured_ns: int = 0
    glimpse: str = ""

    @classmethod
    def of(cls, frame: Frame) -> FrameKey:
        """The key of a frame."""
        glimpse = hashlib.blake2b(frame.pixels[::4, ::4].tobytes(), digest_size=8).hexdigest()
        size = (frame.width_px, frame.height_px)
        return cls(frame.camera_id, frame.frame_id, frame.name, *size, frame.captured_ns, glimpse)


@dataclass(frozen=True, slots=True)
class ResultLog:
    """One result for each frame, in order of capture."""

    frames: tuple[FrameKey, ...]
    results: tuple[Result, ...]

    def to_arrays(self, task: str) -> dict[str, NDArray[np.generic]]:
        """As named arrays; `from_arrays` gives the same log back."""
        results = _detection_arrays(self.results) if task == "detection" else _map_arrays(self.results)
        return {
            "frame_camera": np.array([frame.camera_id for frame in self.frames], dtype=np.str_),
            "frame_id": np.array([frame.frame_id for frame in self.frames], dtype=np.int64),
            "frame_name": np.array([frame.name for frame in self.frames], dtype=np.str_),
            "frame_size_px": np.array([(f.width_px, f.height_px) for f in self.frames], dtype=np.int64).reshape(-1, 2),
            "frame_captured_ns": np.array([frame.captured_ns for frame in self.frames], dtype=np.int64),
            "frame_glimpse": np.array([frame.glimpse for frame in self.frames], dtype=np.str_),
            **results,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], task: str) -> ResultLog:
        """Read what `to_arrays` gave."""
        names = ("frame_camera", "frame_id", "frame_name", "frame_captured_ns", "frame_glimpse", "frame_size_px")
        columns = (arrays[name].tolist() for name in names)
        frames = tuple(
            FrameKey(camera, number, name, width_px, height_px, captured_ns, glimpse)
            for camera, number, name, captured_ns, glimpse, (width_px, height_px) in zip(*columns, strict=True)
        )
        results = _detections_of(arrays, len(frames)) if task == "detection" else _maps_of(arrays, frames)
        return cls(frames, results)


def _detection_arrays(results: Sequence[Result]) -> dict[str, NDArray[np.generic]]:
    found = [result for result in results if isinstance(result, Detections)]
    return {
        "count": np.array([len(each) for each in found], np.int64),
        "boxes_px": np.concatenate([np.zeros((0, 4), np.float32), *(each.boxes_px for each in found)]),
        "scores": np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)]),
        "class_ids": np.concatenate([np.zeros(0, np.int32), *(each.class_ids for each in found)]),
    }


def _detections_of(arrays: Mapping[str, NDArray[np.generic]], frames: int) -> tuple[Result, ...]:
    ends = np.cumsum(arrays["count"])
    starts = ends - arrays["count"]
    return tuple(
        Detections(
            np.asarray(arrays["boxes_px"][starts[i] : ends[i]], np.float32),
            np.asarray(arrays["scores"][starts[i] : ends[i]], np.float32),
            np.asarray(arrays["class_ids"][starts[i] : ends[i]], np.int32),
        )
        for i in range(frames)
    )


def _map_arrays(results: Sequence[Result]) -> dict[str, NDArray[np.generic]]:
    """Maps are kept as PNG: a thousand of them would not fit as plain arrays."""
    pictures = [cv2.imencode(".png", each.class_ids)[1] for each in results if isinstance(each, SegmentationMap)]
    return {
        "png_bytes": np.concatenate([np.zeros(0, np.uint8), *pictures]),
        "png_length": np.array([len(picture) for picture in pictures], np.int64),
    }


def _maps_of(arrays: Mapping[str, NDArray[np.generic]], frames: Sequence[FrameKey]) -> tuple[Result, ...]:
    ends = np.cumsum(arrays["png_length"])
    starts = ends - arrays["png_length"]
    content = np.asarray(arrays["png_bytes"], np.uint8)
    return tuple(
        SegmentationMap(
            np.asarray(cv2.imdecode(content[starts[i] : ends[i]], cv2.IMREAD_GRAYSCALE), np.uint8),
            frame.width_px,
            frame.height_px,
        )
        for i, frame in enumerate(frames)
    )
