"""Engines of a contest timed beside float, on their machine, in alternating rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, cast

from pydantic import JsonValue

from compile.contest import Contest
from compile.grading import Grade
from compile.job import Job
from compile.timing import Latency, time_side_by_side
from perception.engines.engine import Engine, Tensors
from perception.errors import EngineError, ModelError
from perception.files import sha256_of_bytes
from perception.preprocess import Preprocessor

AGAIN = "fp32 again"


def time_them(contest: Contest, names: Iterable[str], *, again: bool = False) -> None:
    """Time those not timed yet beside float, and float beside itself; nothing where this is not their machine.

    Args:
        contest: what was measured so far.
        names: candidates.
        again: time them all, and forget what was measured before: fewer engines in a round leave more rounds to each.
    """
    new = [name for name in names if (again or name not in contest.latencies) and not contest.failed(name)]
    if not new or not contest.target.is_timed:
        return
    wanted = (contest.reference.name, *(new if again else _one_of_each(contest, new)))
    names = [*that_build(contest, contest.affordable(wanted)), AGAIN]
    contents = [contest.candidates[contest.reference.name if n == AGAIN else n].content for n in names]
    job = contest.job
    key = ("latency", *map(sha256_of_bytes, contents), *job.clock)

    def measured() -> JsonValue:
        return {name: latency.state() for name, latency in _timed(contest, names, contents).items()}

    states = cast("dict[str, dict[str, Any]]", job.store.document(key, measured))
    timed = {name: Latency.of_state(state) for name, state in states.items()}
    beside_itself = timed.pop(AGAIN).ratio
    noise = max(abs(beside_itself.low - 1), abs(beside_itself.high - 1))
    contest.noise = noise if again else max(contest.noise, noise)
    contest.latencies = {**contest.latencies, **timed}
    _share_times(contest, new)


def that_build(contest: Contest, names: Sequence[str]) -> list[str]:
    """Those whose engine can be made; of the others it is noted why not, and all of their operators count as failed."""
    if contest.target.build_seconds is None:
        return list(names)
    kept: list[str] = []
    for name in names:
        content = contest.candidates[name].content
        try:
            contest.target.serialised(content)
        except (EngineError, ModelError) as error:
            if name == contest.reference.name:
                raise
            contest.notes.append(f"{name} cannot be built: {error}")
            timed_as, failed = contest.target.timed_as(content), Grade(1.0, 0.0, {}, failure=str(error))
            alike = [c.name for c in contest.candidates.values() if contest.target.timed_as(c.content) == timed_as]
            contest.trials |= dict.fromkeys(alike, failed)
        else:
            kept.append(name)
    return kept


def _one_of_each(contest: Contest, names: Sequence[str]) -> list[str]:
    """Of those that take the same time one, and none where it was timed before."""
    timed_as = {name: contest.target.timed_as(contest.candidates[name].content) for name in contest.candidates}
    seen = {timed_as[name] for name in contest.latencies}
    first = {timed_as[name]: name for name in reversed(names) if timed_as[name] not in seen}
    return [name for name in names if name in first.values()]


def _share_times(contest: Contest, names: Iterable[str]) -> None:
    """Give those that were not timed themselves the time of their like."""
    timed_as = {name: contest.target.timed_as(contest.candidates[name].content) for name in contest.candidates}
    known = {timed_as[name]: latency for name, latency in contest.latencies.items()}
    shared = [name for name in names if name not in contest.latencies and timed_as[name] in known]
    contest.latencies |= {name: known[timed_as[name]] for name in shared}


def _timed(contest: Contest, names: Sequence[str], contents: Sequence[bytes]) -> dict[str, Latency]:
    feeds = one_feed(contest.job)
    with ExitStack() as stack, contest.job.terminal.progress("timing engines side by side", None) as step:
        jobs = {
            name: _inference(stack.enter_context(contest.target.opened(content)), feeds)
            for name, content in zip(names, contents, strict=True)
        }
        return time_side_by_side(jobs, reference=names[0], budget_s=contest.job.options.timing_s, advance=step)


def _inference(engine: Engine, feeds: Tensors) -> Callable[[], object]:
    return lambda: engine.infer(feeds)


def one_feed(job: Job) -> Tensors:
    """The first frame to grade on, as the network is fed it."""
    frame = next(iter(job.evaluation.recordings.frames()))
    return Preprocessor(job.spec.picture, job.spec.size_input).prepare(frame.pixels).feeds
