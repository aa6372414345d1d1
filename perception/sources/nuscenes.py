"""A folder laid out as nuScenes: pictures of several cameras, described by JSON tables.

Source: H. Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020; tables by the data set's
schema, nuscenes.org/nuscenes. They are read as they are: of all they say, only names and times are needed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.pictures import read_picture
from perception.sources.source import Camera, chosen_cameras, in_capture_order

SAMPLE_TABLES = "v1.0-*/sample_data.json"
_NS_PER_US = 1000


class _Sensor(BaseModel):
    token: str
    channel: str
    modality: str


class _CalibratedSensor(BaseModel):
    token: str
    sensor_token: str


class _SampleData(BaseModel):
    calibrated_sensor_token: str
    timestamp: int
    filename: str


_Row = TypeVar("_Row", bound=BaseModel)


class NuScenes:
    """Every camera of the data set, named after its channel (`CAM_FRONT` …), key frames and sweeps in one sequence.

    `captured_ns` is the table's timestamp (microseconds since 1970, the sensor's). Scenes follow each other in time, so
    `captured_ns` jumps between them. `name` is the picture's stem.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        """Read the tables.

        Args:
            path: the folder that holds `v1.0-…`, `samples` and `sweeps`.
            cameras: the cameras wanted; empty means all.

        Raises:
            SourceError: a table is missing or damaged, there is no camera, or one wanted is unknown.
        """
        takes = _takes(path)
        if not takes:
            raise SourceError(f"{path}: its tables name no camera picture, expected at least 1; choose another folder")
        self._takes = {name: takes[name] for name in chosen_cameras(sorted(takes), cameras, where=path)}
        self.cameras = tuple(_camera_of(name, shots) for name, shots in self._takes.items())

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(name) for name in self._takes])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        for frame_id, shot in enumerate(self._takes[camera_id]):
            yield Frame(read_picture(shot.file), camera_id, frame_id, shot.captured_ns, shot.file.stem)

    def close(self) -> None:
        """See `FrameSource.close`. Nothing is held open."""


@dataclass(frozen=True, slots=True, order=True)
class _Shot:
    captured_ns: int
    file: Path


def _takes(path: Path) -> dict[str, list[_Shot]]:
    """Camera → its pictures in order of time."""
    tables = sorted(path.glob(SAMPLE_TABLES))
    if len(tables) != 1:
        raise SourceError(f"{path}: holds {len(tables)} of {SAMPLE_TABLES}, expected 1; choose another folder")
    folder = tables[0].parent
    channels = {row.token: row.channel for row in _table(folder, _Sensor) if row.modality == "camera"}
    sensors = {row.token: row.sensor_token for row in _table(folder, _CalibratedSensor)}
    takes: dict[str, list[_Shot]] = {}
    for row in _table(folder, _SampleData):
        channel = channels.get(sensors.get(row.calibrated_sensor_token, ""))
        if channel is not None:
            takes.setdefault(channel, []).append(_Shot(row.timestamp * _NS_PER_US, path / row.filename))
    return {channel: sorted(shots) for channel, shots in takes.items()}


_FILES: dict[type[BaseModel], str] = {
    _Sensor: "sensor.json",
    _CalibratedSensor: "calibrated_sensor.json",
    _SampleData: "sample_data.json",
}


def _table(folder: Path, row: type[_Row]) -> list[_Row]:
    path = folder / _FILES[row]
    rows: TypeAdapter[Any] = TypeAdapter(list[row])  # type: ignore[valid-type]
    try:
        found: list[_Row] = rows.validate_json(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); copy the data set's tables again") from error
    except ValidationError as error:
        raise SourceError(f"{path}: {complaints_of(error)}; copy the data set's tables again") from error
    return found


def _camera_of(name: str, shots: Sequence[_Shot]) -> Camera:
    height_px, width_px = read_picture(shots[0].file).shape[:2]
    return Camera(name, width_px, height_px, None, len(shots))
