"""A folder of pictures as one camera."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.pictures import PICTURE_SUFFIXES, picture_files, read_picture
from perception.sources.source import Camera, Clock, chosen_cameras, in_capture_order

DEFAULT_RATE_HZ = 10.0


class ImageFolder:
    """Pictures in natural order of their names (frame_2 before frame_10); the camera is named after the folder.

    Pictures carry no capture time, so `captured_ns` is made up: frame n at n / `rate_hz` seconds, 10 Hz where nothing
    else is said. Latency against a deadline is real, time between frames is not. Pictures may differ in size: `cameras`
    states the size of the first, each frame its own.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = (), rate_hz: float | None = None) -> None:
        """List the pictures and read the first.

        Args:
            path: the folder; folders inside it are not looked into.
            cameras: the cameras wanted; none but the folder's name exists here.
            rate_hz: pictures per second of made-up time; None means 10.

        Raises:
            SourceError: no folder, no picture in it, or the first one cannot be decoded.
            ValueError: `rate_hz` is not above 0.
        """
        self._camera_id = path.resolve().name
        chosen_cameras([self._camera_id], cameras, where=path)
        self._rate_hz = DEFAULT_RATE_HZ if rate_hz is None else rate_hz
        if not self._rate_hz > 0:
            raise ValueError(f"rate_hz: got {rate_hz}, expected above 0 (Hz)")
        self._files = picture_files(path)
        if not self._files:
            raise SourceError(f"{path}: holds no picture, expected {' '.join(PICTURE_SUFFIXES)}; choose another folder")
        height_px, width_px = read_picture(self._files[0]).shape[:2]
        self.cameras = (Camera(self._camera_id, width_px, height_px, self._rate_hz, len(self._files), Clock.NOMINAL),)

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(self._camera_id)])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        for frame_id, file in enumerate(self._files):
            captured_ns = round(frame_id * 1_000_000_000 / self._rate_hz)
            yield Frame(read_picture(file), camera_id, frame_id, captured_ns, file.stem)

    def close(self) -> None:
        """See `FrameSource.close`. Nothing is held open."""
