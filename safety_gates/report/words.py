"""Figures, limits and intervals as people read them; one spelling for every output."""

from __future__ import annotations

import math

from safety_gates.judge import WrittenVerdict
from safety_gates.statistics import Interval

MARKS = {"PASSED": "✓", "FAILED": "✗", "INCONCLUSIVE": "?"}
SIGNS = {"at_least": "≥", "at_most": "≤"}


def with_unit(figure: float | None, unit: str) -> str:
    """A figure for people; a dash where there is none."""
    if figure is None or math.isnan(figure):
        return "–"
    if math.isinf(figure):
        return "∞" if figure > 0 else "−∞"
    if unit == "count":
        return f"{figure:.0f}"
    if unit == "frames":
        return counted(round(figure), unit)
    return f"{figure:.3f}" if unit == "ratio" else f"{figure:.2f} {unit}".strip()


def range_with_unit(interval: Interval, unit: str) -> str:
    """An interval for people; an open end is written as the sign of infinity."""
    return " … ".join(with_unit(end, "ratio" if unit == "ratio" else "") for end in (interval.low, interval.high))


def counted(number: int, things: str) -> str:
    """A number of things named in the plural; one of them in the singular."""
    return f"{number} {things.removesuffix('s') if number == 1 else things}"


def figure_of(verdict: WrittenVerdict) -> str:
    """What was measured."""
    return with_unit(verdict.got, verdict.unit)


def limit_of(verdict: WrittenVerdict) -> str:
    """What was asked."""
    return f"{SIGNS[verdict.comparison]} {with_unit(verdict.limit, verdict.unit)}"


def interval_of(verdict: WrittenVerdict) -> str:
    """Where the true figure lies; empty for plain facts."""
    if verdict.interval is None:
        return ""
    low, high = verdict.interval.low, verdict.interval.high
    ends = Interval(-math.inf if low is None else low, math.inf if high is None else high)
    return range_with_unit(ends, verdict.unit)
