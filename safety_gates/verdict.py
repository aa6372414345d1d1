"""What a gate says about one claim, and what a set of claims says together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from safety_gates.policy import Requirement
from safety_gates.statistics import Interval


class Outcome(str, Enum):
    """PASSED: shown to keep the limit. FAILED: shown to break it. INCONCLUSIVE: neither, and blocks a release too."""

    PASSED = "PASSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity as it was measured.

    Attributes:
        got: the figure; None where it could not be measured.
        samples: how many things it rests on.
        sampled: what these things are: frames, objects, files.
        interval: where the true figure lies; None for plain facts (a digest matches or not).
        note: what a reader must know beside the figure.
        remedy: what to collect where it decides nothing.
        evidence: sha256 of the evidence file it was read from; None without one.
    """

    got: float | None
    samples: int
    sampled: str
    interval: Interval | None = None
    note: str = ""
    remedy: str = ""
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim of the policy, judged."""

    requirement: Requirement
    measured: Measured
    outcome: Outcome
    why: str


def judged(requirement: Requirement, measured: Measured) -> Verdict:
    """Hold a measured quantity against its requirement.

    With an interval the whole of it decides: inside the limit PASSED, outside FAILED, astride INCONCLUSIVE. A figure
    that is missing or no number, or rests on fewer samples than required, never passes.
    """
    outcome, reason = _outcome(requirement, measured)
    remedy = measured.remedy if outcome is Outcome.INCONCLUSIVE else ""
    return Verdict(requirement, measured, outcome, "; ".join(filter(None, (reason, measured.note, remedy))))


def all_of(verdicts: Sequence[Verdict]) -> Outcome:
    """FAILED if any failed, else INCONCLUSIVE if any is, else PASSED.

    Raises:
        ValueError: no verdict at all; nothing judged is nothing passed.
    """
    if not verdicts:
        raise ValueError("no verdict to combine; a judgement without a claim passes nothing")
    outcomes = {verdict.outcome for verdict in verdicts}
    return next(outcome for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED) if outcome in outcomes)


def _outcome(requirement: Requirement, measured: Measured) -> tuple[Outcome, str]:
    if measured.got is None:
        return Outcome.INCONCLUSIVE, "not measured"
    if math.isnan(measured.got):
        return Outcome.INCONCLUSIVE, "the measurement is no number"
    low, high = _range(measured, measured.got)
    if math.isnan(low) or math.isnan(high):
        return Outcome.INCONCLUSIVE, "the interval is no number"
    if not requirement.admits(low) and not requirement.admits(high):
        return Outcome.FAILED, _sentence("is beyond the limit", measured)
    if measured.samples < requirement.minimum_samples:
        missing = requirement.minimum_samples - measured.samples
        return Outcome.INCONCLUSIVE, (
            f"{measured.samples} {measured.sampled}, required {requirement.minimum_samples}: record {missing} more"
        )
    if not (requirement.admits(low) and requirement.admits(high)):
        return Outcome.INCONCLUSIVE, _astride(requirement, measured)
    return Outcome.PASSED, _sentence("keeps the limit", measured)


def _range(measured: Measured, got: float) -> tuple[float, float]:
    return (got, got) if measured.interval is None else (measured.interval.low, measured.interval.high)


def _sentence(verb: str, measured: Measured) -> str:
    return f"the figure {verb}" if measured.interval is None else f"the whole interval {verb}"


def _astride(requirement: Requirement, measured: Measured) -> str:
    """The interval holds figures on both sides: say how much more must be collected, since width shrinks as 1/√n."""
    low, high = _range(measured, math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{measured.samples} {measured.sampled} do not decide it"
    margin = abs((measured.got or 0.0) - requirement.limit)
    half_width = (high - low) / 2
    if margin < half_width / 10:
        return "the limit lies in the interval, and the figure is so close to it that more samples will hardly decide"
    needed = math.ceil(measured.samples * (half_width / margin) ** 2)
    return f"the limit lies in the interval; about {max(needed, measured.samples + 1)} {measured.sampled} would decide"
