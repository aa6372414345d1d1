from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources.image_folder import ImageFolder
from tests.perception.sources.recordings import HEIGHT_PX, WIDTH_PX, index_of, picture, write_pictures


def jpeg_with_thumbnail(pixels: np.ndarray) -> bytes:
    """A JPEG whose first segment holds a whole JPEG of its own, as cameras write it."""
    whole = cv2.imencode(".jpg", pixels)[1].tobytes()
    thumbnail = cv2.imencode(".jpg", cv2.resize(pixels, (32, 16)))[1].tobytes()
    return whole[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]


def test_pictures_come_in_natural_order_of_their_names(tmp_path):
    names = ["frame_1.png", "frame_2.png", "frame_10.png", "frame_100.png", "other_3.png"]
    write_pictures(tmp_path, names)
    frames = list(ImageFolder(tmp_path).frames())
    assert [index_of(frame.pixels) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.name for frame in frames] == [Path(name).stem for name in names]


@pytest.mark.parametrize(("rate_hz", "period_ns"), [(None, 100_000_000), (30.0, 33_333_333), (2.0, 500_000_000)])
def test_times_are_made_up_at_the_stated_rate(tmp_path, rate_hz, period_ns):
    source = ImageFolder(write_pictures(tmp_path, ["a.png", "b.png", "c.png"]), rate_hz=rate_hz)
    assert [frame.captured_ns for frame in source.frames()][:2] == [0, period_ns]
    assert source.cameras[0].rate_hz == (rate_hz or 10.0)


def test_the_camera_is_named_after_the_folder_and_counts_its_pictures(tmp_path):
    (camera,) = ImageFolder(write_pictures(tmp_path / "front", ["a.png", "b.JPG"])).cameras
    assert (camera.camera_id, camera.frame_count) == ("front", 2)
    assert (camera.width_px, camera.height_px) == (WIDTH_PX, HEIGHT_PX)


def test_a_folder_given_as_a_dot_has_its_own_name(tmp_path, monkeypatch):
    write_pictures(tmp_path / "front", ["a.png"])
    monkeypatch.chdir(tmp_path / "front")
    assert ImageFolder(Path()).cameras[0].camera_id == "front"


def test_pictures_of_other_sizes_and_grey_ones_come_as_they_are(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), picture(1))
    cv2.imwrite(str(tmp_path / "2.png"), picture(2, width_px=200, height_px=100))
    cv2.imwrite(str(tmp_path / "3.png"), picture(3)[:, :, 0])
    small, large, grey = (frame.pixels for frame in ImageFolder(tmp_path).frames())
    assert (small.shape, large.shape) == ((HEIGHT_PX, WIDTH_PX, 3), (100, 200, 3))
    assert np.array_equal(grey[:, :, 0], grey[:, :, 1])
    assert np.array_equal(grey[:, :, 0], grey[:, :, 2])


def test_what_is_no_picture_is_left_alone(tmp_path):
    write_pictures(tmp_path, ["a.png"])
    (tmp_path / "labels.txt").write_text("none")
    (tmp_path / "._a.png").write_bytes(b"left by another system")
    assert [frame.name for frame in ImageFolder(tmp_path).frames()] == ["a"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(SourceError, match=r"holds no picture, expected .jpg"):
        ImageFolder(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read .No such file"):
        ImageFolder(tmp_path / "nothing")


def test_a_rate_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rate_hz: got 0, expected above 0 \(Hz\)"):
        ImageFolder(write_pictures(tmp_path, ["a.png"]), rate_hz=0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("kept", [0, 20, -30])
def test_a_truncated_picture_is_named_after_those_before_it(tmp_path, suffix, kept):
    write_pictures(tmp_path, ["a.png", f"b{suffix}"])
    whole = (tmp_path / f"b{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(whole[:kept])
    frames = ImageFolder(tmp_path).frames()
    assert next(frames).name == "a"
    with pytest.raises(SourceError, match=rf"b\{suffix}: .*copy"):
        next(frames)


def test_nothing_is_said_of_a_truncated_picture_but_the_error(tmp_path, capfd):
    (path,) = write_pictures(tmp_path, ["a.png"]).iterdir()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"a\.png: cannot be decoded"):
        ImageFolder(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_truncated_jpeg_is_noticed_though_its_thumbnail_is_whole(tmp_path):
    whole = jpeg_with_thumbnail(picture(0))
    (tmp_path / "a.jpg").write_bytes(whole)
    assert next(ImageFolder(tmp_path).frames()).pixels.shape == (HEIGHT_PX, WIDTH_PX, 3)
    (tmp_path / "a.jpg").write_bytes(whole[:-40])
    with pytest.raises(SourceError, match=r"a\.jpg: JPEG ends inside its picture"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_is_no_picture_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"not a picture" * 100)
    with pytest.raises(SourceError, match=rf"a\{suffix}: cannot be decoded \(1300 bytes\)"):
        ImageFolder(tmp_path)


def test_a_header_that_promises_an_impossible_size_is_refused(tmp_path):
    whole = bytearray(cv2.imencode(".bmp", picture(0))[1].tobytes())
    whole[18:26] = struct.pack("<ii", 1 << 20, 1 << 20)
    (tmp_path / "a.bmp").write_bytes(whole)
    with pytest.raises(SourceError, match=r"a\.bmp: cannot be decoded"):
        ImageFolder(tmp_path)
