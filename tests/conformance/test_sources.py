"""What every kind of recording promises, asked of each in turn, bare and decoded ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from perception.frame import Frame
from perception.sources.prefetch import Prefetched
from perception.sources.source import Recording
from perception.sources.table import SOURCES, source_class
from tests.perception.sources.recordings import write_drive, write_kitti, write_pictures, write_video
from tests.perception.sources.robot_recordings import (
    coded_video,
    foxglove_raw,
    ros_compressed,
    write_foxglove,
    write_foxglove_json,
    write_foxglove_video,
    write_nuscenes,
    write_ros2_mcap,
    write_rosbag2,
)

STAMPS_NS = [1_000_000_000 + 33_333_333 * index for index in range(12)]
KITTI_STAMPS = [f"2011-09-26 13:04:{index // 10:02d}.{index % 10}51950336" for index in range(12)]
KITTI_LATER = [f"2011-09-26 13:04:{index // 10:02d}.{index % 10}51950337" for index in range(12)]
STAMPS_US = [1_532_402_927_612_460 + 83_333 * index for index in range(12)]
TWO = {"/front": STAMPS_NS, "/rear": [stamp + 7 for stamp in STAMPS_NS]}

MAKERS: dict[str, Callable[[Path], Path]] = {
    "video": lambda folder: write_video(folder / "front.mp4", 12),
    "image_folder": lambda folder: write_pictures(folder / "front", [f"{index}.png" for index in range(12)]),
    "kitti_raw": lambda folder: write_kitti(folder, {"image_00": KITTI_STAMPS, "image_02": KITTI_LATER}),
    "drive": lambda folder: write_drive(folder, {"front": STAMPS_NS, "rear": [stamp + 7 for stamp in STAMPS_NS]}),
    "mcap": lambda folder: write_foxglove(folder / "drive.mcap", TWO),
    "mcap, foxglove JSON": lambda folder: write_foxglove_json(folder / "drive.mcap", TWO),
    "mcap, foxglove RawImage": lambda folder: write_foxglove(folder / "drive.mcap", TWO, message=foxglove_raw),
    "mcap, foxglove CompressedVideo": lambda folder: write_foxglove_video(
        folder / "drive.mcap", coded_video(12), STAMPS_NS
    ),
    "mcap, ROS 2 Image": lambda folder: write_ros2_mcap(folder / "drive.mcap", TWO),
    "mcap, ROS 2 CompressedImage": lambda folder: write_ros2_mcap(folder / "drive.mcap", TWO, message=ros_compressed),
    "rosbag2": lambda folder: write_rosbag2(folder / "drive", TWO),
    "rosbag2, MCAP": lambda folder: write_rosbag2(
        folder / "drive", TWO, storage=StoragePlugin.MCAP, message=ros_compressed
    ),
    "nuscenes": lambda folder: write_nuscenes(
        folder, {"CAM_BACK": STAMPS_US, "CAM_FRONT": [stamp + 7 for stamp in STAMPS_US]}
    ),
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def recording(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param.partition(",")[0], MAKERS[request.param](tmp_path_factory.mktemp("recording"))


@pytest.fixture(params=["bare", "ahead"])
def source(request, recording) -> Recording:
    kind, path = recording
    bare: Recording = source_class(kind)(path)
    return bare if request.param == "bare" else Prefetched(bare)


def test_every_kind_of_recording_is_asked():
    assert {name.partition(",")[0] for name in MAKERS} == set(SOURCES)


def of_each_camera(frames: list[Frame]) -> dict[str, list[Frame]]:
    cameras: dict[str, list[Frame]] = {}
    for frame in frames:
        cameras.setdefault(frame.camera_id, []).append(frame)
    return cameras


def test_frames_of_all_cameras_come_in_capture_order(source):
    stamps = [frame.captured_ns for frame in source.frames()]
    assert stamps == sorted(stamps)


def test_within_a_camera_time_and_identity_advance(source):
    for frames in of_each_camera(list(source.frames())).values():
        assert all(a.captured_ns < b.captured_ns and a.frame_id < b.frame_id for a, b in pairwise(frames))
        assert frames[0].frame_id == 0
        assert len({frame.name for frame in frames}) == len(frames)


def test_the_cameras_are_those_whose_frames_come_with_the_size_and_count_stated(source):
    cameras = of_each_camera(list(source.frames()))
    assert [camera.camera_id for camera in source.cameras] == sorted(cameras)
    for camera in source.cameras:
        frames = cameras[camera.camera_id]
        assert camera.frame_count == len(frames) == 12
        assert {(frame.width_px, frame.height_px) for frame in frames} == {(camera.width_px, camera.height_px)}


def test_reading_starts_anew_each_time_and_gives_the_same_pixels(source):
    first, second = list(source.frames()), list(source.frames())
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.camera_id, a.frame_id, a.captured_ns, a.name) == (b.camera_id, b.frame_id, b.captured_ns, b.name)
        assert np.array_equal(a.pixels, b.pixels)


def test_frames_kept_by_their_holder_do_not_change_when_more_are_read(source):
    frames = source.frames()
    kept = next(frames)
    before = kept.pixels.copy()
    list(frames)
    source.close()
    assert np.array_equal(kept.pixels, before)


def test_nobody_can_write_to_a_frame(source):
    frame = next(iter(source.frames()))
    with pytest.raises(ValueError, match="read-only"):
        frame.pixels[0, 0, 0] = 1


def test_each_camera_can_be_read_by_itself(source):
    together = of_each_camera(list(source.frames()))
    for camera in source.cameras:
        alone = list(source.camera_frames(camera.camera_id))
        assert [frame.captured_ns for frame in alone] == [f.captured_ns for f in together[camera.camera_id]]


def test_closing_twice_does_nothing_and_leaves_no_thread(source):
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("decode ")] == []


def test_a_reader_may_leave_at_any_frame(source):
    for wanted in (1, 3):
        taken = [frame for frame, _ in zip(source.frames(), range(wanted), strict=False)]
        assert len(taken) == wanted


def test_a_choice_of_one_camera_gives_only_that_camera(recording):
    kind, path = recording
    last = source_class(kind)(path).cameras[-1].camera_id
    chosen = source_class(kind)(path, cameras=[last])
    assert [camera.camera_id for camera in chosen.cameras] == [last]
    assert {frame.camera_id for frame in chosen.frames()} == {last}
