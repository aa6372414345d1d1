"""A drive of the KITTI raw data set: up to four cameras, each with the time of every picture.

Source: A. Geiger, P. Lenz, C. Stiller, R. Urtasun, Vision meets Robotics: The KITTI Dataset, IJRR 2013; layout and time
format by the data set's own readme.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.pictures import picture_files, read_picture
from perception.sources.source import Camera, chosen_cameras, in_capture_order

CAMERA_FOLDERS = "image_[0-9][0-9]"
_NS = 1_000_000_000


class KittiRaw:
    """Cameras `image_00`, `image_01` (grey, given as three equal channels), `image_02`, `image_03` (colour).

    `captured_ns` is the instant in `timestamps.txt`, to the nanosecond, counted from 1970 as if it were UTC: the data
    set names no time zone. `frame_id` is the number in the picture's name, `name` the name's stem.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        """List the pictures, read all timestamps and the first picture of each camera.

        Args:
            path: the folder that holds `image_00` and its sisters.
            cameras: the cameras wanted; empty means all.

        Raises:
            SourceError: no camera, a camera unknown, or pictures and timestamps that do not belong together.
        """
        present = [folder.name for folder in sorted(path.glob(CAMERA_FOLDERS)) if (folder / "data").is_dir()]
        if not present:
            raise SourceError(
                f"{path}: holds no image_00/data or its sisters, expected KITTI raw; choose another folder"
            )
        self._takes = {name: _take_of(path / name) for name in chosen_cameras(present, cameras, where=path)}
        self.cameras = tuple(_camera_of(name, take) for name, take in self._takes.items())

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(name) for name in self._takes])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        take = self._takes[camera_id]
        for file, captured_ns in zip(take.files, take.captured_ns, strict=True):
            yield Frame(read_picture(file), camera_id, int(file.stem), captured_ns, file.stem)

    def close(self) -> None:
        """See `FrameSource.close`. Nothing is held open."""


@dataclass(frozen=True, slots=True)
class _Take:
    """The pictures of one camera and when each was taken."""

    files: tuple[Path, ...]
    captured_ns: tuple[int, ...]


def _take_of(folder: Path) -> _Take:
    files, captured_ns = picture_files(folder / "data"), _timestamps(folder / "timestamps.txt")
    if unnumbered := [file for file in files if not file.stem.isdecimal()]:
        raise SourceError(f"{unnumbered[0]}: expected a number for a name, as KITTI raw has it; rename or remove it")
    if len(files) != len(captured_ns) or not files:
        raise SourceError(
            f"{folder}: {len(files)} pictures in data, {len(captured_ns)} lines in timestamps.txt, expected as many of "
            "the one as of the other and at least 1; copy the drive again"
        )
    return _Take(files, captured_ns)


def _camera_of(name: str, take: _Take) -> Camera:
    height_px, width_px = read_picture(take.files[0]).shape[:2]
    span_ns = take.captured_ns[-1] - take.captured_ns[0]
    rate_hz = (len(take.files) - 1) * _NS / span_ns if span_ns > 0 else None
    return Camera(name, width_px, height_px, rate_hz, len(take.files))


def _timestamps(path: Path) -> tuple[int, ...]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); copy the drive again") from error
    return tuple(_nanoseconds(line, where=f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip())


def _nanoseconds(text: str, *, where: str) -> int:
    """`2011-09-26 13:04:32.351950336` in nanoseconds since 1970; no float could hold it."""
    seconds, _, fraction = text.strip().partition(".")
    try:
        whole = datetime.strptime(seconds, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
        return int(whole.timestamp()) * _NS + int(fraction[:9].ljust(9, "0"))
    except ValueError as error:
        raise SourceError(
            f"{where}: got {text.strip()!r}, expected YYYY-MM-DD HH:MM:SS.nnnnnnnnn; correct it"
        ) from error
