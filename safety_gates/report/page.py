"""The page itself: what a judgement says, laid out for people."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from pydantic import JsonValue

from safety_gates.conditions import DataSet, Subject, code_version
from safety_gates.evidence import Evidence, KeptEvidence
from safety_gates.gates.table import quantities_of
from safety_gates.judge import Judgement
from safety_gates.report.pictures import KEY, MASK_KEY, worst_comparisons
from safety_gates.report.plots import chapters_of
from safety_gates.report.words import MARKS, SIGNS, counted, range_with_unit, with_unit
from safety_gates.statistics import CONFIDENCE
from safety_gates.trial import Trial
from safety_gates.verdict import Outcome, Verdict

ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)
GAUGE_LEFT, GAUGE_RIGHT, GAUGE_OPEN = 6.0, 138.0, 20.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where interval, figure and limit stand on a line, in units of the drawing."""

    low: float
    width: float
    got: float
    limit: float
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """One claim as the table shows it."""

    outcome: str
    claim: str
    meaning: str
    got: str
    interval: str
    limit: str
    gauge: Gauge | None
    samples: str
    reason: str
    why: str
    source: str
    owner: str
    gate: str
    evidence: str | None


@dataclass(frozen=True, slots=True)
class Block:
    """Facts under one heading; `name` is where links lead, where any do."""

    title: str
    facts: tuple[tuple[str, str], ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Files with their digests."""

    title: str
    files: tuple[tuple[str, str], ...]


def render(judgement: Judgement, trial: Trial) -> bytes:
    """The report as one HTML file that needs no network.

    Raises:
        SourceError: the recording cannot be read again for its worst frames.
    """
    parity = judgement.exhibits.get("parity")
    comparisons = worst_comparisons(trial, parity) if isinstance(parity, KeptEvidence) else ()
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_text("page.html"))
    task = judgement.case.package.spec.task
    document = page.render(
        css=_text("page.css"),
        outcome=judgement.outcome.value,
        marks=MARKS,
        subject=Subject.of(judgement.case.package),
        tally=_tally(judgement, trial),
        policy_name=judgement.policy.name,
        rows=[_row(verdict) for verdict in sorted(judgement.verdicts, key=lambda each: ORDER.index(each.outcome))],
        confidence=f"{CONFIDENCE:.0%}",
        left_out=judgement.left_out,
        chapters=chapters_of(judgement.exhibits, judgement.verdicts),
        comparisons=comparisons,
        comparisons_lede="The frames in which engine and reference differ most, the worst first.",
        comparison_key=KEY if task == "detection" else MASK_KEY,
        conditions=tuple(_blocks(judgement, trial)),
        digests=tuple(_listings(judgement, trial)),
        tollgate=code_version(),
        judged=_instant(judgement.judged_ns),
    )
    return document.encode()


def _text(name: str) -> str:
    return (files("safety_gates.report") / name).read_text(encoding="utf-8")


def _tally(judgement: Judgement, trial: Trial) -> str:
    outcomes = [verdict.outcome for verdict in judgement.verdicts]
    counts = (
        (outcomes.count(outcome), outcome.value) for outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE)
    )
    claims = ", ".join(f"{count} {word.lower()}" for count, word in counts if count)
    return f"{len(outcomes)} claims: {claims}. Recording: {trial.recording.name}"


def _row(verdict: Verdict) -> Row:
    asked, measured = verdict.requirement, verdict.measured
    return Row(
        outcome=verdict.outcome.value,
        claim=asked.claim,
        meaning=quantities_of(asked.gate)[asked.quantity].meaning,
        got=with_unit(measured.got, asked.unit),
        interval="" if measured.interval is None else range_with_unit(measured.interval, asked.unit),
        limit=f"{SIGNS[asked.comparison]} {with_unit(asked.limit, asked.unit)}",
        gauge=_gauge(verdict),
        samples=counted(measured.samples, measured.sampled) if measured.samples else "none",
        reason=verdict.why[:1].upper() + verdict.why[1:] + ".",
        why=asked.why[:1].upper() + asked.why[1:],
        source=asked.source,
        owner=asked.owner,
        gate=asked.gate,
        evidence=measured.evidence,
    )


def _gauge(verdict: Verdict) -> Gauge | None:
    got, interval, limit = verdict.measured.got, verdict.measured.interval, verdict.requirement.limit
    if got is None or interval is None or not math.isfinite(got):
        return None
    ends = [end for end in (interval.low, interval.high) if math.isfinite(end)]
    least, most = min([got, limit, *ends]), max([got, limit, *ends])
    span = (most - least) or abs(most) or 1.0
    room = GAUGE_OPEN if len(ends) < 2 else 0.0  # an open end runs on, beyond everything that has a place

    def place(figure: float) -> float:
        if math.isinf(figure):
            return GAUGE_RIGHT if figure > 0 else GAUGE_LEFT
        return round(GAUGE_LEFT + room + (figure - least) / span * (GAUGE_RIGHT - GAUGE_LEFT - 2 * room), 1)

    low, high = place(interval.low), place(interval.high)
    unit = verdict.requirement.unit
    label = f"interval {range_with_unit(interval, unit)}, limit {with_unit(limit, unit)}"
    return Gauge(low, max(1.5, round(high - low, 1)), place(got), place(limit), label)


def _blocks(judgement: Judgement, trial: Trial) -> Iterator[Block]:
    case, subject = judgement.case, Subject.of(judgement.case.package)
    spec, build = case.package.spec, case.package.manifest.build
    yield Block(
        "Package",
        (
            ("name", subject.name),
            ("profile", subject.profile),
            ("precision", case.package.manifest.engine.precision),
            ("package sha256", subject.package_sha256),
            ("engine sha256", subject.engine_sha256),
            ("model licence", spec.licence),
            ("model source", spec.source),
            *(
                (f"build: {name}", _words(value))
                for name, value in sorted(build.items())
                if not isinstance(value, dict | list)
            ),
        ),
    )
    yield Block("Recording", _recording_facts(trial))
    evidence = [kept for kept in judgement.exhibits.values() if isinstance(kept, KeptEvidence)]
    if evidence:
        machine = evidence[-1].evidence.conditions.machine
        yield Block(
            "Machine", tuple((name, _words(value)) for name, value in machine.items() if value not in (None, []))
        )
    for gate, kept in judgement.exhibits.items():
        if isinstance(kept, KeptEvidence):
            yield Block(f"Evidence: {gate}", tuple(_evidence_facts(kept)), f"evidence-{gate}")


def _recording_facts(trial: Trial) -> tuple[tuple[str, str], ...]:
    case = trial.case
    facts = [("recording", trial.recording.name), ("files", str(len(trial.recording.files)))]
    facts.append(("frames", "all" if case.frames is None else f"the first {case.frames}"))
    if case.timing:
        facts.append(("latency measured on", trial.timing.name))
    if trial.labels is not None:
        facts.append(("labels", trial.labels.name))
    if case.reference is not None:
        facts += [("reference", case.reference.manifest.name), ("reference sha256", case.reference.sha256)]
    return (*facts, ("command", case.command))


def _evidence_facts(kept: KeptEvidence) -> Iterator[tuple[str, str]]:
    evidence = kept.evidence
    yield "file", f"{kept.sha256}.json"
    yield (
        "measured",
        f"{_instant(evidence.started_ns)} UTC, took {(evidence.ended_ns - evidence.started_ns) / 1e9:.1f} s",
    )
    yield "samples", str(evidence.samples)
    if evidence.rests_on:
        yield "rests on", ", ".join(f"{sha256}.json" for sha256 in evidence.rests_on)
    yield "code", evidence.conditions.tollgate
    if isinstance(share := evidence.values.get("share_of_others"), float):
        yield "processor time of other programs", f"{share:.1%}"
    yield from _machine_states(evidence)


def _machine_states(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Before → after of whatever the machine tells."""
    for name, unit in (
        ("cpu_clock_mhz", "MHz"),
        ("gpu_clock_mhz", "MHz"),
        ("temperature_c", "°C"),
        ("throttle_events", ""),
    ):
        before, after = evidence.before.get(name), evidence.after.get(name)
        if before is not None or after is not None:
            yield (
                name.rsplit("_", 1)[0].replace("_", " ") if unit else name.replace("_", " "),
                f"{_words(before)} → {_words(after)} {unit}",
            )


def _listings(judgement: Judgement, trial: Trial) -> Iterator[Listing]:
    package = judgement.case.package
    yield Listing(
        "Digests of the package's files",
        tuple((name, entry.sha256) for name, entry in sorted(package.manifest.files.items())),
    )
    yield _data_set_listing("recording", trial.recording)
    if trial.case.timing:
        yield _data_set_listing("timing recordings", trial.timing)
    if trial.labels is not None and trial.labels.files != trial.recording.files:
        yield _data_set_listing("labels", trial.labels)


def _data_set_listing(what: str, data_set: DataSet) -> Listing:
    return Listing(f"Digests of the {what}’s files", tuple(sorted(data_set.files.items())))


def _words(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    return "–" if value is None else str(value)


def _instant(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
