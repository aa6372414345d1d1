from __future__ import annotations

from pathlib import Path

import pytest

from perception.errors import SourceError
from perception.sources.table import SOURCES, kind_at, open_source, source_class
from tests.perception.sources.recordings import write_drive, write_kitti, write_pictures, write_video

STAMPS = ["2011-09-26 13:04:32.1", "2011-09-26 13:04:32.2"]


def lay_out(kind: str, folder: Path) -> Path:
    """A recording of each kind."""
    if kind == "video":
        return write_video(folder / "front.mp4", 2)
    if kind == "image_folder":
        return write_pictures(folder / "front", ["a.png", "b.png"])
    if kind == "kitti_raw":
        return write_kitti(folder, {"image_02": STAMPS})
    return write_drive(folder, {"front": [10, 20]})


@pytest.mark.parametrize("kind", SOURCES)
def test_the_kind_is_decided_by_what_lies_there(tmp_path, kind):
    path = lay_out(kind, tmp_path)
    assert kind_at(path) == kind
    source = open_source(path)
    assert [frame.frame_id for frame in source.frames()] == [0, 1]
    source.close()


@pytest.mark.parametrize("kind", SOURCES)
def test_a_camera_that_is_not_there_is_refused_by_every_kind(tmp_path, kind):
    with pytest.raises(SourceError, match="has no camera 'left', it has "):
        open_source(lay_out(kind, tmp_path), cameras=["left"])


def test_a_drive_may_be_named_by_its_file(tmp_path):
    assert kind_at(lay_out("drive", tmp_path) / "drive.yaml") == "drive"


def test_a_prefix_decides_for_a_file_of_another_suffix(tmp_path):
    write_video(tmp_path / "front.mp4", 2).rename(tmp_path / "front.recording")
    with pytest.raises(SourceError, match=r"is a file \.recording, expected .*; if it is a video, say video:"):
        open_source(tmp_path / "front.recording")
    source = open_source(Path(f"video:{tmp_path}/front.recording"))
    assert len(list(source.frames())) == 2


def test_a_prefix_decides_where_two_kinds_lie(tmp_path):
    lay_out("drive", tmp_path)
    write_pictures(tmp_path, ["a.png"])
    assert kind_at(tmp_path) == "drive"
    assert [camera.frame_count for camera in open_source(Path(f"image_folder:{tmp_path}")).cameras] == [1]


def test_a_colon_in_a_name_is_no_prefix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "video:front.mp4", 2)
    assert len(list(open_source(Path("video:front.mp4")).frames())) == 2


def test_nothing_there_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"drive: does not exist, expected a folder with drive\.yaml"):
        open_source(tmp_path / "drive")


def test_a_folder_of_other_things_is_refused_and_they_are_named(tmp_path):
    with pytest.raises(SourceError, match="is a folder that holds nothing, expected"):
        open_source(tmp_path)
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt"):
        (tmp_path / name).touch()
    (tmp_path / "b").mkdir()
    with pytest.raises(
        SourceError, match=r"is a folder that holds a\.txt, b\.txt, b/ and 3 more, expected a folder with"
    ):
        open_source(tmp_path)


def test_an_unknown_kind_is_refused():
    with pytest.raises(SourceError, match="'bag' is unknown, expected one of drive, kitti_raw, image_folder, video"):
        source_class("bag")
