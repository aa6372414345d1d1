"""Annotated videos, one a camera, that play everywhere: H.264 in MP4, 4:2:0, index in front."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from perception.errors import OutputError
from perception.files import cannot_write
from perception.pipeline import FrameResult
from perception.record import RunHeader
from perception.sinks.drawing import Pixels, draw
from perception.sinks.staged import Staged

__all__ = ["OverlayVideos", "draw"]

_TICKS_PER_S = 90_000  # the clock of MPEG systems, fine enough for any camera
_NOMINAL_RATE_HZ = 30  # tells the encoder what to expect; the frames carry their own times
_BT709 = 1
_ENCODER, _ENCODING = (
    "libx264",
    {"preset": "superfast", "crf": "23"},
)  # half the work of veryfast at the same size and sharpness


class OverlayVideos:
    """Writes `CAMERA.mp4` into a folder for every camera that shows up.

    A frame stands in the video as long as it stood before the camera, skipped ones too, dimmed. All videos appear when
    the sink is closed.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Note where the videos go; a file is begun with a camera's first frame.

        Args:
            path: the folder; made where it is missing.
            header: names the classes.

        Raises:
            OutputError: the path is a file, or the encoder is not there.
        """
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a folder for the videos; choose another output path")
        if _ENCODER not in av.codecs_available:
            raise OutputError(
                f"{path}: this PyAV has no {_ENCODER}; install its wheel: pip install --force-reinstall av"
            )
        self._folder = path
        self._classes = header.classes
        self._videos: dict[str, _Video] = {}

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        pixels = draw(outcome, self._classes)
        camera_id = outcome.frame.camera_id
        if camera_id not in self._videos:
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", camera_id)
            self._videos[camera_id] = _Video(self._folder / f"{name}.mp4", pixels, outcome.frame.captured_ns)
        self._videos[camera_id].add(pixels, outcome.frame.captured_ns)

    def close(self) -> None:
        """See `Sink.close`."""
        for video in self._videos.values():
            video.finish()
        while self._videos:
            self._videos.popitem()[1].keep()

    def abort(self) -> None:
        """See `Sink.abort`."""
        while self._videos:
            self._videos.popitem()[1].discard()


class _Video:
    """One video being written."""

    def __init__(self, path: Path, first: Pixels, first_captured_ns: int) -> None:
        self._path = path
        self._first_ns = first_captured_ns
        self._picture_size = first.shape[:2]
        self._staged = Staged(path)
        self._reformatter = VideoReformatter()
        with _faults_named(path):
            self._container = av.open(str(self._staged.path), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream(_ENCODER, rate=_NOMINAL_RATE_HZ, options=_ENCODING)
            # 4:2:0 halves both sides, so both must be even.
            self._stream.height, self._stream.width = (side + side % 2 for side in self._picture_size)
            self._stream.pix_fmt = "yuv420p"
            encoder = self._stream.codec_context
            encoder.time_base = Fraction(1, _TICKS_PER_S)
            encoder.colorspace = encoder.color_primaries = encoder.color_trc = _BT709
            encoder.color_range = ColorRange.MPEG

    def add(self, pixels: Pixels, captured_ns: int) -> None:
        """Encode one picture at its time."""
        picture = VideoFrame.from_ndarray(self._fitted(pixels), format="bgr24")
        picture = self._reformatter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )
        picture.pts = round((captured_ns - self._first_ns) * _TICKS_PER_S / 1_000_000_000)
        picture.time_base = Fraction(1, _TICKS_PER_S)
        with _faults_named(self._path):
            self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Encode what the encoder holds back and write the index."""
        with _faults_named(self._path):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def keep(self) -> None:
        """Let the finished video take its place."""
        self._staged.keep()

    def discard(self) -> None:
        """Leave nothing."""
        with suppress(av.error.FFmpegError, OSError):
            self._container.close()
        self._staged.discard()

    def _fitted(self, pixels: Pixels) -> Pixels:
        """At the video's size: a picture of another size is fitted into it, odd sides get their last line twice."""
        height_px, width_px = self._picture_size
        if pixels.shape[:2] != self._picture_size:
            scale = min(height_px / pixels.shape[0], width_px / pixels.shape[1])
            smaller = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            pixels = np.zeros((height_px, width_px, 3), np.uint8)
            pixels[: smaller.shape[0], : smaller.shape[1]] = smaller[:height_px, :width_px]
        if height_px % 2 or width_px % 2:
            pixels = cv2.copyMakeBorder(pixels, 0, height_px % 2, 0, width_px % 2, cv2.BORDER_REPLICATE)
        return pixels


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Say in one sentence what the encoder or the disk complained about."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
    except av.error.FFmpegError as error:
        raise OutputError(f"{path}: cannot be encoded ({error.strerror or error}); leave the overlay out") from error
