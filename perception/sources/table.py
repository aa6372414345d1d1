"""Which kinds of recording exist, and which of them lies at a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perception.errors import SourceError
from perception.kinds import Kind
from perception.sources.cameras import LIVE_UNDERSTOOD, is_live, named, open_cameras
from perception.sources.drive import DRIVE_FILE
from perception.sources.kitti_raw import CAMERA_FOLDERS
from perception.sources.nuscenes import SAMPLE_TABLES
from perception.sources.pictures import PICTURE_SUFFIXES, picture_files
from perception.sources.prefetch import Prefetched
from perception.sources.source import FrameSource, Recording

SOURCES: dict[str, Kind] = {
    "drive": Kind("perception.sources.drive", "DriveSource"),
    "image_folder": Kind("perception.sources.image_folder", "ImageFolder"),
    "kitti_raw": Kind("perception.sources.kitti_raw", "KittiRaw"),
    "mcap": Kind("perception.sources.mcap_file", "McapFile", "recordings"),
    "nuscenes": Kind("perception.sources.nuscenes", "NuScenes"),
    "rosbag2": Kind("perception.sources.rosbag2", "Rosbag2", "recordings"),
    "video": Kind("perception.sources.video", "VideoSource"),
}
BAG_FILE = "metadata.yaml"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".h264", ".h265", ".hevc")
UNDERSTOOD = (
    f"a folder with {DRIVE_FILE}, a rosbag2 folder ({BAG_FILE}), a KITTI raw drive (image_00/data …), a nuScenes "
    f"folder (v1.0-…/sample_data.json), a folder of pictures ({' '.join(PICTURE_SUFFIXES)}), an MCAP file (.mcap) or a "
    f"video file ({' '.join(VIDEO_SUFFIXES)}), or {LIVE_UNDERSTOOD}"
)


def source_class(kind: str) -> Any:  # noqa: ANN401  (constructors differ by kind)
    """The class of a kind of recording.

    Raises:
        SourceError: unknown kind, or its libraries are not installed.
    """
    if kind not in SOURCES:
        raise SourceError(f"kind of recording {kind!r} is unknown, expected one of {', '.join(SOURCES)}")
    return SOURCES[kind].load(f"recordings of kind {kind}", SourceError)


def open_source(path: Path, *, cameras: Sequence[str] = ()) -> Prefetched:
    """Open the recording at `path`, decoded ahead of its reader.

    Args:
        path: decided by what lies there; `KIND:PATH` with a name in `SOURCES` decides for you.
        cameras: the cameras wanted; empty means all.

    Raises:
        SourceError: nothing lies there, nothing that is understood, or it cannot be opened.
    """
    if is_live(path):
        raise SourceError(f"{named(path)}: is a running camera, expected a recording; play cameras with: tollgate run")
    kind, path = kind_and_path(path)
    recording: Recording = source_class(kind)(path, cameras=cameras)
    return Prefetched(recording)


def open_frames(path: Path, *, cameras: Sequence[str] = ()) -> FrameSource:
    """Open the recording or the running cameras at `path`: `open_source` or `open_cameras`.

    Raises:
        SourceError: nothing that is understood is there, or it cannot be opened.
    """
    return open_cameras(path, cameras=cameras) if is_live(path) else open_source(path, cameras=cameras)


def kind_and_path(path: Path) -> tuple[str, Path]:
    """The kind of a recording and where it lies, with the prefix `KIND:` of `path` heeded and taken off.

    Raises:
        SourceError: nothing lies there, or nothing that is understood.
    """
    kind, colon, rest = str(path).partition(":")
    if colon and rest and kind in SOURCES and not path.exists():
        return kind, Path(rest)
    return kind_at(path), path


def kind_at(path: Path) -> str:
    """The kind of recording that lies at a path: a name in `SOURCES`.

    Raises:
        SourceError: nothing lies there, or nothing that is understood.
    """
    if not path.exists():
        raise SourceError(f"{path}: does not exist, expected {UNDERSTOOD}")
    if path.is_file():
        return _kind_of_file(path)
    if (path / DRIVE_FILE).is_file():
        return "drive"
    if (path / BAG_FILE).is_file():
        return "rosbag2"
    if any(path.glob(SAMPLE_TABLES)):
        return "nuscenes"
    if any((folder / "data").is_dir() for folder in path.glob(CAMERA_FOLDERS)):
        return "kitti_raw"
    if picture_files(path):
        return "image_folder"
    raise SourceError(f"{path}: is a folder that holds {_content(path)}, expected {UNDERSTOOD}")


def _kind_of_file(path: Path) -> str:
    if path.name == DRIVE_FILE:
        return "drive"
    if path.suffix.lower() == ".mcap":
        return "mcap"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    suffix = path.suffix or "without a suffix"
    raise SourceError(f"{path}: is a file {suffix}, expected {UNDERSTOOD}; if it is a video, say video:{path}")


def _content(folder: Path) -> str:
    """What a folder holds, in a few words."""
    names = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
