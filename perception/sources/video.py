"""A video file: every picture with the time its container gives it.

Decoders are made to hide damage: they repair what they can and go on. Here that would put invented pixels before a
network, so the recording ends with an error at a packet the decoder refuses (`err_detect=explode`), a picture it marks
as damaged, and a picture that was announced and never shown (`perception.sources.ledger`). What no decoder can know is
damage that happens to decode, H.265 above all, whose slices carry no check: for that, compare the file's digest.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.colours import Converter
from perception.sources.ledger import Ledger
from perception.sources.source import Camera, Clock, chosen_cameras, in_capture_order

_ANY_TEXT = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""PyAV refuses a file for a title in another encoding unless asked not to; from 19 on it never does."""

_EXACT = 1
"""Degrees by which a note of rotation may miss a quarter turn: cameras write it rounded, readers truncate it."""


class VideoSource:
    """One camera: the first video stream of a file that FFmpeg's libraries read (MP4, MOV, MKV, AVI, TS, …).

    `captured_ns` is the presentation time in the file, on the file's own clock; an uneven frame rate stays uneven. A
    rotation noted in the file is applied. Colours follow the file's own matrix and range, BT.601 where it says nothing.
    The camera is named after the file's stem. Pixels are read-only and live as long as somebody
    holds them; their memory is used again after that.
    """

    def __init__(self, path: Path, *, cameras: Sequence[str] = (), among: int = 1) -> None:
        """Open the file and decode its first picture.

        Args:
            path: the video file.
            cameras: the cameras wanted; none but the file's stem exists here.
            among: how many videos are read at once, this one among them: they share the cores.

        Raises:
            SourceError: missing, empty, no video, or its first picture cannot be decoded or turned upright.
        """
        chosen_cameras([path.stem], cameras, where=path)
        self._path, self._among = path, among
        with _opened(path, among) as (container, stream):
            rate, count = stream.average_rate, stream.frames
            pixels, _ = next(_pictures(path, container, stream))
        height_px, width_px = pixels.shape[:2]
        self.cameras = (
            Camera(path.stem, width_px, height_px, float(rate) if rate else None, count or None, Clock.FILE),
        )

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(self._path.stem)])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        with _opened(self._path, self._among) as (container, stream):
            for frame_id, (pixels, captured_ns) in enumerate(_pictures(self._path, container, stream)):
                yield Frame(pixels, camera_id, frame_id, captured_ns, f"{frame_id:06d}")

    def close(self) -> None:
        """See `FrameSource.close`. Every iterator holds its own file; none is held here."""


@contextmanager
def _opened(path: Path, among: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Lend the file and its first video stream, set to decode with its share of all cores but one, refusing damage."""
    container = _container(path)
    try:
        if not container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
            raise SourceError(
                f"{path}: holds no video (streams: {kinds}), expected a video stream; choose another file"
            )
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise SourceError(f"{path}: no decoder for its video here; convert it with: ffmpeg -i FILE NEW.mp4")
        # Decoding runs beside a network: one core is left to it, or its threads would wait for ours.
        stream.codec_context.thread_count = max(1, (len(os.sched_getaffinity(0)) - 1) // among)
        stream.thread_type = "AUTO"
        # A transport stream may be cut anywhere, and "explode" would refuse its first references to what was cut away;
        # it marks its damaged packets itself.
        if container.format.name != "mpegts":
            stream.codec_context.options = {"err_detect": "explode"}
        yield container, stream
    finally:
        container.close()


def _container(path: Path) -> InputContainer:
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{path}: is empty (0 bytes), expected a video file; copy or record it again")
        container: InputContainer = av.open(f"file:{path}", **_ANY_TEXT)
        return container
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except av.error.FFmpegError as error:
        raise SourceError(
            f"{path}: is no video that can be read ({reason_of(error)}); it is truncated or of another kind: copy it "
            "again, or convert it with: ffmpeg -i FILE NEW.mp4"
        ) from error


def _pictures(path: Path, container: InputContainer, stream: VideoStream) -> Generator[tuple[NDArray[np.uint8], int]]:
    """Pixels (H, W, 3) BGR, read-only, with their time in nanoseconds.

    Raises:
        SourceError: damage, a rotation that is no quarter turn, or colours that cannot be converted, after the
            pictures before it.
    """
    ledger, converter = Ledger(path, container, stream), Converter()
    for picture in _decoded(container, stream, ledger):
        time_ns = ledger.settle(picture)
        rotation = _quarter_turns(picture, path)
        try:
            pixels = converter.pixels(picture, rotation)
        except av.error.FFmpegError as error:
            raise SourceError(
                f"{path}: its colours ({picture.format.name}, matrix {int(picture.colorspace)}) cannot be converted "
                f"to BGR ({reason_of(error)}); convert it: ffmpeg -i FILE -pix_fmt yuv420p -colorspace bt709 NEW.mp4"
            ) from error
        yield pixels, time_ns
    ledger.close()


def _decoded(container: InputContainer, stream: VideoStream, ledger: Ledger) -> Generator[VideoFrame]:
    """What the decoder shows, up to its first failure."""
    decoder = stream.codec_context
    try:
        for packet in container.demux(stream):
            shown = ledger.announce(packet)
            if packet.is_corrupt:
                ledger.blame("the container marks a packet as damaged")
                yield from decoder.decode(None)
                return
            if shown:
                yield from decoder.decode(packet)
    except av.error.FFmpegError as error:
        # What the decoder still holds is not asked for: it may have been invented from the picture that failed.
        ledger.blame(reason_of(error))


def _quarter_turns(picture: VideoFrame, path: Path) -> int:
    """Degrees counter-clockwise by which a picture is to be turned: 0, 90, 180 or 270.

    Raises:
        SourceError: the file notes another angle. Turned by it, the picture would need corners nobody filmed; left as
            it is, the network would see a tilted road that its user never sees in a player.
    """
    noted = picture.rotation % 360
    nearest = round(noted / 90) * 90
    if abs(noted - nearest) > _EXACT:
        raise SourceError(
            f"{path}: notes a rotation of {noted} degrees, expected 0, 90, 180 or 270; turn the pictures themselves "
            "with: ffmpeg -i FILE NEW.mp4, or drop the note with: ffmpeg -display_rotation 0 -i FILE -c copy NEW.mp4"
        )
    return nearest % 360


def reason_of(error: av.error.FFmpegError) -> str:
    """What FFmpeg complained about, in its own words."""
    return str(error.strerror or error).lower()
