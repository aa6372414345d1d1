from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perception.errors import SourceError
from perception.sources.table import SOURCES, kind_at, open_source, source_class
from tests.perception.sources.recordings import write_drive, write_kitti, write_pictures, write_video
from tests.perception.sources.robot_recordings import write_foxglove, write_nuscenes, write_rosbag2

STAMPS = ["2011-09-26 13:04:32.1", "2011-09-26 13:04:32.2"]


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "drive": lambda folder: write_drive(folder, {"front": [10, 20]}),
    "image_folder": lambda folder: write_pictures(folder / "front", ["a.png", "b.png"]),
    "kitti_raw": lambda folder: write_kitti(folder, {"image_02": STAMPS}),
    "mcap": lambda folder: write_foxglove(folder / "drive.mcap", {"/front": [10, 20]}),
    "nuscenes": lambda folder: write_nuscenes(folder, {"CAM_FRONT": [10, 20]}),
    "rosbag2": lambda folder: write_rosbag2(folder / "bag", {"/front": [10, 20]}),
    "video": lambda folder: write_video(folder / "front.mp4", 2),
}


def lay_out(kind: str, folder: Path) -> Path:
    """A recording of each kind."""
    return LAYOUTS[kind](folder)


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
    with pytest.raises(SourceError, match="'bag' is unknown, expected one of drive, image_folder, kitti_raw, mcap"):
        source_class("bag")


@pytest.mark.parametrize(("kind", "library"), [("mcap", "mcap"), ("rosbag2", "rosbags")])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(tmp_path, monkeypatch, kind, library):
    path = lay_out(kind, tmp_path)
    for module in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, SOURCES[kind].module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Absent(library), *sys.meta_path])
    with pytest.raises(SourceError, match=rf"{library}\S* is not installed, .*pip install 'tollgate\[recordings\]'"):
        open_source(path)


class _Absent:
    """Makes Python find no package of a name."""

    def __init__(self, library: str) -> None:
        self._library = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """As the import system asks."""
        if name.split(".")[0] == self._library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
