"""How long a trial may still take, from what it took so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

SECONDS_PER_MINUTE = 60


class Forecast:
    """Learns the time of a pass over the recording from the gates that measured, and tells it of those to come.

    What can be re-used is known only when it is looked for, so it tells the most, never the least.
    """

    def __init__(self, gates: Sequence[str], passes: Mapping[str, float]) -> None:
        """Begin.

        Args:
            gates: in the order in which they measure.
            passes: gate → passes over the recording that it makes; 1 where it is not named.
        """
        self._to_come = {name: passes.get(name, 1.0) for name in gates}
        self._passes = 0.0
        self._spent_s = 0.0
        self._since_s = time.monotonic()

    def done(self, gate: str, *, measured: bool) -> None:
        """A gate is through; what it took counts only if it measured."""
        now_s = time.monotonic()
        passes = self._to_come.pop(gate)
        if measured:
            self._passes += passes
            self._spent_s += now_s - self._since_s
        self._since_s = now_s

    def left(self) -> str:
        """For people: the time that what is to come may take; empty while nobody can tell."""
        if not self._to_come or self._passes == 0:
            return ""
        seconds = sum(self._to_come.values()) * self._spent_s / self._passes
        if seconds < SECONDS_PER_MINUTE:
            return f", at most about {max(1, round(seconds))} s to go"
        return f", at most about {round(seconds / SECONDS_PER_MINUTE)} min to go"
