"""RTSP cameras, read so that a picture is never older than it must be.

Nothing is buffered beyond the socket, damaged pictures are left out and counted as lost, and a connection that gives
nothing for `READ_TIMEOUT_S` counts as gone. Over TCP a stalled network delays pictures instead of losing them: they
come in a burst, are dated back by the sender's clock, and only the newest is looked at.
"""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from perception.errors import SourceError
from perception.sources.colours import Converter
from perception.sources.live import SenderClock, Shot, now_ns
from perception.sources.video import reason_of

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 2.0
_NS = 1_000_000_000
_OPTIONS = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay", "max_delay": "0"}


def open_rtsp(url: str) -> Generator[Shot]:
    """The pictures of an RTSP stream as they come.

    Raises:
        SourceError: nobody answers, there is no video, or the connection is gone.
    """
    shown = without_password(url)
    try:
        with av.open(url, options=_OPTIONS, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S)) as container:
            yield from _shots(container, shown)
    except (av.error.FFmpegError, OSError) as error:
        reason = reason_of(error) if isinstance(error, av.error.FFmpegError) else str(error)
        raise SourceError(f"{shown}: cannot be read ({reason}); check the camera, its address and password") from error


def without_password(url: str) -> str:
    """An address that may be shown and logged."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    place = f"{parts.username}:…@{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    return parts._replace(netloc=place).geturl()


def _shots(container: InputContainer, shown: str) -> Generator[Shot]:
    if not container.streams.video:
        raise SourceError(f"{shown}: has no video, expected a video stream; check the address")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # threads that work on several pictures at once would hold each one back
    clock, converter, lost, begun = SenderClock(), Converter(), 0, False
    for packet in container.demux(stream):
        begun = begun or packet.is_keyframe
        if not begun:
            continue  # a stream joined midway shows nothing whole before its first key picture
        pictures, damaged = _decoded(packet)
        lost += damaged
        for picture in pictures:
            if picture.is_corrupt:
                lost += 1
                continue
            yield Shot(converter.pixels(picture), _instant(picture, stream, clock), lost)
            lost = 0
    raise SourceError(f"{shown}: the stream has ended; check the camera")


def _decoded(packet: Packet[VideoStream]) -> tuple[list[VideoFrame], int]:
    """The pictures of a packet, and 1 where it was damaged: a live camera goes on with the next."""
    try:
        return packet.decode(), 0
    except av.error.InvalidDataError:
        return [], 1


def _instant(picture: VideoFrame, stream: VideoStream, clock: SenderClock) -> int:
    arrived_ns = now_ns()
    if picture.pts is None:
        return arrived_ns
    return clock.captured_ns(round(picture.pts * Fraction(stream.time_base or 0) * _NS), arrived_ns)
