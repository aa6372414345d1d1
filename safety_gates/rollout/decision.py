"""ADVANCE, HOLD or ROLLBACK: what one look at one stage says, with every figure it rests on.

A stage rolls back as soon as one criterion is shown to do harm. It advances when it has soaked and every criterion is
shown to be harmless; that all must pass is a test of its own at the same level (Berger 1982, "Multiparameter
hypothesis testing and acceptance sampling", Technometrics 24). Everything in between holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum

import numpy as np
from pydantic import JsonValue

from safety_gates.rollout.quantities import QUANTITIES, Evidence, Reports
from safety_gates.rollout.randomization import (
    best_ratio,
    higher_rate,
    lower_rate,
    more_events,
    mostly_above,
    mostly_below,
    ratio_interval,
    spent,
)
from safety_gates.rollout.stages import Criterion, RolloutFile, Stage
from safety_gates.statistics import proportion_interval

NO_FIGURES = "not reported by enough vehicles, "


class Outcome(str, Enum):
    """What follows from a look."""

    ADVANCE = "ADVANCE"
    HOLD = "HOLD"
    ROLLBACK = "ROLLBACK"


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion at one look.

    Attributes:
        got: ratio to control, share (level), or share of the candidate's vehicles (event); None without data.
        control: the share of control's vehicles, for events.
        low, high: what the figure may be at this look's levels; None where no interval was asked for.
        p_harm, p_safe: how unlikely the figures are without harm, and at the limit. p_safe is None for events.
        alpha, beta: what this look may spend on either.
    """

    quantity: str
    outcome: Outcome
    got: float | None
    control: float | None
    low: float | None
    high: float | None
    harm: float
    limit: float | None
    p_harm: float
    p_safe: float | None
    alpha: float
    beta: float
    reason: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """One look: the outcome, why, and the figures; `soaked` where it tested whether to advance."""

    outcome: Outcome
    reason: str
    look: int
    soaked: bool
    evidence: Evidence
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """Which look at a stage it is.

    Attributes:
        number: from 1; what may be spent on rollbacks depends on it.
        soaked: earlier looks at which the stage had soaked: only those tested whether to advance. Soaking counts
            driving and not figures, so that counting from there favours nobody.
        hours: since the stage began.
    """

    number: int
    soaked: int
    hours: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What one criterion is judged by, in the words of `Finding`; `says` is for people."""

    got: float | None
    p_harm: float
    p_safe: float | None
    says: str
    control: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Levels:
    """What a look may spend, and whether intervals are wanted."""

    alpha: float
    beta: float
    suspicion: float
    intervals: bool


def json_of(judgement: Judgement) -> dict[str, JsonValue]:
    """A judgement as a log keeps it; an open end is None, since JSON knows no infinity."""
    findings = [
        {name: None if value in (math.inf, -math.inf) else value for name, value in asdict(finding).items()}
        for finding in judgement.findings
    ]
    document: dict[str, JsonValue] = json.loads(json.dumps({**asdict(judgement), "findings": findings}))
    return document


def judge_stage(plan: RolloutFile, stage: Stage, reports: Reports, *, at: Look, intervals: bool = True) -> Judgement:
    """Judge a stage by what its vehicles reported.

    Args:
        plan: criteria and error probabilities.
        stage: which of its stages.
        reports: of its vehicles.
        at: which look at the stage it is.
        intervals: whether to give intervals and estimates, which no outcome needs.
    """
    levels = Levels(spent(plan.alpha, at.number), spent(plan.false_advance, at.soaked + 1), plan.suspicion, intervals)
    findings = tuple(_finding(criterion, reports, levels) for criterion in plan.criteria_of(stage))
    evidence = reports.evidence(at.hours)
    missing = _missing(stage, evidence)
    outcome, reason = _outcome(missing, findings)
    return Judgement(outcome, reason, at.number, not missing, evidence, findings)


def _outcome(missing: str, findings: tuple[Finding, ...]) -> tuple[Outcome, str]:
    if harmful := [each.reason for each in findings if each.outcome is Outcome.ROLLBACK]:
        return Outcome.ROLLBACK, "; ".join(harmful)
    if missing:
        return Outcome.HOLD, f"soaking: {missing}"
    if open_ := [each.reason for each in findings if each.outcome is Outcome.HOLD]:
        return Outcome.HOLD, "; ".join(open_)
    return Outcome.ADVANCE, f"soaked, and all {len(findings)} criteria are shown to be harmless"


def _missing(stage: Stage, evidence: Evidence) -> str:
    soak = stage.soak
    wanted = (
        ("hours", evidence.hours, soak.hours),
        ("vehicles", evidence.vehicles, soak.vehicles),
        ("control vehicles", evidence.controls, soak.controls),
        ("drives", evidence.drives, soak.drives),
    )
    return ", ".join(f"{got:.0f} of {least:.0f} {what}" for what, got, least in wanted if got < least)


def _finding(criterion: Criterion, reports: Reports, levels: Levels) -> Finding:
    seen = _FIGURES[QUANTITIES[criterion.quantity].kind](criterion, reports, levels)
    outcome, reason = _suspected(levels, seen.p_harm) if seen.p_safe is None else _between(criterion, levels, seen)
    return Finding(
        quantity=criterion.quantity,
        outcome=outcome,
        got=seen.got,
        control=seen.control,
        low=seen.low,
        high=seen.high,
        harm=criterion.harm,
        limit=criterion.limit,
        p_harm=seen.p_harm,
        p_safe=seen.p_safe,
        alpha=levels.alpha,
        beta=levels.beta,
        reason=f"{criterion.quantity}: {seen.says}{reason}",
    )


def _event(criterion: Criterion, reports: Reports, levels: Levels) -> Figures:
    draw = reports.events(QUANTITIES[criterion.quantity])
    p_harm = more_events(draw)
    interval = proportion_interval(draw.hit, draw.drawn) if levels.intervals else None
    return Figures(
        got=draw.hit / draw.drawn if draw.drawn else None,
        p_harm=p_harm,
        p_safe=None,
        says=f"{draw.hit} of {draw.drawn} vehicles against {draw.hit_control} of {draw.controls} control, "
        f"p {p_harm:.2g}",
        control=draw.hit_control / draw.controls if draw.controls else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )


def _rate(criterion: Criterion, reports: Reports, levels: Levels) -> Figures:
    rates = reports.rates(QUANTITIES[criterion.quantity])
    known = bool(rates.candidate.any() and not rates.candidate.all())
    got, low, high = None, None, None
    if levels.intervals and known:
        got = best_ratio(rates)
        low, high = ratio_interval(rates, levels.alpha, levels.beta)
    return Figures(
        got=got,
        p_harm=higher_rate(rates, criterion.harm),
        p_safe=lower_rate(rates, criterion.limit or math.inf),
        says=_figure(got, low, high, " × control") if known else NO_FIGURES,
        low=low,
        high=high,
    )


def _level(criterion: Criterion, reports: Reports, _: Levels) -> Figures:
    shares = reports.levels(QUANTITIES[criterion.quantity])
    got = float(np.median(shares)) if len(shares) else None
    return Figures(
        got=got,
        p_harm=mostly_above(shares, criterion.harm),
        p_safe=mostly_below(shares, criterion.limit or math.inf),
        says=_figure(got, None, None, " in the median vehicle") or NO_FIGURES,
    )


def _suspected(levels: Levels, p_harm: float) -> tuple[Outcome, str]:
    if p_harm <= levels.alpha:
        return Outcome.ROLLBACK, f" is beyond {levels.alpha:.2g}"
    if p_harm <= levels.suspicion:
        return Outcome.HOLD, " is suspicious; look at these drives, then advance or roll back"
    return Outcome.ADVANCE, ""


def _between(criterion: Criterion, levels: Levels, seen: Figures) -> tuple[Outcome, str]:
    p_harm, p_safe = seen.p_harm, 1.0 if seen.p_safe is None else seen.p_safe
    if p_harm <= levels.alpha:
        return Outcome.ROLLBACK, f"shown to be above {criterion.harm:g} (p {p_harm:.2g}, allowed {levels.alpha:.2g})"
    if p_safe <= levels.beta:
        return Outcome.ADVANCE, f"shown to be below {criterion.limit:g} (p {p_safe:.2g}, allowed {levels.beta:.2g})"
    return Outcome.HOLD, f"not yet shown to be below {criterion.limit:g} (p {p_safe:.2g}, allowed {levels.beta:.2g})"


def _figure(got: float | None, low: float | None, high: float | None, unit: str) -> str:
    if got is None:
        return ""
    interval = f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else ""
    return f"{got:.3g}{unit}{interval}, "


_FIGURES: dict[str, Callable[[Criterion, Reports, Levels], Figures]] = {
    "event": _event,
    "rate": _rate,
    "level": _level,
}
