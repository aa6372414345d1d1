"""Candidates against float: graded on frames nobody calibrated on, timed side by side, weighed by the law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import JsonValue

from compile.backends.onnxrt import opened
from compile.decide import Decision, Limits, Row, decide
from compile.grading import Examination, Grade
from compile.job import Job
from compile.recipes import Candidate, Quantizer, Recipe, usable_recipes
from compile.sensitivity import LayerLoss
from compile.timing import Latency, time_side_by_side
from perception.engines.engine import Engine, Tensors
from perception.errors import EngineError
from perception.preprocess import Preprocessor

KEEP_RUNGS = (1, 2, 4, 8, 16)
"""How many of the worst layers are tried in float, until the accuracy is within the limit."""

HOPELESSLY_SLOW = 1.1
"""Times as long as float, at the near end of its interval: keeping layers float moves it towards float, not past it."""

AGAIN = "fp32 again"
UNGRADED = Grade(0.0, 1.0, {})


@dataclass(slots=True)
class Contest:
    """What was measured so far.

    Attributes:
        exam: grades engines; None where float was demanded and nothing is compared.
        candidates: by name, float first.
        losses: recipe → what each layer loses by it, greatest first.
        noise: share by which float differs from itself.
    """

    job: Job
    quantizer: Quantizer
    exam: Examination | None
    candidates: dict[str, Candidate] = field(default_factory=dict)
    grades: dict[str, Grade] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    losses: dict[str, list[LayerLoss]] = field(default_factory=dict)
    noise: float = 0.0

    def decision(self) -> Decision:
        """Weigh everything measured."""
        rows = [self._row(candidate) for candidate in self.candidates.values()]
        return decide(rows, self.limits, wish=self.job.options.precision)

    @property
    def limits(self) -> Limits:
        """What candidates must keep, with the noise measured so far."""
        metric = self.exam.metric if self.exam is not None else "nothing"
        options = self.job.options
        return Limits(metric, max_loss=options.max_loss, min_agreement=options.min_agreement, noise=self.noise)

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


def hold_contest(job: Job, quantizer: Quantizer) -> Contest:
    """Measure float and, unless float was demanded, every INT8 candidate.

    Raises:
        LabelError, CalibrationError: float itself finds nothing on the frames to grade on.
        ModelError, EngineError: the network fails on a real frame.
    """
    reference = quantizer.float_candidate()
    wanted = job.options.precision != "fp32"
    recipes = usable_recipes(quantizer, job.profile.engine_kind) if wanted and "int8" in job.profile.precisions else ()
    exam = _open_exam(job, reference) if recipes or job.options.labels is not None else None
    contest = Contest(job, quantizer, exam, {reference.name: reference})
    if exam is not None:
        contest.grades[reference.name] = exam.reference
    if recipes:
        _calibrate(contest, recipes)
        _grade(contest, [quantizer.candidate(recipe) for recipe in recipes])
    _time(contest, list(contest.candidates))
    for scope in dict.fromkeys(recipe.scope for recipe in recipes):
        _keep_worst_float(contest, [recipe for recipe in recipes if recipe.scope == scope])
    _time(contest, [name for name in contest.candidates if _is_accurate(contest, name)])
    return contest


def _open_exam(job: Job, reference: Candidate) -> Examination:
    with opened(reference.content, threads=job.threads) as engine:
        return Examination(job.spec, job.evaluation, engine)


def _calibrate(contest: Contest, recipes: Sequence[Recipe]) -> None:
    with contest.job.terminal.progress("watching every tensor on the calibration frames", None) as step:
        contest.quantizer.observe(recipes, step)


def _grade(contest: Contest, candidates: Sequence[Candidate]) -> None:
    job, exam = contest.job, contest.exam
    if exam is None:
        raise ValueError("contest: has no examination to grade by")
    with job.terminal.progress(
        "comparing with float, frame by frame", len(candidates) * len(job.evaluation.recordings)
    ) as step:
        for candidate in candidates:
            try:
                with opened(candidate.content, threads=job.threads) as engine:
                    grade = exam.grade(exam.results(job.spec, engine, step))
            except EngineError as error:
                grade = Grade(1.0, 0.0, {}, failure=str(error))
            contest.grades[candidate.name] = grade
            contest.candidates[candidate.name] = candidate


def _keep_worst_float(contest: Contest, recipes: Sequence[Recipe]) -> None:
    """Give the layers that lose most back to float, more and more of them, until the accuracy is within the limit."""
    best = max(recipes, key=lambda recipe: contest.grades[recipe.name].agreement)
    if _failed(contest, best.name) or _is_accurate(contest, best.name) or _is_hopelessly_slow(contest, best.name):
        return
    with contest.job.terminal.progress(f"finding what each layer loses by {best.name}", None):
        losses = contest.losses[best.name] = contest.quantizer.losses(best)
    for rung in KEEP_RUNGS:
        if rung >= len(losses):
            return
        kept = {loss.node: f"loses {loss.noise_share:.1%} of its signal" for loss in losses[:rung]}
        candidate = contest.quantizer.candidate(best, kept)
        _grade(contest, [candidate])
        if _is_accurate(contest, candidate.name):
            return


def _failed(contest: Contest, name: str) -> bool:
    return name in contest.grades and bool(contest.grades[name].failure)


def _is_accurate(contest: Contest, name: str) -> bool:
    grade = contest.grades.get(name, UNGRADED)
    return contest.limits.admit(loss=grade.loss, agreement=grade.agreement)


def _is_hopelessly_slow(contest: Contest, name: str) -> bool:
    return contest.job.options.precision == "auto" and contest.latencies[name].ratio.low > HOPELESSLY_SLOW


def _time(contest: Contest, names: Sequence[str]) -> None:
    """Time those not timed yet beside float, and float beside itself."""
    new = [name for name in names if name not in contest.latencies and not _failed(contest, name)]
    if not new:
        return
    job = contest.job
    feeds = _one_feed(job)
    reference = next(iter(contest.candidates))
    with ExitStack() as stack, job.terminal.progress("timing engines side by side", None) as step:
        jobs = {}
        for name in dict.fromkeys((reference, *new, AGAIN)):
            content = contest.candidates[reference if name == AGAIN else name].content
            jobs[name] = _inference(stack.enter_context(opened(content, threads=job.threads)), feeds)
        timed = time_side_by_side(jobs, reference=reference, budget_s=job.options.timing_s, advance=step)
    again = timed.pop(AGAIN).ratio
    contest.noise = max(contest.noise, abs(again.low - 1), abs(again.high - 1))
    contest.latencies = {**timed, **contest.latencies}


def _inference(engine: Engine, feeds: Tensors) -> Callable[[], object]:
    return lambda: engine.infer(feeds)


def _one_feed(job: Job) -> Tensors:
    """The first frame to grade on, as the network is fed it."""
    frame = next(iter(job.evaluation.recordings.frames()))
    return Preprocessor(job.spec.picture, job.spec.size_input).prepare(frame.pixels).feeds


def losses_document(losses: Mapping[str, Sequence[LayerLoss]]) -> dict[str, JsonValue]:
    """For JSON: recipe → layer → share of its signal lost."""
    return {recipe: {loss.node: loss.noise_share for loss in layers} for recipe, layers in losses.items()}
