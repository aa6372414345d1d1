"""Which running cameras can be read, how they are named, and several of them in one file.

An address is one of ::

    rtsp://user:password@host/stream     also rtsps://
    v4l2:/dev/video0                     or the device alone
    csi:0                                the sensor's number on a Jetson
    gstreamer:ELEMENT ! ELEMENT          anything else that GStreamer reads: what comes before its conversion

and a file `NAME.cameras.yaml` names several, with the mode that is asked of them ::

    format: tollgate-cameras/1
    cameras:
    - camera_id: front
      address: rtsp://10.0.0.2/front
    - camera_id: cabin
      address: v4l2:/dev/video0
      width: 1280           px
      height: 720           px
      rate_hz: 30
      input_format: mjpeg   of V4L2: as v4l2-ctl --list-formats names it for FFmpeg
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.errors import SourceError
from perception.sources.csi import Mode, argus, open_gstreamer
from perception.sources.live import Device, LiveSource
from perception.sources.rtsp import open_rtsp, without_password
from perception.sources.source import chosen_cameras
from perception.sources.v4l2 import open_v4l2

CAMERAS_SUFFIX = ".cameras.yaml"
LIVE_UNDERSTOOD = f"a running camera (rtsp://…, /dev/video0, csi:0, gstreamer:…, FILE{CAMERAS_SUFFIX})"
_REFUSAL = Refusal(SourceError, "docs/recordings.md")
_ADDRESS = re.compile(r"^(?P<kind>rtsps?|v4l2|csi|gstreamer):(?P<place>.+)$", re.DOTALL)


class CameraEntry(BaseModel):
    """One camera of a cameras file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    address: str
    width: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    rate_hz: int | None = Field(default=None, gt=0)
    input_format: str | None = None

    @model_validator(mode="after")
    def _size_is_whole(self) -> CameraEntry:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height: expected both or neither (px)")
        return self

    @property
    def mode(self) -> Mode:
        """What is asked of the camera, the usual where the file does not say."""
        usual = Mode()
        return Mode(self.width or usual.width_px, self.height or usual.height_px, self.rate_hz or usual.rate_hz)

    @property
    def v4l2_options(self) -> dict[str, str]:
        """The same for FFmpeg's reader; what the file does not say is left to the driver."""
        size = None if self.width is None else f"{self.width}x{self.height}"
        rate = None if self.rate_hz is None else str(self.rate_hz)
        told = {"video_size": size, "framerate": rate, "input_format": self.input_format}
        return {name: value for name, value in told.items() if value is not None}


class CamerasFile(BaseModel):
    """What a cameras file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-cameras/1"]
    cameras: tuple[CameraEntry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _cameras_are_distinct(self) -> CamerasFile:
        names = [camera.camera_id for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError("cameras: the same camera_id stands twice")
        return self


def is_live(path: Path) -> bool:
    """Whether running cameras are named, and no recording."""
    return path.name.endswith(CAMERAS_SUFFIX) or _address(str(path)) is not None


def open_cameras(path: Path, *, cameras: Sequence[str] = ()) -> LiveSource:
    """Start the cameras at an address, or those of a cameras file.

    Raises:
        SourceError: the file is damaged, a camera is unknown, cannot be opened, or shows nothing.
    """
    entries = _entries(path)
    wanted = chosen_cameras([entry.camera_id for entry in entries], cameras, where=named(path))
    chosen = [entry for entry in entries if entry.camera_id in wanted]
    rates_hz = {entry.camera_id: float(entry.rate_hz) for entry in chosen if entry.rate_hz}
    return LiveSource({entry.camera_id: _device(entry) for entry in chosen}, rates_hz=rates_hz)


def named(path: Path) -> str:
    """What may be shown and logged of an address: everything but a password."""
    found = _address(str(path))
    if found is None:
        return str(path)
    kind, place = found
    return without_password(f"{kind}:{place}") if kind in ("rtsp", "rtsps") else f"{kind}:{place}"


def _entries(path: Path) -> tuple[CameraEntry, ...]:
    if not path.name.endswith(CAMERAS_SUFFIX):
        return (CameraEntry(camera_id="camera", address=str(path)),)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); expected a list of cameras there") from error
    return model_from_yaml(CamerasFile, text, where=str(path), refusal=_REFUSAL).cameras


def _address(text: str) -> tuple[str, str] | None:
    """Kind and place. A path takes one of two slashes away: they come back here."""
    if re.fullmatch(r"/dev/video\d+", text):
        return "v4l2", text
    found = _ADDRESS.match(text)
    if found is None:
        return None
    kind, place = found["kind"], found["place"]
    return kind, f"//{place.lstrip('/')}" if kind in ("rtsp", "rtsps") else place


def _device(entry: CameraEntry) -> Device:
    found = _address(entry.address)
    if found is None:
        raise SourceError(f"camera {entry.camera_id}: got {entry.address!r}, expected {LIVE_UNDERSTOOD}; correct it")
    kind, place = found
    return _DEVICES[kind](place, entry)


def _rtsp(place: str, entry: CameraEntry) -> Device:
    return partial(open_rtsp, f"{'rtsps' if entry.address.startswith('rtsps') else 'rtsp'}:{place}")


def _v4l2(place: str, entry: CameraEntry) -> Device:
    return partial(open_v4l2, Path(place), options=entry.v4l2_options)


def _csi(place: str, entry: CameraEntry) -> Device:
    if not place.isdecimal():
        raise SourceError(f"camera {entry.camera_id}: got csi:{place}, expected the sensor's number: csi:0; correct it")
    return partial(open_gstreamer, argus(int(place), entry.mode), entry.mode, where=f"csi:{place}")


def _gstreamer(place: str, entry: CameraEntry) -> Device:
    return partial(open_gstreamer, tuple(shlex.split(place)), entry.mode, where=f"gstreamer:{place}")


_DEVICES: dict[str, Callable[[str, CameraEntry], Device]] = {
    "rtsp": _rtsp,
    "rtsps": _rtsp,
    "v4l2": _v4l2,
    "csi": _csi,
    "gstreamer": _gstreamer,
}
