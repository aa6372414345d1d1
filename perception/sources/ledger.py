"""What a video container announced against what the decoder showed: how a lost picture is noticed."""

from __future__ import annotations

import heapq
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from perception.errors import SourceError

_NS = 1_000_000_000


class Ledger:
    """Every packet announces one picture at one time; pictures come out in order of time.

    So a picture that comes out while an earlier time is still owed proves a loss, and so does anything owed at the end.
    What was never announced is not missed: where damage swallows whole packets, `captured_ns` jumps.
    """

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        """Take what the container says about itself; `path` is named in errors."""
        self._path = path
        self._tick_ns = Fraction(stream.time_base or 0) * _NS
        self._packets_declared = stream.frames
        self._cut_anywhere = container.format.name == "mpegts"
        self._end_ns = _declared_end_ns(container)
        # AVI stores an order and a rate but no presentation times, and libav's guess at them is wrong where pictures
        # are reordered: there the order of arrival gives the times.
        self._timed_by_arrival = container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc")
        self._first_stamp: int | None = None
        self._owed: list[int] = []
        self._packets = self._shown = self._last_ns = self._longest_stay_ns = 0
        self._fault = ""

    def announce(self, packet: Packet[VideoStream]) -> bool:
        """Note a packet. False: it leans on pictures cut away before the recording began, so nobody can show it."""
        if packet.size == 0:
            return True  # the demuxer's sign to empty the decoder
        stamp = packet.dts if self._timed_by_arrival else packet.pts
        if self._packets == 0:
            if self._cut_anywhere and not packet.is_keyframe:
                return False
            self._first_stamp = stamp
        self._packets += 1
        if stamp is None:
            return True
        if self._first_stamp is not None and stamp < self._first_stamp:
            return False  # shown before the first key picture, though sent after it
        if not packet.is_discard:
            heapq.heappush(self._owed, stamp)
        self._longest_stay_ns = max(self._longest_stay_ns, round((packet.duration or 0) * self._tick_ns))
        return True

    def settle(self, picture: VideoFrame) -> int:
        """The picture's time in nanoseconds.

        Raises:
            SourceError: a picture before it was lost, or this one is damaged or has no time.
        """
        stamp = picture.pts if not self._timed_by_arrival else (self._owed[0] if self._owed else None)
        if stamp is None:
            raise SourceError(
                f"{self._path}: frame {self._shown} has no timestamp, expected one a frame; put the stream into a "
                "container at its true rate: ffmpeg -framerate HZ -i FILE -c copy NEW.mp4"
            )
        if self._owed and self._owed[0] < stamp:
            raise self._lost(self._owed[0])
        if picture.is_corrupt:
            raise self._lost(stamp)
        if self._owed and self._owed[0] == stamp:
            heapq.heappop(self._owed)
        time_ns = round(stamp * self._tick_ns)
        if self._shown:
            self._longest_stay_ns = max(self._longest_stay_ns, time_ns - self._last_ns)
        self._shown, self._last_ns = self._shown + 1, time_ns
        return time_ns

    def blame(self, fault: str) -> None:
        """Remember why the decoder stopped, for the sentence that `settle` or `close` will say."""
        self._fault = fault

    def close(self) -> None:
        """Compare at the end of the file.

        Raises:
            SourceError: pictures are missing, or the file ends before it says it does.
        """
        if self._owed or self._fault:
            raise self._lost(self._owed[0] if self._owed else None)
        if self._packets < self._packets_declared:
            raise self._truncated(f"{self._packets} of {self._packets_declared} frames")
        if self._end_ns is not None and 0 < self._longest_stay_ns < (self._end_ns - self._last_ns) / 2:
            raise self._truncated(f"{self._last_ns / _NS:.3f} of {self._end_ns / _NS:.3f} s")
        if not self._shown:
            raise SourceError(f"{self._path}: holds no frame, expected at least 1; record it anew")

    def _lost(self, stamp: int | None) -> SourceError:
        time = "" if stamp is None else f" ({float(stamp * self._tick_ns) / _NS:.3f} s)"
        reason = self._fault or "the decoder lost or damaged it"
        return SourceError(
            f"{self._path}: cannot be decoded from frame {self._shown}{time} on ({reason}); the file is damaged: "
            "copy it again, or cut it there"
        )

    def _truncated(self, reached: str) -> SourceError:
        return SourceError(f"{self._path}: ends after {reached}; the file is truncated: copy it again, or cut it there")


def _declared_end_ns(container: InputContainer) -> int | None:
    """Where Matroska says the file ends; other containers either count their frames or only estimate an end.

    With sound beside the pictures the end may be the sound's, so nothing is concluded from it.
    """
    if "matroska" not in container.format.name or container.duration is None or len(container.streams) != 1:
        return None
    return int(container.duration * 1000)  # the container counts microseconds
