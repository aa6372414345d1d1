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

from safety_gates.rollout.quantities import QUANTITIES, VehicleTable
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
class Evidence:
    """What was driven in the stage so far."""

    hours: float
    vehicles: int
    controls: int
    drives: int
    control_drives: int
    silent: int


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


def judge_stage(plan: RolloutFile, stage: Stage, table: VehicleTable, *, at: Look, intervals: bool = True) -> Judgement:
    """Judge a stage by what its vehicles reported.

    Args:
        plan: criteria and error probabilities.
        stage: which of its stages.
        table: one row a vehicle.
        at: which look at the stage it is.
        intervals: whether to give intervals and estimates, which no outcome needs.
    """
    levels = Levels(spent(plan.alpha, at.number), spent(plan.false_advance, at.soaked + 1), plan.suspicion, intervals)
    findings = tuple(
        _JUDGES[QUANTITIES[criterion.quantity].kind](criterion, table, levels) for criterion in plan.criteria_of(stage)
    )
    evidence = _evidence(table, at.hours)
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


def _evidence(table: VehicleTable, hours: float) -> Evidence:
    drives, candidate = table.now["drives"], table.candidate
    return Evidence(
        hours=hours,
        vehicles=int(np.count_nonzero(candidate & (drives > 0))),
        controls=int(np.count_nonzero(~candidate & (drives > 0))),
        drives=int(drives[candidate].sum()),
        control_drives=int(drives[~candidate].sum()),
        silent=int(np.count_nonzero(table.now["silent"])),
    )


def _event(criterion: Criterion, table: VehicleTable, levels: Levels) -> Finding:
    events, candidate = table.events(QUANTITIES[criterion.quantity]), table.candidate
    hit, drawn = int(np.count_nonzero(events & candidate)), int(candidate.sum())
    hit_control, controls = int(np.count_nonzero(events & ~candidate)), int((~candidate).sum())
    p_harm = more_events(events, candidate)
    words = (
        f"{criterion.quantity}: {hit} of {drawn} vehicles against {hit_control} of {controls} control, p {p_harm:.2g}"
    )
    if p_harm <= levels.alpha:
        outcome, reason = Outcome.ROLLBACK, f"{words} is beyond {levels.alpha:.2g}"
    elif p_harm <= levels.suspicion:
        outcome, reason = Outcome.HOLD, f"{words} is suspicious; look at these drives, then advance or roll back"
    else:
        outcome, reason = Outcome.ADVANCE, words
    interval = proportion_interval(hit, drawn) if levels.intervals else None
    return Finding(
        quantity=criterion.quantity,
        outcome=outcome,
        got=hit / drawn if drawn else None,
        control=hit_control / controls if controls else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        harm=criterion.harm,
        limit=None,
        p_harm=p_harm,
        p_safe=None,
        alpha=levels.alpha,
        beta=levels.beta,
        reason=reason,
    )


def _rate(criterion: Criterion, table: VehicleTable, levels: Levels) -> Finding:
    rates = table.rates(QUANTITIES[criterion.quantity])
    limit = criterion.limit or math.inf
    known = bool(rates.candidate.any() and not rates.candidate.all())
    got, low, high = None, None, None
    if levels.intervals and known:
        got = best_ratio(rates)
        low, high = ratio_interval(rates, levels.alpha, levels.beta)
    p_harm, p_safe = higher_rate(rates, criterion.harm), lower_rate(rates, limit)
    outcome, reason = _between(criterion, levels, p_harm, p_safe)
    return Finding(
        quantity=criterion.quantity,
        outcome=outcome,
        got=got,
        control=None,
        low=low,
        high=high,
        harm=criterion.harm,
        limit=limit,
        p_harm=p_harm,
        p_safe=p_safe,
        alpha=levels.alpha,
        beta=levels.beta,
        reason=f"{criterion.quantity}: {_figure(got, low, high, ' × control') if known else NO_FIGURES}{reason}",
    )


def _level(criterion: Criterion, table: VehicleTable, levels: Levels) -> Finding:
    shares = table.levels(QUANTITIES[criterion.quantity])
    limit = criterion.limit or math.inf
    p_harm, p_safe = mostly_above(shares, criterion.harm), mostly_below(shares, limit)
    outcome, reason = _between(criterion, levels, p_harm, p_safe)
    got = float(np.median(shares)) if len(shares) else None
    return Finding(
        quantity=criterion.quantity,
        outcome=outcome,
        got=got,
        control=None,
        low=None,
        high=None,
        harm=criterion.harm,
        limit=limit,
        p_harm=p_harm,
        p_safe=p_safe,
        alpha=levels.alpha,
        beta=levels.beta,
        reason=f"{criterion.quantity}: {_figure(got, None, None, ' in the median vehicle') or NO_FIGURES}{reason}",
    )


def _between(criterion: Criterion, levels: Levels, p_harm: float, p_safe: float) -> tuple[Outcome, str]:
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


_JUDGES: dict[str, Callable[[Criterion, VehicleTable, Levels], Finding]] = {
    "event": _event,
    "rate": _rate,
    "level": _level,
}
