from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.LaserScan_pb2 import LaserScan
from mcap.reader import make_reader
from mcap.writer import IndexType
from mcap.writer import Writer as McapWriter

from perception.errors import SourceError
from perception.sources.mcap_file import McapFile
from perception.sources.source import Clock
from tests.perception.sources.recordings import HEIGHT_PX, WIDTH_PX, index_of, overwrite
from tests.perception.sources.robot_recordings import (
    LOGGED_LATER_NS,
    coded,
    coded_video,
    foxglove_image,
    ros_image,
    stamp,
    write_foxglove,
    write_foxglove_json,
    write_foxglove_video,
    write_ros2_mcap,
)

STAMPS = [1_700_000_000_123_456_789 + 40_000_000 * index for index in range(6)]


def indices(path: Path, camera: str = "/front") -> list[int]:
    return [index_of(frame.pixels) for frame in McapFile(path).camera_frames(camera)]


@pytest.mark.parametrize("write", [write_foxglove, write_foxglove_json, write_ros2_mcap])
def test_every_picture_comes_with_the_sensors_own_stamp(tmp_path, write):
    source = McapFile(write(tmp_path / "drive.mcap", {"/front": STAMPS}))
    frames = list(source.frames())
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.captured_ns for frame in frames] == STAMPS
    (camera,) = source.cameras
    assert (camera.clock, camera.width_px, camera.height_px) == (Clock.SENSOR, WIDTH_PX, HEIGHT_PX)


def test_a_camera_that_sets_no_stamp_is_timed_by_the_log_and_says_so(tmp_path):
    def unstamped(index: int, _: int) -> CompressedImage:
        return foxglove_image(index, 0)

    source = McapFile(write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS}, message=unstamped))
    assert [frame.captured_ns for frame in source.frames()] == [each + LOGGED_LATER_NS for each in STAMPS]
    assert source.cameras[0].clock is Clock.LOG


def test_a_stamp_that_goes_missing_on_the_way_ends_the_recording(tmp_path):
    def forgetful(index: int, stamp_ns: int) -> CompressedImage:
        return foxglove_image(index, 0 if index == 3 else stamp_ns)

    frames = McapFile(write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS}, message=forgetful)).frames()
    assert [index_of(next(frames).pixels) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(SourceError, match=r"/front: the message logged at .* has no stamp, those before it have one"):
        next(frames)


def test_several_cameras_are_merged_by_capture_and_other_topics_left_alone(tmp_path):
    def message(index: int, stamp_ns: int) -> CompressedImage | LaserScan:
        return LaserScan(timestamp=stamp(stamp_ns)) if stamp_ns % 2 else foxglove_image(index, stamp_ns)

    even = [2 * (each // 2) for each in STAMPS]
    topics = {"/rear": [each + 2 for each in even], "/scan": [each + 1 for each in even], "/front": even}
    path = write_foxglove(tmp_path / "drive.mcap", topics, message=message)
    source = McapFile(path)
    assert [camera.camera_id for camera in source.cameras] == ["/front", "/rear"]
    assert [frame.camera_id for frame in source.frames()] == ["/front", "/rear"] * 6
    assert [camera.camera_id for camera in McapFile(path, cameras=["/rear"]).cameras] == ["/rear"]


def test_a_recording_without_cameras_names_its_topics(tmp_path):
    path = write_foxglove(tmp_path / "a.mcap", {"/scan": STAMPS}, message=lambda *_: LaserScan())
    with pytest.raises(SourceError, match=r"has no camera topic, .*its topics: /scan \(foxglove\.LaserScan\)"):
        McapFile(path)


def test_a_wanted_topic_that_is_not_there_is_refused(tmp_path):
    path = write_foxglove(tmp_path / "a.mcap", {"/front": STAMPS})
    with pytest.raises(SourceError, match=r"has no camera '/left', it has /front"):
        McapFile(path, cameras=["/left"])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_off_anywhere_is_refused_with_how_to_save_it(tmp_path, share):
    path = write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SourceError, match=r"drive\.mcap: is damaged or cut off .*mcap recover FILE"):
        McapFile(path)


@pytest.mark.parametrize("content", [b"", b"no recording at all, though its name says so" * 9])
def test_what_is_no_mcap_file_is_refused(tmp_path, content):
    path = tmp_path / "drive.mcap"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"drive\.mcap: is damaged or cut off"):
        McapFile(path)


def test_a_damaged_chunk_ends_the_recording_after_the_frames_before_it(tmp_path):
    path = write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS}, chunk_size=1000)
    overwrite(path, int(0.7 * path.stat().st_size), b"\x00damaged\xff" * 5)
    frames = McapFile(path).frames()
    seen = []
    with pytest.raises(SourceError, match="is damaged or cut off"):
        seen.extend(index_of(frame.pixels) for frame in frames)
    assert 0 < len(seen) < 6
    assert seen == list(range(len(seen)))


def test_a_file_without_an_index_is_read_through(tmp_path):
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = McapWriter(
            file, use_statistics=False, use_summary_offsets=False, index_types=IndexType.NONE, repeat_channels=False
        )
        writer.start()
        whole = write_foxglove_json(tmp_path / "whole.mcap", {"/front": STAMPS})
        copy_messages(whole, writer)
        writer.finish()
    assert indices(path) == [0, 1, 2, 3, 4, 5]
    assert McapFile(path).cameras[0].frame_count == 6


def copy_messages(source: Path, writer: McapWriter) -> None:
    with source.open("rb") as file:
        channel_id = None
        for schema, channel, message in make_reader(file).iter_messages():
            if channel_id is None:
                schema_id = writer.register_schema(schema.name, schema.encoding, schema.data)
                channel_id = writer.register_channel(channel.topic, channel.message_encoding, schema_id)
            writer.add_message(channel_id, message.log_time, message.data, message.publish_time)


def test_a_picture_cut_off_in_its_message_is_refused(tmp_path):
    def cut(index: int, stamp_ns: int) -> CompressedImage:
        whole = coded(np.full((32, 32, 3), 90, np.uint8), ".jpg")
        return CompressedImage(timestamp=stamp(stamp_ns), data=whole[: len(whole) - 20 * (index == 2)], format="jpeg")

    frames = McapFile(write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS}, message=cut)).frames()
    assert [next(frames).frame_id for _ in range(2)] == [0, 1]
    with pytest.raises(SourceError, match=rf"/front at {STAMPS[2]} ns: JPEG ends inside its picture"):
        next(frames)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_depth_camera_is_refused_unless_left_out(tmp_path, encoding):
    def message(index: int, stamp_ns: int) -> object:
        image = ros_image(index, stamp_ns)
        return replace(image, encoding=encoding) if stamp_ns % 2 else image

    topics = {"/depth": [2 * (each // 2) + 1 for each in STAMPS], "/front": [2 * (each // 2) for each in STAMPS]}
    path = write_ros2_mcap(tmp_path / "drive.mcap", topics, message=message)
    with pytest.raises(SourceError, match=f"/depth at .*: got encoding '{encoding}', expected a camera picture"):
        McapFile(path)
    assert len(list(McapFile(path, cameras=["/front"]).frames())) == 6


@pytest.mark.parametrize(("codec", "form"), [("libx264", "h264"), ("libx265", "h265")])
def test_video_messages_show_every_picture_at_its_own_stamp(tmp_path, codec, form):
    options = {"x265-params": "log-level=none:keyint=6:bframes=0"} if form == "h265" else {}
    path = write_foxglove_video(tmp_path / "drive.mcap", coded_video(6, codec, **options), STAMPS, form=form)
    assert indices(path) == [0, 1, 2, 3, 4, 5]
    assert [frame.captured_ns for frame in McapFile(path).frames()] == STAMPS


def test_video_begins_at_its_first_key_picture(tmp_path):
    packets = coded_video(12)
    stamps = [STAMPS[0] + 40_000_000 * index for index in range(9)]
    source = McapFile(write_foxglove_video(tmp_path / "drive.mcap", packets[3:], stamps))
    frames = list(source.frames())
    assert [index_of(frame.pixels) for frame in frames] == [6, 7, 8, 9, 10, 11]
    assert frames[0].captured_ns == stamps[3]
    assert source.cameras[0].frame_count == 6


def test_video_without_a_key_picture_is_refused(tmp_path):
    path = write_foxglove_video(tmp_path / "drive.mcap", coded_video(6)[1:], STAMPS[1:])
    with pytest.raises(SourceError, match="holds no picture that can be decoded"):
        McapFile(path)


def test_damaged_video_ends_the_recording(tmp_path):
    packets = coded_video(6)
    packets[3] = packets[3][: len(packets[3]) // 2] + bytes(len(packets[3]) // 2)
    frames = McapFile(write_foxglove_video(tmp_path / "drive.mcap", packets, STAMPS)).frames()
    seen = []
    with pytest.raises(SourceError, match=r"/front: the video cannot be decoded at \d+ ns"):
        seen.extend(index_of(frame.pixels) for frame in frames)


def test_an_unknown_video_format_is_refused(tmp_path):
    path = write_foxglove_video(tmp_path / "drive.mcap", coded_video(6), STAMPS, form="theora")
    with pytest.raises(SourceError, match="/front: got format 'theora', expected h264, h265"):
        McapFile(path)


def test_stamps_that_go_back_are_told(tmp_path):
    def message(index: int, stamp_ns: int) -> CompressedImage:
        return foxglove_image(index, stamp_ns - 200_000_000 * (index == 4))

    path = write_foxglove(tmp_path / "drive.mcap", {"/front": STAMPS}, message=message)
    with pytest.raises(SourceError, match=r"camera /front, frame 4 .*: captured at .*, expected later than"):
        list(McapFile(path).frames())
