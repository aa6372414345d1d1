"""Published frames for the tests of the sinks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.frame import Frame
from perception.pipeline import FrameResult, Status, Timings
from perception.record import RecordingEntry, RunHeader
from perception.results import Detections, Result, SegmentationMap

CLASSES = ("car", "pedestrian", "cyclist")
HEADER = RunHeader(
    package_sha256="a" * 64,
    engine_sha256="b" * 64,
    recording=RecordingEntry(name="drive", sha256="c" * 64),
    profile="x86_cpu",
    classes=CLASSES,
    versions={"python": "3.11"},
    options={"score": 0.3},
)


def detections(*rows: Sequence[float]) -> Detections:
    """Rows of x1 y1 x2 y2 score class, best first."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4].copy(), table[:, 4].copy(), table[:, 5].astype(np.int32))


def segmentation(width_px: int = 64, height_px: int = 48) -> SegmentationMap:
    """A road in the lower half of the picture."""
    class_ids = np.zeros((12, 16), np.uint8)
    class_ids[6:] = 1
    return SegmentationMap(class_ids, width_px, height_px)


def outcome(
    frame_id: int = 0,
    result: Result | None = None,
    *,
    camera_id: str = "front",
    size_px: tuple[int, int] = (320, 180),
    infer_ns: int = 9_000_000,
) -> FrameResult:
    """Frames 40 ms apart, with one car unless told otherwise; `infer_ns` above 30 ms makes them late."""
    pixels = np.full((size_px[1], size_px[0], 3), (90, 100, 110), np.uint8)
    pixels[::7, ::5] = frame_id % 200
    pixels.flags.writeable = False
    frame = Frame(pixels, camera_id, frame_id, 1_000_000_000 + 40_000_000 * frame_id, f"{frame_id:06d}")
    timings = Timings(0, 1_000_000, infer_ns, 500_000)
    found = detections((40.25, 60.5, 120.125, 140.0, 0.875, 0)) if result is None else result
    status = Status.ON_TIME if timings.total_ns <= 30_000_000 else Status.LATE
    return FrameResult(frame, found, timings, status, 30_000_000)


def skipped(frame_id: int = 0) -> FrameResult:
    """A frame that was never started."""
    done = outcome(frame_id)
    return FrameResult(done.frame, None, Timings(50_000_000, 0, 0, 0), Status.SKIPPED, done.deadline_ns)
