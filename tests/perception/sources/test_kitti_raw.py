from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources.kitti_raw import KittiRaw
from tests.perception.sources.recordings import picture, write_kitti

FRONT = [f"2011-09-26 13:04:32.{fraction}" for fraction in ("351950336", "455323904", "558578688")]
LATER = [f"2011-09-26 13:04:32.{fraction}" for fraction in ("358000001", "455323904", "565000000")]


def test_cameras_are_merged_by_capture_time_and_ties_keep_the_order_of_cameras(tmp_path):
    source = KittiRaw(write_kitti(tmp_path, {"image_00": FRONT, "image_02": LATER}))
    order = [(frame.camera_id, frame.frame_id) for frame in source.frames()]
    assert order == [
        ("image_00", 0),
        ("image_02", 0),
        ("image_00", 1),
        ("image_02", 1),
        ("image_00", 2),
        ("image_02", 2),
    ]


def test_times_keep_every_nanosecond(tmp_path):
    source = KittiRaw(write_kitti(tmp_path, {"image_00": FRONT}))
    assert [frame.captured_ns for frame in source.frames()] == [
        1317042272351950336,
        1317042272455323904,
        1317042272558578688,
    ]


def test_names_and_ids_come_from_the_files_so_that_a_lost_picture_is_a_gap(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT})
    (tmp_path / "image_00/data/0000000001.png").rename(tmp_path / "image_00/data/0000000007.png")
    (tmp_path / "image_00/data/0000000002.png").rename(tmp_path / "image_00/data/0000000009.png")
    frames = list(KittiRaw(tmp_path).frames())
    assert [(frame.frame_id, frame.name) for frame in frames] == [(0, "0" * 10), (7, "0000000007"), (9, "0000000009")]


def test_grey_cameras_come_as_three_equal_channels(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT[:1]})
    grey = cv2.cvtColor(picture(0), cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "image_00/data/0000000000.png"), grey)
    pixels = next(KittiRaw(tmp_path).frames()).pixels
    assert all(np.array_equal(pixels[:, :, channel], grey) for channel in range(3))


def test_a_choice_of_cameras_reads_no_other(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT, "image_01": FRONT, "image_02": LATER})
    (tmp_path / "image_01/timestamps.txt").unlink()
    source = KittiRaw(tmp_path, cameras=["image_02", "image_00"])
    assert [camera.camera_id for camera in source.cameras] == ["image_00", "image_02"]


def test_an_unknown_camera_is_refused_and_the_present_ones_named(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT, "image_02": LATER})
    with pytest.raises(SourceError, match="has no camera 'front', it has image_00, image_02"):
        KittiRaw(tmp_path, cameras=["front"])


@pytest.mark.parametrize(("stamps", "lines"), [(FRONT[:2], 2), ([*FRONT, "2011-09-26 13:04:33.0"], 4)])
def test_pictures_and_timestamps_of_different_number_are_refused(tmp_path, stamps, lines):
    write_kitti(tmp_path, {"image_00": FRONT})
    (tmp_path / "image_00/timestamps.txt").write_text("\n".join(stamps))
    with pytest.raises(SourceError, match=f"image_00: 3 pictures in data, {lines} lines in timestamps.txt"):
        KittiRaw(tmp_path)


@pytest.mark.parametrize("line", ["yesterday", "1317042272.35", "2011-09-26 13:04:32.x", "2011-13-26 13:04:32.0"])
def test_a_line_that_is_no_time_is_refused_with_its_number(tmp_path, line):
    write_kitti(tmp_path, {"image_00": [FRONT[0], line, FRONT[2]]})
    with pytest.raises(SourceError, match=r"timestamps\.txt:2: got .*expected YYYY-MM-DD"):
        KittiRaw(tmp_path)


@pytest.mark.parametrize("stamps", [[FRONT[0], FRONT[2], FRONT[1]], [FRONT[0], FRONT[0], FRONT[1]]])
def test_time_that_does_not_advance_ends_the_recording_and_names_the_frame(tmp_path, stamps):
    frames = KittiRaw(write_kitti(tmp_path, {"image_00": stamps})).frames()
    with pytest.raises(
        SourceError, match=r"camera image_00, frame [12] \(000000000[12]\): captured at .* expected later"
    ):
        list(frames)


def test_missing_timestamps_are_refused(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT})
    (tmp_path / "image_00/timestamps.txt").unlink()
    with pytest.raises(SourceError, match=r"timestamps\.txt: cannot be read"):
        KittiRaw(tmp_path)


def test_a_picture_without_a_number_is_refused(tmp_path):
    write_kitti(tmp_path, {"image_00": FRONT})
    (tmp_path / "image_00/data/0000000001.png").rename(tmp_path / "image_00/data/b.png")
    with pytest.raises(SourceError, match=r"b\.png: expected a number for a name"):
        KittiRaw(tmp_path)


@pytest.mark.shared
def test_a_real_drive_with_four_cameras_comes_in_capture_order(shared_data):
    source = KittiRaw(shared_data / "clips" / "kitti_drive_0005_80f")
    assert [camera.camera_id for camera in source.cameras] == ["image_00", "image_01", "image_02", "image_03"]
    assert {(camera.width_px, camera.height_px) for camera in source.cameras} == {(1242, 375)}
    assert all(9.4 < (camera.rate_hz or 0) < 10.1 for camera in source.cameras)
    frames = [(frame.captured_ns, frame.camera_id, frame.frame_id) for frame in source.frames()]
    assert len(frames) == 320
    assert [stamp for stamp, _, _ in frames] == sorted(stamp for stamp, _, _ in frames)
    assert frames[0] == (1317042272345323776, "image_03", 0)
