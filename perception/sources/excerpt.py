"""A part of a recording, once or several times over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.source import Camera, FrameSource

_NS = 1_000_000_000
_LONE_FRAME_NS = 100_000_000
"""How long a frame lasts that has no other of its camera beside it."""


class Excerpt:
    """The frames from `start_s` on for `duration_s`, `laps` times; both count in the recording's own time.

    Every lap continues where the one before it ended: `captured_ns` and `frame_id` go on, `name` repeats. What lies
    before the start is decoded and left out, since most codings cannot begin anywhere.
    """

    def __init__(
        self, source: FrameSource, *, start_s: float = 0.0, duration_s: float | None = None, laps: int = 1
    ) -> None:
        """Wrap an open source, which from now on is closed through this."""
        self._source, self._laps = source, laps
        self._start_ns = round(start_s * _NS)
        self._duration_ns = None if duration_s is None else round(duration_s * _NS)
        whole = start_s == 0 and duration_s is None
        self.cameras: tuple[Camera, ...] = tuple(
            replace(camera, frame_count=camera.frame_count * laps if whole and camera.frame_count else None)
            for camera in source.cameras
        )

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`.

        Raises:
            SourceError: as the source, or nothing lies in the part that was chosen.
        """
        first = _Lap()
        for frame in self._part():
            first.note(frame)
            yield frame
        if not first.frames:
            raise SourceError(
                f"no frame lies between {self._start_ns / _NS:g} s and the end that was asked for; the recording is "
                "shorter: choose an earlier --start or a longer --duration"
            )
        for lap in range(1, self._laps):
            for frame in self._part():
                yield first.later(frame, lap)

    def close(self) -> None:
        """See `FrameSource.close`."""
        self._source.close()

    def _part(self) -> Iterator[Frame]:
        begin_ns = None
        for frame in self._source.frames():
            begin_ns = frame.captured_ns + self._start_ns if begin_ns is None else begin_ns
            if self._duration_ns is not None and frame.captured_ns >= begin_ns + self._duration_ns:
                return
            if frame.captured_ns >= begin_ns:
                yield frame


@dataclass(slots=True)
class _Lap:
    """How long one lap is, in time and in frames."""

    begin_ns: int | None = None
    last_ns: dict[str, int] = field(default_factory=dict)
    step_ns: dict[str, int] = field(default_factory=dict)
    first_id: dict[str, int] = field(default_factory=dict)
    last_id: dict[str, int] = field(default_factory=dict)
    frames: Counter[str] = field(default_factory=Counter)

    def note(self, frame: Frame) -> None:
        """Take one frame of the first lap."""
        name = frame.camera_id
        self.begin_ns = frame.captured_ns if self.begin_ns is None else self.begin_ns
        self.step_ns[name] = frame.captured_ns - self.last_ns[name] if name in self.last_ns else _LONE_FRAME_NS
        self.first_id.setdefault(name, frame.frame_id)
        self.last_ns[name], self.last_id[name] = frame.captured_ns, frame.frame_id
        self.frames[name] += 1

    def later(self, frame: Frame, lap: int) -> Frame:
        """The same frame in a later lap."""
        length_ns = max(self.last_ns[name] + self.step_ns[name] for name in self.last_ns) - (self.begin_ns or 0)
        count = self.last_id[frame.camera_id] - self.first_id[frame.camera_id] + 1
        return replace(frame, captured_ns=frame.captured_ns + lap * length_ns, frame_id=frame.frame_id + lap * count)
