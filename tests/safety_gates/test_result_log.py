"""What a package said is kept without loss."""

from __future__ import annotations

import numpy as np

from perception.results import Detections, SegmentationMap
from safety_gates.result_log import FrameKey, ResultLog

FRAMES = (FrameKey("front", 0, "000000", 64, 48), FrameKey("rear", 7, "000007", 32, 24))


def test_detections_come_back(tmp_path):
    some = Detections(
        np.array([[1, 2, 3, 4], [0.5, 0, 9, 9]], np.float32),
        np.array([0.9, 0.1], np.float32),
        np.array([1, 0], np.int32),
    )
    log = ResultLog(FRAMES, (some, Detections.empty()))
    np.savez(tmp_path / "log.npz", **log.to_arrays("detection"))
    again = ResultLog.from_arrays(np.load(tmp_path / "log.npz"), "detection")
    assert again.frames == FRAMES
    assert [len(result) for result in again.results] == [2, 0]
    assert (again.results[0].boxes_px == some.boxes_px).all()
    assert (again.results[0].scores == some.scores).all()
    assert (again.results[0].class_ids == some.class_ids).all()


def test_masks_come_back():
    maps = (np.arange(48, dtype=np.uint8).reshape(6, 8), np.full((3, 4), 255, np.uint8))
    log = ResultLog(
        FRAMES, tuple(SegmentationMap(m, f.width_px, f.height_px) for m, f in zip(maps, FRAMES, strict=True))
    )
    again = ResultLog.from_arrays(log.to_arrays("segmentation"), "segmentation")
    for result, expected, frame in zip(again.results, maps, FRAMES, strict=True):
        assert (result.class_ids == expected).all()
        assert (result.width_px, result.height_px) == (frame.width_px, frame.height_px)


def test_an_empty_log_comes_back():
    assert ResultLog.from_arrays(ResultLog((), ()).to_arrays("detection"), "detection") == ResultLog((), ())
