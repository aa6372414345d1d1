"""How the runtime is: READY, DEGRADED or FAULT, with every reason, and what happened so far."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

MOST_EVENTS = 1000


class Level(IntEnum):
    """How bad a reason is; the worst one is the state of the whole."""

    READY = 0
    DEGRADED = 1
    FAULT = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that changed.

    Attributes:
        at_ns: when, on `time.perf_counter_ns`.
        what: a sentence.
    """

    at_ns: int
    what: str


class Condition:
    """Reasons that hold now, by what they are about, and the newest events. Written by the loop's thread only."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.events_total = 0
        self._reasons: dict[str, tuple[Level, str]] = {}

    @property
    def level(self) -> Level:
        """The worst of all reasons."""
        return max((level for level, _ in tuple(self._reasons.values())), default=Level.READY)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence a reason, the worst first."""
        return tuple(sentence for _, sentence in self.ranked)

    @property
    def ranked(self) -> tuple[tuple[Level, str], ...]:
        """Each reason's level and sentence, the worst first."""
        held = sorted(self._reasons.copy().items(), key=lambda item: (-item[1][0], item[0]))
        return tuple((level, f"{about}: {what}") for about, (level, what) in held)

    def report(self, about: str, level: Level, what: str) -> None:
        """Something is wrong with `about`; what was said of it before is replaced."""
        if self._reasons.get(about) != (level, what):
            self._reasons[about] = (level, what)
            self.note(f"{about}: {what}")

    def well(self, about: str) -> None:
        """Nothing is wrong with `about` any more."""
        if self._reasons.pop(about, None) is not None:
            self.note(f"{about}: well again")

    def note(self, what: str) -> None:
        """Remember an event."""
        self.events.append(Event(time.perf_counter_ns(), what))
        self.events_total += 1
