"""What was measured of every engine that might ship: tried on frames of the search, timed beside float, and graded.

The search tries engines on frames of its own. The frames that grade are seen by finalists only, so that their figures
are not those of the luckiest of many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from compile.candidate import Candidate
from compile.cost import cost_of
from compile.decide import Decision, Limits, Row, decide
from compile.grading import Examination, Grade
from compile.job import Job
from compile.quantizer import Quantizer
from compile.sensitivity import LayerLoss
from compile.target import Target
from compile.timing import Latency
from perception.engines.engine import Engine
from perception.errors import CalibrationError, EngineError
from perception.files import sha256_of_bytes

UNGRADED = Grade(0.0, 1.0, {})


@dataclass(slots=True)
class Contest:
    """Everything measured so far.

    Attributes:
        exam: grades finalists; None where float was demanded and nothing is compared.
        trial: tries candidates of the search; None where none is tried.
        candidates: by name, float first.
        trials: candidate → how it did on the search's frames.
        grades: finalist → how it did on the frames that grade.
        losses: recipe → what each layer loses by it, greatest first.
        effects: layer → drift of the whole network from float with that layer alone in 8 bits.
        noise: share by which float differs from itself.
        ends_at: when the search stops, on the monotonic clock; None where it takes its time.
        reserved_s: seconds of the search's end that trials leave to what must be built.
        estimates: candidate that was not built → its time over float's, reckoned from engines that were.
        notes: what people should know of how it went.
    """

    job: Job
    quantizer: Quantizer
    target: Target
    exam: Examination | None = None
    trial: Examination | None = None
    candidates: dict[str, Candidate] = field(default_factory=dict)
    trials: dict[str, Grade] = field(default_factory=dict)
    grades: dict[str, Grade] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    losses: dict[str, list[LayerLoss]] = field(default_factory=dict)
    effects: dict[str, float] = field(default_factory=dict)
    noise: float = 0.0
    ends_at: float | None = None
    reserved_s: float = 0.0
    estimates: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    macs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weighted = {n.name for n in self.quantizer.graph.nodes if n.op_type in self.quantizer.rules.weighted_ops}
        nodes = cost_of(self.job.imported.model).nodes
        self.macs = {cost.node: cost.macs for cost in nodes if cost.node in weighted}

    @property
    def reference(self) -> Candidate:
        """The float engine."""
        return next(iter(self.candidates.values()))

    @property
    def limits(self) -> Limits:
        """What candidates must keep, with the noise measured so far."""
        metric = self.exam.metric if self.exam is not None else "nothing"
        options = self.job.options
        return Limits(
            metric,
            max_loss=options.max_loss,
            min_agreement=options.min_agreement,
            noise=self.noise,
            budget_ms=options.budget_ms,
        )

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time that was granted to trials is over."""
        return self.ends_at is not None and time.monotonic() + self.reserved_s >= self.ends_at

    def can_build(self, name: str) -> bool:
        """Whether there is time to build a candidate, or it needs none."""
        return self._affordable([name]) == [name]

    def affordable(self, names: Iterable[str]) -> list[str]:
        """Those that can be built before the time is over, in their order of importance; float always."""
        asked = list(dict.fromkeys(names))
        kept = self._affordable(asked)
        if left := len(asked) - len(kept):
            self.notes.append(f"the time limit left {left} engines unbuilt")
        return kept

    def _affordable(self, names: Sequence[str]) -> list[str]:
        kept: list[str] = []
        left_s = float("inf") if self.ends_at is None else self.ends_at - time.monotonic()
        for name in names:
            needed_s = self.target.preparing_s(self.candidates[name].content)
            if name == self.reference.name or not needed_s or needed_s <= left_s:
                kept.append(name)
                left_s -= needed_s
        return kept

    def decision(self) -> Decision:
        """Weigh everything that was graded."""
        rows = [self._row(candidate) for name, candidate in self.candidates.items() if self._is_weighed(name)]
        return decide(rows, self.limits, wish=self.job.options.precision)

    def cost(self, name: str) -> float:
        """What the search saves: time over float's where it is measured, else the share of multiply-adds in float."""
        latency = self.latencies.get(name)
        if latency is not None:
            return latency.ratio.middle
        return self.float_share(name) if self.target.build_seconds is None else self.estimates.get(name, float("inf"))

    def float_share(self, name: str) -> float:
        """Share of the multiply-adds that a candidate computes in float."""
        total = sum(self.macs.values())
        integer = sum(self.macs.get(node, 0) for node in self.candidates[name].integer_nodes)
        return 1 - integer / total if total else 1.0

    def failed(self, name: str) -> bool:
        """Whether a candidate could not even run."""
        return any(name in graded and bool(graded[name].failure) for graded in (self.trials, self.grades))

    def passes(self, name: str) -> bool:
        """Whether a candidate is within the limits on the frames of the search."""
        grade = self.trials.get(name, UNGRADED)
        loss = 0.0 if self.job.options.labels is not None else grade.loss
        return not grade.failure and self.limits.admit(loss=loss, agreement=grade.agreement)

    def front(self) -> list[str]:
        """Candidates that none beats in both cost and drift, the cheapest first."""
        tried = [name for name in self.trials if not self.failed(name) and self.candidates[name].recipe is not None]
        ordered = sorted(tried, key=lambda name: (self.cost(name), self.trials[name].apart))
        kept: list[str] = []
        for name in ordered:
            if not kept or self.trials[name].apart < self.trials[kept[-1]].apart:
                kept.append(name)
        return kept

    def _is_weighed(self, name: str) -> bool:
        return self.candidates[name].recipe is None or name in self.grades

    def _row(self, candidate: Candidate) -> Row:
        grade = self.grades.get(candidate.name, UNGRADED)
        return Row(
            name=candidate.name,
            precision=candidate.precision,
            recipe=f"{candidate.words}; failed: {grade.failure}" if grade.failure else candidate.words,
            loss=grade.loss,
            agreement=grade.agreement,
            scores=grade.scores,
            latency=self.latencies.get(candidate.name),
            size_bytes=len(candidate.content),
            float_layers=candidate.weighted_layers - candidate.integer_layers,
            weighted_layers=candidate.weighted_layers,
        )


def open_exams(contest: Contest, *, searching: bool) -> None:
    """Let the float engine say what it says about all frames.

    Raises:
        LabelError, CalibrationError: it finds nothing on the frames that grade.
    """
    job = contest.job
    with contest.target.simulated(contest.reference.content) as engine:
        contest.exam = Examination(job.spec, job.evaluation, engine)
        contest.grades[contest.reference.name] = contest.exam.reference
        if searching:
            contest.trial = _trial(contest, engine)
            contest.trials[contest.reference.name] = contest.trial.reference


def _trial(contest: Contest, engine: Engine) -> Examination:
    """On the first frames that float reports anything on: of the search, of the calibration, of the grading."""
    job = contest.job
    for words, recordings in (
        ("", job.search),
        ("the search ran on calibration frames: float reports nothing on the others", job.calibration.recordings),
        ("the search ran on frames that grade: float reports nothing on the others", job.evaluation.recordings),
    ):
        try:
            trial = Examination.unlabelled(job.spec, recordings, engine)
        except CalibrationError as error:
            nothing = error
            continue
        contest.notes += [words] if words else []
        return trial
    raise nothing


def try_out(contest: Contest, candidates: Iterable[Candidate]) -> None:
    """Try candidates on the frames of the search."""
    chosen = list(candidates)
    if contest.trial is None:
        raise ValueError("contest: has no frames to try candidates on")
    _grade(contest, chosen, contest.trial, "trying engines on the frames of the search")


def grade(contest: Contest, names: Iterable[str]) -> None:
    """Grade finalists on frames that neither calibrated nor searched; what did not even run is not tried again."""
    names = list(names)
    contest.grades |= {
        name: contest.trials[name] for name in names if name not in contest.grades and contest.failed(name)
    }
    chosen = [contest.candidates[name] for name in names if name not in contest.grades]
    if contest.exam is None:
        raise ValueError("contest: has no examination to grade by")
    _grade(contest, chosen, contest.exam, "grading on frames not seen before")


def _grade(contest: Contest, candidates: Sequence[Candidate], exam: Examination, words: str) -> None:
    results = contest.trials if exam is contest.trial else contest.grades
    with contest.job.terminal.progress(words, len(candidates) * len(exam.recordings)) as step:
        for candidate in candidates:
            key = ("grade", sha256_of_bytes(candidate.content), *_graded_by(contest, exam))

            def measured(content: bytes = candidate.content) -> JsonValue:
                return asdict(_grade_of(contest, content, exam, step))

            document = cast("dict[str, Any]", contest.job.store.document(key, measured))
            results[candidate.name] = Grade(**document)
            contest.candidates.setdefault(candidate.name, candidate)


def _graded_by(contest: Contest, exam: Examination) -> tuple[JsonValue, ...]:
    """What a grade depends on beside the engine."""
    reference = sha256_of_bytes(contest.reference.content)
    return (reference, type(contest.target).__name__, *exam.identity, contest.job.threads)


def _grade_of(contest: Contest, content: bytes, exam: Examination, step: Callable[[], None]) -> Grade:
    target = contest.target
    try:
        with target.simulated(content) if exam is contest.trial else target.opened(content) as engine:
            return exam.grade(exam.results(contest.job.spec, engine, step))
    except EngineError as error:
        return Grade(1.0, 0.0, {}, failure=str(error))


def losses_document(losses: Mapping[str, Sequence[LayerLoss]]) -> dict[str, JsonValue]:
    """For JSON: recipe → layer → share of its signal lost."""
    return {recipe: {loss.node: loss.noise_share for loss in layers} for recipe, layers in losses.items()}
