"""The worst of several parts decides: classes, slices, kinds of bad weather.

Each part has an interval of its own, at a confidence that lets all of them hold at once
(`statistics.simultaneous_confidence`). Then the true figure of the truly worst part lies between the worst of the one
ends and the worst of the other. So the whole passes only if every part passes, fails if one part fails, and one part
that rests on too few samples keeps it undecided: it is named, never passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from safety_gates.gates.gate import Comparison
from safety_gates.statistics import Interval
from safety_gates.verdict import Measured

MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class Part:
    """One part and its figure.

    Attributes:
        name: as reports show it.
        got: its figure.
        samples: how many things it rests on.
        interval: where its true figure lies, all parts' intervals at once.
        enough: the samples are as many as a verdict on it needs.
    """

    name: str
    got: float
    samples: int
    interval: Interval
    enough: bool = True


def bounded(part: Part, least: float, bounds: tuple[float, float]) -> Part:
    """The same part; with fewer than `least` samples its interval holds everything and it is marked as too small."""
    if part.samples >= least:
        return part
    return Part(part.name, part.got, part.samples, Interval(*bounds, part.interval.confidence), enough=False)


def worst_of(parts: Sequence[Part], comparison: Comparison, *, sampled: str, least: float, evidence: str) -> Measured:
    """The figure of the worst part, with what is known of it and of the parts that are too small.

    Args:
        parts: all of them.
        comparison: the direction of the limit: the least is the worst under `at_least`, the largest under `at_most`.
        sampled: what the samples are.
        least: samples that a part needs.
        evidence: digest of what the figures were read from.
    """
    if not parts:
        return Measured(
            None, 0, sampled, note=f"no {sampled} to judge; record scenes that hold some", evidence=evidence
        )
    choose = min if comparison == "at_least" else max
    judged = [part for part in parts if part.enough] or list(parts)
    worst = choose(judged, key=lambda part: part.got)
    interval = Interval(
        choose(part.interval.low for part in parts),
        choose(part.interval.high for part in parts),
        parts[0].interval.confidence,
    )
    small = sorted((part for part in parts if not part.enough), key=lambda part: part.samples)
    note = f"worst of {len(parts)}: {worst.name} with {worst.got:.3f} on {worst.samples} {sampled}"
    if small:
        note += f"; too few {sampled} (under {least:g}): {_named(small)}"
    return Measured(
        worst.got,
        sum(part.samples for part in parts),
        sampled,
        interval,
        note=note,
        remedy=_remedy(small, sampled, least),
        evidence=evidence,
    )


def _named(parts: Sequence[Part]) -> str:
    names = ", ".join(f"{part.name} ({part.samples})" for part in parts[:MOST_NAMED])
    return names + (f" and {len(parts) - MOST_NAMED} more" if len(parts) > MOST_NAMED else "")


def _remedy(small: Sequence[Part], sampled: str, least: float) -> str:
    if not small:
        return ""
    wanted = ", ".join(f"{int(least) - part.samples} more of {part.name}" for part in small[:MOST_NAMED])
    return f"label {sampled}: {wanted}"
