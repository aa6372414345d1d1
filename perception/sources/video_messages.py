"""Coded video that comes in messages, one picture each: H.264, H.265, VP9, AV1."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterable
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.sources.colours import Converter
from perception.sources.video import reason_of

DECODERS = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "libvpx-vp9", "av1": "libdav1d"}
"""Format as the message names it → FFmpeg's decoder."""

_START_CODE = b"\x00\x00\x01"
_KEY_UNITS = {"h264": range(5, 6), "hevc": range(16, 22)}
"""Types of the units that hold a picture leaning on none before it (ITU-T H.264 table 7-1, H.265 table 7-1)."""


class VideoMessages:
    """Decodes one camera's video messages in the order in which they were recorded."""

    def __init__(self, video_format: str, *, where: str) -> None:
        """Open the decoder.

        Raises:
            SourceError: a format without a decoder here.
        """
        if video_format not in DECODERS:
            raise SourceError(f"{where}: got format {video_format!r}, expected {', '.join(DECODERS)}; convert it")
        self.left_out = 0
        self._where, self._codec = where, DECODERS[video_format]
        self._decoder = cast(VideoCodecContext, VideoCodecContext.create(self._codec, "r"))
        # Frame threads would free our packets' Python memory while the context, being freed, waits for them with the
        # interpreter locked: a deadlock. Cameras are decoded beside each other anyway, each by its own thread.
        self._decoder.thread_type = "SLICE"
        self._decoder.options = {"err_detect": "explode"}
        self._converter = Converter()
        self._owed: list[int] = []
        self._begun = False

    def decode(self, content: bytes, captured_ns: int) -> Generator[tuple[NDArray[np.uint8], int]]:
        """Pictures that this message completes, with their times; often those of a message before it.

        Messages before the first key picture lean on what was never recorded; they are counted in `left_out`.

        Raises:
            SourceError: damage, or a picture that was recorded and never shown.
        """
        if not self._begun and not _has_key_picture(content, self._codec):
            self.left_out += 1
            return
        self._begun = True
        packet = cast("Packet[VideoStream]", Packet(content))
        packet.pts = packet.dts = captured_ns
        packet.time_base = Fraction(1, 1_000_000_000)
        heapq.heappush(self._owed, captured_ns)
        yield from self._settled(self._decoded(packet))

    def finish(self) -> Generator[tuple[NDArray[np.uint8], int]]:
        """What the decoder held back.

        Raises:
            SourceError: as `decode`.
        """
        yield from self._settled(self._decoded(None))
        if self._owed:
            raise self._lost(self._owed[0], "never shown")

    def _decoded(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            raise self._lost(self._owed[0] if self._owed else 0, reason_of(error)) from error

    def _settled(self, pictures: Iterable[VideoFrame]) -> Generator[tuple[NDArray[np.uint8], int]]:
        for picture in pictures:
            if not self._owed or self._owed[0] != picture.pts or picture.is_corrupt:
                raise self._lost(self._owed[0] if self._owed else picture.pts or 0, "lost or damaged")
            heapq.heappop(self._owed)
            picture.time_base = Fraction(1, 1_000_000_000)
            yield self._converter.pixels(picture), picture.pts

    def _lost(self, captured_ns: int, reason: str) -> SourceError:
        return SourceError(
            f"{self._where}: the video cannot be decoded at {captured_ns} ns ({reason}); the recording is damaged: "
            "copy it again, or cut it there"
        )


def _has_key_picture(content: bytes, codec: str) -> bool:
    """Whether a message of H.264 or H.265 (Annex B) can be shown by itself; of other codecs it is believed."""
    if codec not in _KEY_UNITS:
        return True
    position = content.find(_START_CODE)
    while 0 <= position < len(content) - len(_START_CODE):
        first = content[position + len(_START_CODE)]
        if (first & 0x1F if codec == "h264" else first >> 1 & 0x3F) in _KEY_UNITS[codec]:
            return True
        position = content.find(_START_CODE, position + len(_START_CODE))
    return False
