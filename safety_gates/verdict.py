"""What a gate says about one claim, and what a set of claims says together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from safety_gates.policy import Requirement
from safety_gates.statistics import Interval

MEASURE_AGAIN = "measure again; a better engine or another limit would decide where more samples cannot"


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
class LeftOut:
    """A quantity that this package does not have, and why: a float engine has no calibration set."""

    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim of the policy, judged.

    Attributes:
        requirement: what was asked.
        measured: what was found.
        outcome: the two held against each other.
        why: for people; ends with what to collect.
        collect: INCONCLUSIVE only: what would decide it; empty otherwise.
        more_samples: how many more samples that is; None where it is no matter of samples, or nobody can tell.
    """

    requirement: Requirement
    measured: Measured
    outcome: Outcome
    why: str
    collect: str = ""
    more_samples: int | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """Figure against limit, before notes and remedies; for the fields see `Verdict`."""

    outcome: Outcome
    reason: str
    collect: str = ""
    more_samples: int | None = None


def judged(requirement: Requirement, measured: Measured) -> Verdict:
    """Hold a measured quantity against its requirement.

    With an interval the whole of it decides: inside the limit PASSED, outside FAILED, astride INCONCLUSIVE. A figure
    that is missing or no number, or rests on fewer samples than required, never passes.
    """
    found = _finding(requirement, measured)
    remedy = measured.remedy if found.outcome is Outcome.INCONCLUSIVE else ""
    why = "; ".join(filter(None, (found.reason, measured.note, remedy)))
    if found.outcome is not Outcome.INCONCLUSIVE:
        return Verdict(requirement, measured, found.outcome, why)
    collect = "; ".join(filter(None, (found.collect, remedy))) or measured.note or MEASURE_AGAIN
    return Verdict(requirement, measured, found.outcome, why, collect, found.more_samples)


def all_of(verdicts: Sequence[Verdict]) -> Outcome:
    """FAILED if any failed, else INCONCLUSIVE if any is, else PASSED.

    Raises:
        ValueError: no verdict at all; nothing judged is nothing passed.
    """
    if not verdicts:
        raise ValueError("no verdict to combine; a judgement without a claim passes nothing")
    outcomes = {verdict.outcome for verdict in verdicts}
    return next(outcome for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED) if outcome in outcomes)


def _finding(requirement: Requirement, measured: Measured) -> _Finding:
    if measured.got is None:
        return _Finding(Outcome.INCONCLUSIVE, "not measured")
    if math.isnan(measured.got):
        return _Finding(Outcome.INCONCLUSIVE, "the measurement is no number")
    low, high = _range(measured, measured.got)
    if math.isnan(low) or math.isnan(high):
        return _Finding(Outcome.INCONCLUSIVE, "the interval is no number")
    if not requirement.admits(low) and not requirement.admits(high):
        return _Finding(Outcome.FAILED, _sentence("is beyond the limit", measured))
    if measured.samples < requirement.minimum_samples:
        missing = requirement.minimum_samples - measured.samples
        reason = f"{measured.samples} {measured.sampled}, required {requirement.minimum_samples}: record {missing} more"
        return _Finding(Outcome.INCONCLUSIVE, reason, f"record {missing} more {measured.sampled}", missing)
    if not (requirement.admits(low) and requirement.admits(high)):
        return _astride(requirement, measured)
    return _Finding(Outcome.PASSED, _sentence("keeps the limit", measured))


def _range(measured: Measured, got: float) -> tuple[float, float]:
    return (got, got) if measured.interval is None else (measured.interval.low, measured.interval.high)


def _sentence(verb: str, measured: Measured) -> str:
    return f"the figure {verb}" if measured.interval is None else f"the whole interval {verb}"


def _astride(requirement: Requirement, measured: Measured) -> _Finding:
    """The interval holds figures on both sides: say how much more must be collected, since width shrinks as 1/√n."""
    low, high = _range(measured, math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        return _Finding(Outcome.INCONCLUSIVE, f"{measured.samples} {measured.sampled} do not decide it")
    margin = abs((measured.got or 0.0) - requirement.limit)
    half_width = (high - low) / 2
    if margin < half_width / 10:
        reason = "the limit lies in the interval, and the figure is so close to it that more samples will hardly decide"
        return _Finding(Outcome.INCONCLUSIVE, reason)
    needed = max(math.ceil(measured.samples * (half_width / margin) ** 2), measured.samples + 1)
    collect = f"about {needed} {measured.sampled} would decide"
    reason = f"the limit lies in the interval; {collect}"
    return _Finding(Outcome.INCONCLUSIVE, reason, collect, needed - measured.samples)
