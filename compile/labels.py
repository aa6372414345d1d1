"""Ground truth: what really stood in a frame, read from a drive, a KITTI folder or a folder of masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import LabelError

DRIVE_FILE = "labels.jsonl"
KITTI_OCCLUSION = {0: "visible", 1: "partly", 2: "largely", 3: "unknown"}
BoxPx = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LabelledObject:
    """One object of the ground truth.

    Attributes:
        class_name: as the labels call it.
        box_px: x1 y1 x2 y2 in pixels of the picture.
        truncation: share of the object outside the picture, 0..1; None where the labels do not say.
        occlusion: share hidden behind something, 0..1; None where the labels do not say.
        distance_m: from the camera, in metres over the ground; None where the labels do not say.
        track_id: the same object in other frames of the recording; None where the labels do not say.
        hidden: the same where the labels tell a level and no share: "visible", "partly", "largely" or "unknown".
        ignore: a region where nothing can be said: finding something there is neither right nor wrong.
    """

    class_name: str
    box_px: BoxPx
    truncation: float | None = None
    occlusion: float | None = None
    distance_m: float | None = None
    track_id: int | None = None
    hidden: str | None = None
    ignore: bool = False


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """The objects of one frame, and the conditions it was taken in where the labels name them."""

    objects: tuple[LabelledObject, ...]
    light: str | None = None
    weather: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledMask:
    """A class for every pixel of one frame, in a file that is read when asked for."""

    path: Path

    def values(self) -> NDArray[np.uint8]:
        """(H, W) uint8.

        Raises:
            LabelError: not a picture of one channel of 8 bits.
        """
        mask = cv2.imread(str(self.path), cv2.IMREAD_UNCHANGED)
        if mask is None:
            raise LabelError(f"{self.path}: is no readable picture, expected a PNG mask; copy the labels again")
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise LabelError(
                f"{self.path}: got {mask.dtype} {list(mask.shape)}, expected one channel of 8 bits with a class value "
                "a pixel; export the masks as class indices, not as colours"
            )
        return np.asarray(mask, np.uint8)


class FrameIdentity(Protocol):
    """What finds the labels of a frame: a `Frame`, or whatever a log kept of it."""

    @property
    def camera_id(self) -> str:
        """See `Frame`."""

    @property
    def frame_id(self) -> int:
        """See `Frame`."""

    @property
    def name(self) -> str:
        """See `Frame`."""


Truth = TypeVar("Truth", LabelledFrame, LabelledMask)


@dataclass(frozen=True, slots=True)
class Labels(Generic[Truth]):
    """The ground truth of one recording.

    Attributes:
        path: file or folder it was read from.
        frames: key → truth.
        key_of: the key of a frame: camera and number for drives, its name for folders.
    """

    path: Path
    frames: dict[str, Truth]
    key_of: Callable[[FrameIdentity], str]

    def of(self, frame: FrameIdentity) -> Truth | None:
        """The truth of a frame; None where it is not labelled."""
        return self.frames.get(self.key_of(frame))

    def of_all(self, frames: Sequence[FrameIdentity]) -> tuple[Truth | None, ...]:
        """The truth of every frame of a recording.

        Raises:
            LabelError: not one of the frames is labelled.
        """
        truths = tuple(self.of(frame) for frame in frames)
        if not any(truth is not None for truth in truths):
            seen = self.key_of(frames[0]) if frames else "none"
            raise LabelError(
                f"{self.path}: labels {len(self.frames)} frames (first: {min(self.frames)}), but none of the "
                f"{len(frames)} frames of the recording (first: {seen}); give the labels of this recording"
            )
        return truths


def read_objects(path: Path) -> Labels[LabelledFrame]:
    """Labelled objects: a drive's `labels.jsonl` or its folder, or a folder of KITTI `label_2` text files.

    Raises:
        LabelError: nothing of the kind is there, or a line cannot be read; file and line are named.
    """
    drive = path / DRIVE_FILE if path.is_dir() else path
    if drive.suffix == ".jsonl" and drive.is_file():
        return _read_drive(drive)
    return _read_kitti(_folder_with(path, "label_2", ".txt", f"{DRIVE_FILE} of a drive, or KITTI label files *.txt"))


def read_masks(path: Path) -> Labels[LabelledMask]:
    """A folder of PNG masks, each named as the picture it belongs to.

    Raises:
        LabelError: there are none.
    """
    folder = _folder_with(path, "masks", ".png", "masks *.png named as their pictures")
    return Labels(folder, {file.stem: LabelledMask(file) for file in sorted(folder.glob("*.png"))}, key_of=_by_name)


class _Edge(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


Share = Annotated[float, Field(ge=0, le=1)]


class _DriveObject(_Edge):
    class_name: str = Field(alias="class")
    box: BoxPx
    truncation: Share | None = None
    occlusion: Share | None = None
    distance_m: float | None = Field(default=None, ge=0)
    track_id: int | None = None
    ignore: bool = False

    def labelled(self) -> LabelledObject:
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "box"}
        return LabelledObject(box_px=self.box, **fields)


class _DriveLine(_Edge):
    camera_id: str
    frame_id: int
    light: str | None = None
    weather: str | None = None
    objects: tuple[_DriveObject, ...]


def _read_drive(file: Path) -> Labels[LabelledFrame]:
    frames: dict[str, LabelledFrame] = {}
    for number, text in enumerate(_text(file).splitlines(), start=1):
        try:
            line = _DriveLine.model_validate_json(text)
        except ValidationError as error:
            raise LabelError(
                f"{file}:{number}: {complaints_of(error)}; correct this line or render the drive again"
            ) from error
        key = f"{line.camera_id}/{line.frame_id}"
        if key in frames:
            raise LabelError(f"{file}:{number}: labels {key} a second time; remove one of the lines")
        objects = tuple(each.labelled() for each in line.objects)
        _require_boxes(objects, f"{file}:{number}")
        frames[key] = LabelledFrame(objects, line.light, line.weather)
    if not frames:
        raise LabelError(f"{file}: is empty, expected one line a frame; render the drive again")
    return Labels(file, frames, key_of=_by_camera_and_number)


def _read_kitti(folder: Path) -> Labels[LabelledFrame]:
    """Source: KITTI object development kit, readme.txt: type, truncated, occluded, alpha, box, size, location."""
    frames = {}
    for file in sorted(folder.glob("*.txt")):
        lines = [
            (number, text.split()) for number, text in enumerate(_text(file).splitlines(), start=1) if text.strip()
        ]
        objects = tuple(_kitti_object(fields, f"{file}:{number}") for number, fields in lines)
        frames[file.stem] = LabelledFrame(objects)
    return Labels(folder, frames, key_of=_by_name)


def _kitti_object(fields: Sequence[str], where: str) -> LabelledObject:
    try:
        truncated, occluded = float(fields[1]), int(fields[2])
        x1, y1, x2, y2 = (float(field) for field in fields[4:8])
        x_m, z_m = float(fields[11]), float(fields[13])
    except (ValueError, IndexError) as error:
        raise LabelError(
            f"{where}: got {' '.join(fields)[:80]!r}, expected 15 fields as in KITTI's label_2; copy the labels again"
        ) from error
    ignore = fields[0] == "DontCare"
    labelled = LabelledObject(
        class_name=fields[0],
        box_px=(x1, y1, x2, y2),
        truncation=truncated if truncated >= 0 else None,
        occlusion=0.0 if occluded == 0 else None,  # KITTI tells levels, not shares; level 0 is "fully visible"
        distance_m=None if ignore else math.hypot(x_m, z_m),
        hidden=KITTI_OCCLUSION.get(occluded),
        ignore=ignore,
    )
    _require_boxes((labelled,), where)
    return labelled


def _require_boxes(objects: Iterable[LabelledObject], where: str) -> None:
    for each in objects:
        x1, y1, x2, y2 = each.box_px
        if not (x1 < x2 and y1 < y2):
            raise LabelError(
                f"{where}: {each.class_name} has the box {list(each.box_px)}, expected x1 < x2 and y1 < y2 (px); "
                "correct this line"
            )


def _folder_with(path: Path, inner: str, suffix: str, what: str) -> Path:
    for folder in (path, path / inner):
        if folder.is_dir() and any(child.suffix == suffix for child in folder.iterdir()):
            return folder
    problem = "holds no labels" if path.exists() else "does not exist"
    raise LabelError(f"{path}: {problem}, expected {what}; give the folder they lie in")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{file}: cannot be read as text ({error}); copy the labels again") from error


def _by_name(frame: FrameIdentity) -> str:
    return frame.name


def _by_camera_and_number(frame: FrameIdentity) -> str:
    return f"{frame.camera_id}/{frame.frame_id}"
