from __future__ import annotations

import json

import pytest

from perception.errors import SourceError
from perception.sources.nuscenes import NuScenes
from tests.perception.sources.recordings import index_of
from tests.perception.sources.robot_recordings import write_nuscenes

STAMPS_US = [1_532_402_927_612_460 + 83_333 * index for index in range(6)]


def test_key_frames_and_sweeps_are_one_sequence_in_order_of_time(tmp_path):
    source = NuScenes(write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US}))
    frames = list(source.frames())
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.captured_ns for frame in frames] == [1000 * stamp for stamp in STAMPS_US]
    assert frames[0].name == f"n001__CAM_FRONT__{STAMPS_US[0]}"


def test_cameras_are_the_sensors_that_are_cameras(tmp_path):
    source = NuScenes(write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US, "CAM_BACK": STAMPS_US}))
    assert [camera.camera_id for camera in source.cameras] == ["CAM_BACK", "CAM_FRONT"]


def test_a_data_set_without_camera_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="its tables name no camera picture"):
        NuScenes(write_nuscenes(tmp_path, {"CAM_FRONT": []}))


def test_a_missing_table_is_named(tmp_path):
    write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US})
    (tmp_path / "v1.0-mini" / "sensor.json").unlink()
    with pytest.raises(SourceError, match=r"sensor\.json: cannot be read \(No such file"):
        NuScenes(tmp_path)


@pytest.mark.parametrize("content", ['[{"token": 1}]', "[{", json.dumps({"rows": []})])
def test_a_damaged_table_is_named(tmp_path, content):
    write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US})
    (tmp_path / "v1.0-mini" / "sample_data.json").write_text(content)
    with pytest.raises(SourceError, match=r"sample_data\.json: .*copy the data set's tables again"):
        NuScenes(tmp_path)


def test_a_picture_that_is_gone_ends_the_recording(tmp_path):
    write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US})
    next(tmp_path.glob(f"*/CAM_FRONT/*{STAMPS_US[2]}.jpg")).unlink()
    frames = NuScenes(tmp_path).frames()
    assert [index_of(next(frames).pixels) for _ in range(2)] == [0, 1]
    with pytest.raises(SourceError, match=rf"{STAMPS_US[2]}\.jpg: cannot be read"):
        next(frames)


def test_two_versions_in_one_folder_are_not_chosen_between(tmp_path):
    write_nuscenes(tmp_path, {"CAM_FRONT": STAMPS_US})
    (tmp_path / "v1.0-test").mkdir()
    (tmp_path / "v1.0-test" / "sample_data.json").write_text("[]")
    with pytest.raises(SourceError, match=r"holds 2 of v1\.0-\*/sample_data\.json, expected 1"):
        NuScenes(tmp_path)
