"""V4L2 cameras (USB, and others with a kernel driver) through FFmpeg's reader.

Drivers stamp a picture on the kernel's monotonic clock when its capture ends; where a stamp is of that clock it is
`captured_ns`, else it is put onto it as a sender's is. Source: The Linux Kernel, Media subsystem userspace API,
buffers.

Tested up to the device file: the machines this was built on have no camera.
"""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from perception.errors import SourceError
from perception.sources.colours import Converter
from perception.sources.live import SenderClock, Shot, now_ns
from perception.sources.video import reason_of

READ_TIMEOUT_S = 2.0
_NS = 1_000_000_000
_MOST_APART_NS = 1_000_000_000


def open_v4l2(device: Path, *, options: dict[str, str] | None = None) -> Generator[Shot]:
    """The pictures of a camera as they come.

    Args:
        device: `/dev/video0` …
        options: of FFmpeg's reader: video_size (1280x720), framerate, input_format (mjpeg, yuyv422, h264).

    Raises:
        SourceError: no such device, it is in use, it refuses the options, or it is gone.
    """
    if not device.exists():
        raise SourceError(f"{device}: does not exist, expected a camera; list them with: v4l2-ctl --list-devices")
    try:
        with av.open(str(device), format="v4l2", options=options or {}, timeout=(None, READ_TIMEOUT_S)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            clock, converter = SenderClock(), Converter()
            for picture in container.decode(stream):
                if not picture.is_corrupt:
                    yield Shot(converter.pixels(picture), _instant(picture, stream, clock))
    except (av.error.FFmpegError, OSError) as error:
        reason = reason_of(error) if isinstance(error, av.error.FFmpegError) else str(error)
        raise SourceError(
            f"{device}: cannot be read ({reason}); check who uses it (fuser -v {device}) and what it offers (v4l2-ctl "
            f"-d {device} --list-formats-ext)"
        ) from error
    raise SourceError(f"{device}: gives no more pictures; check its plug")


def _instant(picture: VideoFrame, stream: VideoStream, clock: SenderClock) -> int:
    arrived_ns = now_ns()
    if picture.pts is None:
        return arrived_ns
    stamp_ns = round(picture.pts * Fraction(stream.time_base or 0) * _NS)
    if 0 <= arrived_ns - stamp_ns < _MOST_APART_NS:
        return stamp_ns
    return clock.captured_ns(stamp_ns, arrived_ns)
