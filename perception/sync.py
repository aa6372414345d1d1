"""Frames of several cameras that were captured together.

A frame is put into a set the moment it arrives and waits for nobody: the set's number and the skew travel with its
result, and whoever fuses results collects those of one number. Source of the idea: openpilot's modeld pairs its two
road cameras by start of frame and reports the distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from perception.latency import LatencyRecorder

_OPEN_SETS = 4


@dataclass(slots=True)
class _Set:
    number: int
    first_ns: int
    skews_ns: dict[str, int]


@dataclass(slots=True)
class PairingTally:
    """How well the cameras belonged together.

    Attributes:
        complete: sets that every camera gave a frame to.
        incomplete: sets that a camera was missing from.
        skewed: complete sets whose frames lie further apart than the tolerance.
        skew: of complete sets, from the first frame to the last.
    """

    complete: int = 0
    incomplete: int = 0
    skewed: int = 0
    skew: LatencyRecorder = field(default_factory=LatencyRecorder)

    def to_dict(self) -> dict[str, object]:
        """For `--json` and metrics."""
        counts = {"complete": self.complete, "incomplete": self.incomplete, "skewed": self.skewed}
        return {**counts, "skew_ms": self.skew.to_dict()}


class Pairer:
    """Numbers sets of frames, at most one of each camera, captured within a window of each other."""

    def __init__(self, cameras: Sequence[str], *, window_ns: int, tolerance_ns: int) -> None:
        """Begin with set 0.

        Args:
            cameras: whose frames belong together.
            window_ns: frames further apart than this belong to different sets; at most half a period is sensible.
            tolerance_ns: sets further apart than this are counted as skewed.
        """
        self.tally = PairingTally()
        self._cameras = len(cameras)
        self._window_ns, self._tolerance_ns = window_ns, tolerance_ns
        self._open: list[_Set] = []
        self._next = 0

    def place(self, camera_id: str, captured_ns: int) -> tuple[int, int]:
        """The set that a frame belongs to, and how long after the set's first arrival it was captured (or before)."""
        chosen = self._match(camera_id, captured_ns) or self._begin(captured_ns)
        skew_ns = captured_ns - chosen.first_ns
        chosen.skews_ns[camera_id] = skew_ns
        if len(chosen.skews_ns) == self._cameras:
            self._open.remove(chosen)
            self._count(chosen)
        return chosen.number, skew_ns

    def close(self) -> PairingTally:
        """Count the sets that are still open; returns everything counted."""
        while self._open:
            self._count(self._open.pop(0))
        return self.tally

    def _match(self, camera_id: str, captured_ns: int) -> _Set | None:
        fitting = [
            candidate
            for candidate in self._open
            if camera_id not in candidate.skews_ns and abs(captured_ns - candidate.first_ns) <= self._window_ns
        ]
        return min(fitting, key=lambda candidate: abs(captured_ns - candidate.first_ns), default=None)

    def _begin(self, captured_ns: int) -> _Set:
        if len(self._open) == _OPEN_SETS:
            self._count(self._open.pop(0))
        self._open.append(_Set(self._next, captured_ns, {}))
        self._next += 1
        return self._open[-1]

    def _count(self, ended: _Set) -> None:
        if len(ended.skews_ns) < self._cameras:
            self.tally.incomplete += 1
            return
        spread_ns = max(ended.skews_ns.values()) - min(ended.skews_ns.values())
        self.tally.complete += 1
        self.tally.skewed += spread_ns > self._tolerance_ns
        self.tally.skew.record(spread_ns)
