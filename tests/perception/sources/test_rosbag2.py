from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from perception.errors import SourceError
from perception.sources.rosbag2 import Rosbag2
from perception.sources.source import Clock
from tests.perception.sources.recordings import index_of, picture
from tests.perception.sources.robot_recordings import (
    LOGGED_LATER_NS,
    ros_compressed,
    ros_image,
    ros_raw,
    store,
    write_rosbag2,
)

STAMPS = [1_700_000_000_123_456_789 + 40_000_000 * index for index in range(6)]
STORAGES = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("message", [ros_image, ros_compressed])
def test_every_picture_comes_with_the_stamp_of_its_header(tmp_path, storage, message):
    path = write_rosbag2(tmp_path / "bag", {"/front": STAMPS, "/rear": STAMPS}, storage=storage, message=message)
    source = Rosbag2(path)
    frames = list(source.camera_frames("/front"))
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.captured_ns for frame in frames] == STAMPS
    assert [camera.clock for camera in source.cameras] == [Clock.SENSOR, Clock.SENSOR]
    assert [frame.camera_id for frame in source.frames()] == ["/front", "/rear"] * 6


def test_a_driver_that_sets_no_stamp_is_timed_by_the_log(tmp_path):
    source = Rosbag2(write_rosbag2(tmp_path / "bag", {"/front": STAMPS}, message=lambda index, _: ros_image(index, 0)))
    assert source.cameras[0].clock is Clock.LOG
    assert next(source.frames()).captured_ns == STAMPS[0] + LOGGED_LATER_NS


def test_a_bayer_camera_shows_its_colours(tmp_path):
    def message(index: int, stamp_ns: int) -> Any:
        pixels = picture(index)
        seen = np.empty(pixels.shape[:2], np.uint8)
        for place, channel in enumerate((2, 1, 1, 0)):
            row, column = divmod(place, 2)
            seen[row::2, column::2] = pixels[row::2, column::2, channel]
        return ros_raw(seen, "bayer_rggb8", stamp_ns=stamp_ns, step=seen.shape[1])

    frames = list(Rosbag2(write_rosbag2(tmp_path / "bag", {"/front": STAMPS}, message=message)).frames())
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2, 3, 4, 5]
    apart = np.abs(frames[0].pixels[20:-4, 4:-4].astype(int) - picture(0)[20:-4, 4:-4])
    assert apart.mean() < 12


def test_a_bag_without_cameras_is_refused(tmp_path):
    message = store().types["std_msgs/msg/String"]("hello")
    path = write_rosbag2(tmp_path / "bag", {"/chatter": STAMPS}, message=lambda *_: message)
    with pytest.raises(SourceError, match=r"has no camera topic, .*its topics: /chatter \(std_msgs/msg/String\)"):
        Rosbag2(path)


def test_a_bag_whose_storage_is_gone_is_refused(tmp_path):
    path = write_rosbag2(tmp_path / "bag", {"/front": STAMPS})
    next(path.glob("*.db3")).unlink()
    with pytest.raises(SourceError, match=r"bag: is damaged or cut off .*ros2 bag reindex"):
        Rosbag2(path)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_whose_storage_was_cut_is_refused(tmp_path, storage):
    path = write_rosbag2(tmp_path / "bag", {"/front": STAMPS}, storage=storage)
    (stored,) = [*path.glob("*.db3"), *path.glob("*.mcap")]
    stored.write_bytes(stored.read_bytes()[: stored.stat().st_size // 2])
    with pytest.raises(SourceError, match="bag: is damaged or cut off"):
        list(Rosbag2(path).frames())


def test_metadata_that_is_none_is_refused(tmp_path):
    path = write_rosbag2(tmp_path / "bag", {"/front": STAMPS})
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [oh no")
    with pytest.raises(SourceError, match="bag: is damaged or cut off"):
        Rosbag2(path)


def test_a_message_that_was_cut_ends_the_recording_after_the_frames_before_it(tmp_path):
    path = write_rosbag2(tmp_path / "bag", {"/front": STAMPS})
    with sqlite3.connect(next(path.glob("*.db3"))) as database:
        database.execute("UPDATE messages SET data = substr(data, 1, 5000) WHERE id = 4")
    frames = Rosbag2(path).frames()
    assert [index_of(next(frames).pixels) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceError, match=r"bag.*damaged|bag.*got 4\d+ bytes"):
        next(frames)
