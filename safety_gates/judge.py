"""From a trial to a judgement: measure, hold every figure against its limit, combine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from perception.errors import PolicyError
from perception.files import json_bytes, sha256_of_bytes
from safety_gates.case import Case
from safety_gates.conditions import Sha256, Subject, code_version
from safety_gates.evidence import KeptEvidence
from safety_gates.forecast import Forecast
from safety_gates.gates.gate import Comparison, Unmeasured
from safety_gates.gates.table import EVERY_FRAME, PASSES, looks_of, open_gate
from safety_gates.policy import Policy, Requirement
from safety_gates.trial import Trial
from safety_gates.verdict import LeftOut, Measured, Outcome, Verdict, all_of, judged

Exhibits: TypeAlias = Mapping[str, KeptEvidence | Unmeasured]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found about one package.

    Attributes:
        case: what was tried.
        policy: what was asked.
        verdicts: one for each claim that applies, in the policy's order.
        left_out: claims that do not apply to this package.
        exhibits: by gate, the evidence, or why there is none.
        judged_ns: UTC in nanoseconds since 1970.
    """

    case: Case
    policy: Policy
    verdicts: tuple[Verdict, ...]
    left_out: tuple[str, ...]
    exhibits: Exhibits
    judged_ns: int

    @property
    def outcome(self) -> Outcome:
        """All verdicts together."""
        return all_of(self.verdicts)


def judge(trial: Trial, policy: Policy) -> Judgement:
    """Try a package against a policy: each measurement once, every claim judged.

    Raises:
        PolicyError: no limit applies to this kind of model.
        TollgateError: the recording, the labels or the engine fail.
    """
    package = trial.case.package
    requirements = policy.requirements(package.profile, package.spec.task)
    trial.policy = policy
    exhibits = trial.confirmed(_measured(trial, _gates_of(requirements)))
    verdicts = verdicts_on(requirements, exhibits)
    judged_claims = {verdict.requirement.claim for verdict in verdicts}
    return Judgement(
        case=trial.case,
        policy=policy,
        verdicts=verdicts,
        left_out=tuple(limit.claim for limit in policy.limits if limit.claim not in judged_claims),
        exhibits=exhibits,
        judged_ns=time.time_ns(),
    )


def verdicts_on(requirements: Sequence[Requirement], exhibits: Exhibits) -> tuple[Verdict, ...]:
    """Judge every requirement from evidence alone; equal evidence gives equal verdicts, today and at a release.

    Raises:
        PolicyError: this package has none of the quantities that are asked for.
    """
    figures = {gate: _figures(gate, exhibit, requirements) for gate, exhibit in exhibits.items()}
    asked = [(each, figures[each.gate][each.quantity]) for each in requirements]
    verdicts = tuple(judged(each, figure) for each, figure in asked if isinstance(figure, Measured))
    if not verdicts:
        raise PolicyError("the policy asks only for what this package does not have; add a limit that applies to it")
    return verdicts


def _measured(trial: Trial, gates: Sequence[str]) -> dict[str, KeptEvidence | Unmeasured]:
    exhibits: dict[str, KeptEvidence | Unmeasured] = {}
    forecast = Forecast([EVERY_FRAME, *gates], PASSES)
    trial.begin("every frame")
    trial.look_through([look for name in gates for look in looks_of(name, trial)])
    forecast.done(EVERY_FRAME, measured=trial.measured > 0)
    for number, name in enumerate(gates, start=1):
        trial.begin(f"{name} ({number} of {len(gates)}{forecast.left()})")
        measured_before = trial.measured
        exhibits[name] = open_gate(name).measure(trial)
        forecast.done(name, measured=trial.measured > measured_before)
    trial.begin("report")
    return exhibits


def _gates_of(requirements: Iterable[Requirement]) -> list[str]:
    return list(dict.fromkeys(requirement.gate for requirement in requirements))


def _figures(
    gate: str, exhibit: KeptEvidence | Unmeasured, requirements: Sequence[Requirement]
) -> Mapping[str, Measured | LeftOut]:
    wanted = [each.quantity for each in requirements if each.gate == gate]
    if isinstance(exhibit, Unmeasured):
        return dict.fromkeys(wanted, Measured(None, 0, "samples", note=exhibit.why))
    return open_gate(gate).read(exhibit, wanted)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bounds(_Strict):
    """An interval; null for an end that the samples cannot bound."""

    low: float | None
    high: float | None
    confidence: float


class WrittenVerdict(_Strict):
    """A verdict as it stands in the file."""

    claim: str
    gate: str
    quantity: str
    outcome: Outcome
    got: float | None
    comparison: Comparison
    limit: float
    unit: str
    interval: Bounds | None
    samples: int
    sampled: str
    why: str
    collect: str
    more_samples: int | None
    evidence: Sha256 | None

    @classmethod
    def of(cls, verdict: Verdict) -> WrittenVerdict:
        """Write a verdict down."""
        asked, measured = verdict.requirement, verdict.measured
        interval = measured.interval
        return cls(
            claim=asked.claim,
            gate=asked.gate,
            quantity=asked.quantity,
            outcome=verdict.outcome,
            got=_finite(measured.got),
            comparison=asked.comparison,
            limit=asked.limit,
            unit=asked.unit,
            interval=None
            if interval is None
            else Bounds(low=_finite(interval.low), high=_finite(interval.high), confidence=interval.confidence),
            samples=measured.samples,
            sampled=measured.sampled,
            why=verdict.why,
            collect=verdict.collect,
            more_samples=verdict.more_samples,
            evidence=measured.evidence,
        )


class WrittenReport(_Strict):
    """The report that shows this judgement: its path as seen from the judgement's folder, and its digest."""

    file: str
    sha256: Sha256


class WrittenJudgement(_Strict):
    """A judgement as a file: what was found, the whole policy, and the digest of every evidence file under it.

    Attributes:
        evidence: by gate, the digest of its evidence file.
        evidence_folder: the shelf, as seen from the judgement's folder.
    """

    format: Literal["tollgate-judgement/1"] = "tollgate-judgement/1"
    outcome: Outcome
    subject: Subject
    policy: dict[str, Any]
    policy_sha256: Sha256
    verdicts: tuple[WrittenVerdict, ...] = Field(min_length=1)
    left_out: tuple[str, ...]
    evidence: dict[str, Sha256]
    evidence_folder: str
    command: str
    judged_ns: int
    tollgate: str
    report: WrittenReport

    @classmethod
    def of(cls, judgement: Judgement, *, evidence_folder: str, report: WrittenReport) -> WrittenJudgement:
        """Write a judgement down."""
        policy = judgement.policy.model_dump(mode="json")
        return cls(
            outcome=judgement.outcome,
            subject=Subject.of(judgement.case.package),
            policy=policy,
            policy_sha256=sha256_of_bytes(json_bytes(policy)),
            verdicts=tuple(WrittenVerdict.of(verdict) for verdict in judgement.verdicts),
            left_out=judgement.left_out,
            evidence={
                gate: exhibit.sha256
                for gate, exhibit in judgement.exhibits.items()
                if isinstance(exhibit, KeptEvidence)
            },
            evidence_folder=evidence_folder,
            command=judgement.case.command,
            judged_ns=judgement.judged_ns,
            tollgate=code_version(),
            report=report,
        )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
