"""A recorded drive: a folder with `drive.yaml`, one video and one table of capture times a camera, perhaps labels.

::

    format: tollgate-drive/1
    name: sample drive
    licence: Apache-2.0
    classes: [car, truck, pedestrian, cyclist]      what the labels may name
    cameras:
    - camera_id: front
      video: front.mp4
      timestamps: front.timestamps.csv              frame_id,captured_ns: one line a picture of the video, in its order
      width: 1280                                   px
      height: 720                                   px
      fps_hz: 30.0                                  nominal; the timestamps are the truth
      intrinsics: {fx_px: …, fy_px: …, cx_px: …, cy_px: …}
      mount: {…}                                    where the camera sits on the vehicle
    labels: labels.jsonl                            optional: ground truth, one JSON line a frame
    conditions: [{…}]                               optional: light and weather along the drive
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.source import Camera, chosen_cameras, in_capture_order
from perception.sources.video import VideoSource

DRIVE_FILE = "drive.yaml"

_REFUSAL = Refusal(SourceError, "perception/sources/drive.py")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DriveCamera(_Strict):
    """One camera of the drive; its files lie beside `drive.yaml`."""

    camera_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    video: str
    timestamps: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fps_hz: float = Field(gt=0)
    intrinsics: dict[str, JsonValue] = Field(default_factory=dict)
    mount: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("video", "timestamps")
    @classmethod
    def _lies_beside(cls, value: str) -> str:
        if Path(value).name != value:
            raise ValueError("is no plain file name beside drive.yaml")
        return value


class Drive(_Strict):
    """What `drive.yaml` says."""

    format: Literal["tollgate-drive/1"]
    name: str
    licence: str = "unknown"
    seed: int | None = None
    classes: tuple[str, ...] = ()
    cameras: tuple[DriveCamera, ...] = Field(min_length=1)
    labels: str | None = None
    conditions: tuple[dict[str, JsonValue], ...] = ()

    @model_validator(mode="after")
    def _cameras_are_distinct(self) -> Drive:
        names = [camera.camera_id for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError("cameras: the same camera_id stands twice")
        return self

    @classmethod
    def load(cls, path: Path) -> Drive:
        """Read `drive.yaml`; `path` is that file or its folder.

        Raises:
            SourceError: missing, no YAML, or with missing, unknown or impossible fields.
        """
        path = path / DRIVE_FILE if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read ({error}); expected a recorded drive there") from error
        return model_from_yaml(cls, text, where=str(path), refusal=_REFUSAL)


class DriveSource:
    """The frames of a recorded drive, with the capture times its cameras wrote.

    `frame_id` and `captured_ns` come from the table, so a picture lost at recording is a gap in `frame_id`. `name` is
    the frame_id with leading zeros.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        """Open every video and read every table.

        Args:
            path: the folder, or its `drive.yaml`.
            cameras: the cameras wanted; empty means all.

        Raises:
            SourceError: a file is missing or damaged, a camera unknown, or video and table do not belong together.
        """
        self.drive = Drive.load(path)
        folder = path if path.is_dir() else path.parent
        wanted = chosen_cameras([camera.camera_id for camera in self.drive.cameras], cameras, where=path)
        chosen = [camera for camera in self.drive.cameras if camera.camera_id in wanted]
        takes = [_Take(folder, camera, among=len(chosen)) for camera in chosen]
        self._takes = {take.camera.camera_id: take for take in takes}
        self.cameras = tuple(take.camera for take in takes)

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(name) for name in self._takes])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        return self._takes[camera_id].frames()

    def close(self) -> None:
        """See `FrameSource.close`. Every iterator holds its own files; none is held here."""


class _Take:
    """One camera's video with its table of times."""

    def __init__(self, folder: Path, entry: DriveCamera, *, among: int) -> None:
        self._video = VideoSource(folder / entry.video, among=among)
        self._stamps = _stamps(folder / entry.timestamps)
        self._where = folder / entry.video
        (video,) = self._video.cameras
        if (video.width_px, video.height_px) != (entry.width, entry.height):
            raise SourceError(
                f"{self._where}: got pictures of {video.width_px}x{video.height_px}, {DRIVE_FILE} says "
                f"{entry.width}x{entry.height} (px); correct the one that is wrong"
            )
        if video.frame_count is not None:
            self._compare(video.frame_count)
        self.camera = Camera(entry.camera_id, entry.width, entry.height, entry.fps_hz, len(self._stamps))

    def frames(self) -> Generator[Frame]:
        """Pictures with identity and time from the table."""
        count = 0
        for count, frame in enumerate(self._video.camera_frames(self.camera.camera_id), 1):
            if count > len(self._stamps):
                self._compare(count)
            frame_id, captured_ns = self._stamps[count - 1]
            yield replace(frame, frame_id=frame_id, captured_ns=captured_ns, name=f"{frame_id:06d}")
        self._compare(count)

    def _compare(self, pictures: int) -> None:
        if pictures != len(self._stamps):
            raise SourceError(
                f"{self._where}: got {pictures} pictures, its timestamps have {len(self._stamps)} lines, expected as "
                "many; they are not of one recording: copy the drive again"
            )


def _stamps(path: Path) -> tuple[tuple[int, int], ...]:
    """Pairs of frame_id and captured_ns from a table `frame_id,captured_ns`.

    Raises:
        SourceError: unreadable, another header, or a line that is not two whole numbers.
    """
    try:
        with path.open(encoding="ascii", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({error}), expected a table frame_id,captured_ns") from error
    if header != ["frame_id", "captured_ns"]:
        raise SourceError(f"{path}: got the header {','.join(header)!r}, expected frame_id,captured_ns; correct it")
    return tuple(_stamp(row, where=f"{path}:{line}") for line, row in enumerate(rows, 2))


def _stamp(row: Sequence[str], *, where: str) -> tuple[int, int]:
    if len(row) != 2 or not all(field.strip().lstrip("-").isdecimal() for field in row):
        raise SourceError(
            f"{where}: got {','.join(row)!r}, expected frame_id,captured_ns (whole numbers, ns); correct it"
        )
    return int(row[0]), int(row[1])
