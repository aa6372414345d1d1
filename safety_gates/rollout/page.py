"""`rollout status --html`: stages, exposure, evidence against limits, decisions, on one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from typing import Any

from jinja2 import Environment, StrictUndefined

from safety_gates.rollout.decision import Outcome
from safety_gates.rollout.decision_log import Entry
from safety_gates.rollout.ingest import REASONS
from safety_gates.rollout.plots import evidence_plots, exposure_plot
from safety_gates.rollout.rollout import Rollout

TONES = {
    "complete": "PASSED",
    "rolled back": "FAILED",
    "held": "INCONCLUSIVE",
    "waits for a person": "INCONCLUSIVE",
    "rolling": "ROLLING",
}
MARKS = {"complete": "✓", "rolled back": "✗", "held": "‖", "waits for a person": "!", "rolling": "▸"}
ACTION_TONES = {"advance": "PASSED", "complete": "PASSED", "rollback": "FAILED"}


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage as the page shows it; `standing` is done, now, stopped or ahead."""

    name: str
    share: str
    standing: str
    looks: int
    since: str
    soak: str


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One entry of the log."""

    number: int
    at: str
    action: str
    tone: str
    stage: str
    by: str
    signer: str
    reason: str


def render(rollout: Rollout, counts: Mapping[str, int], now_ns: int) -> bytes:
    """The page as one HTML file.

    Args:
        rollout: as its verified log says.
        counts: records by what became of them.
        now_ns: until when exposure is drawn.
    """
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        (files("safety_gates.rollout") / "page.html").read_text(encoding="utf-8")
    )
    entries, standing = rollout.log.entries, _standing(rollout)
    document = page.render(
        css=(files("safety_gates.report") / "page.css").read_text(encoding="utf-8"),
        standing=standing,
        tone=TONES[standing],
        mark=MARKS[standing],
        plan=rollout.plan,
        last=rollout.log.last,
        stages=tuple(_stage_rows(rollout)),
        exposure=exposure_plot(entries, max(now_ns, entries[-1].at_ns)),
        evidence=evidence_plots(entries),
        decisions=[_decision(entry, signer) for entry, signer in zip(entries, rollout.log.signers, strict=True)][::-1],
        counts=[(reason, counts.get(reason, 0), says) for reason, says in REASONS.items()],
        head=rollout.log.head,
        tollgate=version("tollgate"),
        drawn=_instant(now_ns),
        false_rollback=f"{100 * rollout.file.false_rollback:g} %",
    )
    return document.encode()


def _standing(rollout: Rollout) -> str:
    if rollout.plan.state == "rolled_back":
        return "rolled back"
    if rollout.ended:
        return "complete"
    if rollout.log.last.paused:
        return "held"
    return "waits for a person" if _suspicious(rollout.log.last.judgement or {}) else "rolling"


def _suspicious(judgement: Mapping[str, Any]) -> bool:
    """Whether nothing but an event that is not quite harm stands in the way."""
    held = [each for each in judgement.get("findings", ()) if each["outcome"] == Outcome.HOLD]
    return bool(judgement.get("soaked")) and any(each["p_safe"] is None for each in held)


def _stage_rows(rollout: Rollout) -> Iterator[StageRow]:
    names = [stage.name for stage in rollout.file.stages]
    current = names.index(rollout.plan.stage)
    for index, stage in enumerate(rollout.file.stages):
        entries = [entry for entry in rollout.log.entries if entry.plan.stage == stage.name]
        here = "stopped" if rollout.plan.state == "rolled_back" else "done" if rollout.ended else "now"
        shadow = f"{100 * stage.shadow:g} % in shadow" if stage.shadow else ""
        yield StageRow(
            name=stage.name,
            share=shadow or f"{100 * stage.share:.3g} % candidate",
            standing="done" if index < current else here if index == current else "ahead",
            looks=sum(entry.judgement is not None and entry.action != "advance" for entry in entries)
            + sum(entry.action == "advance" and entry.judgement is not None for entry in _leaving(rollout, stage.name)),
            since=_instant(entries[0].at_ns)[:10] if entries else "",
            soak=f"{stage.soak.hours:g} h, {stage.soak.vehicles:,} vehicles, {stage.soak.drives:,} drives",
        )


def _leaving(rollout: Rollout, stage: str) -> list[Entry]:
    """Entries that moved out of a stage."""
    pairs = pairwise(rollout.log.entries)
    return [after for before, after in pairs if before.plan.stage == stage and after.plan.stage != stage]


def _decision(entry: Entry, signer: str) -> DecisionRow:
    return DecisionRow(
        number=entry.number,
        at=_instant(entry.at_ns),
        action=entry.action,
        tone=ACTION_TONES.get(entry.action, "INCONCLUSIVE" if entry.action == "hold" else "QUIET"),
        stage=entry.plan.stage,
        by=entry.by,
        signer=signer[:12],
        reason=entry.reason,
    )


def _instant(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
