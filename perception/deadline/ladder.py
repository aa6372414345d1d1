"""Giving up what matters least, step by step, when too much is missed; and taking it back when there is room again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from perception.deadline.plan import Step

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LadderLimits:
    """When a step is taken.

    Attributes:
        window_ns: misses are counted over so long.
        down_share: more misses than this share of the frames in a full window: give up one step.
        calm_ns: so long without any miss: take one step back.
        longest_calm_ns: after a step back that did not hold, twice the calm is asked for, up to this.
    """

    window_ns: int = 2 * _NS
    down_share: float = 0.05
    calm_ns: int = 5 * _NS
    longest_calm_ns: int = 80 * _NS


class Ladder:
    """Where on the ladder the loop stands. Up means everything runs; one step is taken at a time.

    Hysteresis: a step down needs a full window of evidence, and the window starts anew after each step; a step up needs
    calm, and a relapse within a calm doubles the calm asked for next time, so it does not swing.

    Attributes:
        given_up: the steps that are taken.
    """

    def __init__(self, steps: Sequence[Step], limits: LadderLimits | None = None) -> None:
        """Stand at the top.

        Args:
            steps: what there is to give up, least important first.
            limits: when a step is taken.
        """
        self._steps = tuple(steps)
        self._limits = limits or LadderLimits()
        self._taken = 0
        self.given_up: frozenset[Step] = frozenset()
        self._seen: deque[tuple[int, bool]] = deque()
        self._began_ns: int | None = None
        self._last_miss_ns = 0
        self._raised_ns: int | None = None
        self._calm_ns = self._limits.calm_ns

    def note(self, now_ns: int, *, missed: bool) -> None:
        """One production frame ended."""
        if self._began_ns is None:
            self._began_ns = self._last_miss_ns = now_ns
        self._seen.append((now_ns, missed))
        if missed:
            self._last_miss_ns = now_ns
        while self._seen and self._seen[0][0] < now_ns - self._limits.window_ns:
            self._seen.popleft()

    def move(self, now_ns: int) -> str | None:
        """Take at most one step; returns the sentence to log, None where nothing changed."""
        if self._began_ns is None:
            return None
        if self._taken < len(self._steps) and self._overloaded(now_ns):
            return self._give_up(now_ns)
        if self._taken and now_ns - max(self._last_miss_ns, self._began_ns) >= self._calm_ns:
            return self._take_back(now_ns)
        return None

    def _overloaded(self, now_ns: int) -> bool:
        if self._began_ns is None or now_ns - self._began_ns < self._limits.window_ns or not self._seen:
            return False
        return sum(missed for _, missed in self._seen) > self._limits.down_share * len(self._seen)

    def _give_up(self, now_ns: int) -> str:
        missed = sum(missed for _, missed in self._seen)
        frames, step = len(self._seen), self._steps[self._taken]
        if self._raised_ns is not None and now_ns - self._raised_ns < self._calm_ns:
            self._calm_ns = min(2 * self._calm_ns, self._limits.longest_calm_ns)
        self._taken += 1
        self._restart(now_ns)
        return f"gave up: {step.value} ({missed} of {frames} frames missed within {self._limits.window_ns / _NS:g} s)"

    def _take_back(self, now_ns: int) -> str:
        self._taken -= 1
        self._raised_ns = now_ns
        self._restart(now_ns)
        return f"took back: {self._steps[self._taken].value} (nothing missed for {self._calm_ns / _NS:g} s)"

    def _restart(self, now_ns: int) -> None:
        self.given_up = frozenset(self._steps[: self._taken])
        self._seen.clear()
        self._began_ns = now_ns
