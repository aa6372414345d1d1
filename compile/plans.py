"""What a search does where engines must be built for minutes: it builds few and reckons the rest from their layers."""

from __future__ import annotations

import time
from dataclasses import replace

from compile.candidate import Candidate
from compile.contest import Contest, try_out
from compile.layers import times_of_nodes
from compile.race import one_feed, that_build
from perception.files import sha256_of_bytes


def build_first(contest: Contest) -> None:
    """Build float and FP16, which are wanted whatever is found, and keep as much time as they took for INT8."""
    if contest.target.build_seconds is None:
        return
    that_build(contest, list(contest.candidates))
    if contest.ends_at is not None:
        left_s = max(contest.ends_at - time.monotonic(), 0.0)
        contest.reserved_s = min(left_s / 2, max(contest.target.build_seconds, default=0.0))


def by_promise(contest: Contest) -> list[str]:
    """Whom to time first: float and FP16; then of INT8 engines those of the fewest operators, the most accurate first.

    An operator more between a layer and its rounding is a kernel more in the plan. Engines alike in their operators
    share one time, so that the first of each kind is built alone.
    """
    if contest.target.build_seconds is None:
        return list(contest.candidates)

    def promise(name: str) -> tuple[bool, int, float]:
        candidate = contest.candidates[name]
        return candidate.recipe is not None, len(candidate.model.graph.node), contest.trials[name].apart

    first, *others = contest.candidates
    return [first, *sorted((name for name in others if not contest.failed(name)), key=promise)]


def keep_what_does_not_pay(contest: Contest) -> None:
    """Try the fastest INT8 engine with those layers in float that its plan runs no faster than the float plan does."""
    timed = [c for c in contest.candidates.values() if c.recipe is not None and c.name in contest.latencies]
    if not timed or contest.is_out_of_time:
        return
    whole = min(timed, key=lambda candidate: (contest.cost(candidate.name), contest.trials[candidate.name].apart))
    before, after = layer_times(contest, fastest_float(contest)), layer_times(contest, whole)
    kept = {
        name: f"takes {after[name]:.1f} µs in 8 bits and {before[name]:.1f} in float"
        for name in sorted(whole.integer_nodes & before.keys() & after.keys())
        if after[name] >= before[name]
    }
    if whole.recipe is None or not kept or len(kept) == whole.integer_layers:
        return
    with contest.job.terminal.progress(f"quantizing: {whole.recipe.words}, where it pays", None):
        candidate = replace(contest.quantizer.candidate(whole.recipe, kept), name=f"{whole.name}, where it pays")
    try_out(contest, [candidate])


def fastest_float(contest: Contest) -> Candidate:
    """Of the engines without integers the fastest, as far as they were timed."""
    timed = [c for c in contest.candidates.values() if c.recipe is None and c.name in contest.latencies]
    return min(timed, key=lambda candidate: contest.cost(candidate.name), default=contest.reference)


def estimate(contest: Contest) -> None:
    """What engines take that were not built: a whole INT8 engine's time, each layer in float with its time in float."""
    whole = {c.recipe: c for c in contest.candidates.values() if c.name in contest.latencies and c.recipe is not None}
    whole = {recipe: candidate for recipe, candidate in whole.items() if candidate.name == recipe.name}
    if not whole:
        return
    before = layer_times(contest, fastest_float(contest))
    frame_us = sum(layer_times(contest, contest.reference).values()) or 1.0
    for name, candidate in contest.candidates.items():
        full = whole.get(candidate.recipe) if candidate.recipe is not None else None
        if full is None or name in contest.latencies:
            continue
        after = layer_times(contest, full)
        returned = full.integer_nodes - candidate.integer_nodes
        added_us = sum(before.get(node, 0.0) - after.get(node, 0.0) for node in returned)
        contest.estimates[name] = contest.cost(full.name) + added_us / frame_us


def layer_times(contest: Contest, candidate: Candidate) -> dict[str, float]:
    """Weighted layer → microseconds a run in a candidate, what was fused with it included."""
    job, candidate = contest.job, timed_like(contest, candidate)
    key = ("layer times", sha256_of_bytes(candidate.content), job.threads, job.machine.cpu.model)

    def measured() -> dict[str, float]:
        return times_of_nodes(contest.target.node_times(candidate.content, one_feed(job)), contest.quantizer.graph)

    found = job.store.document(key, lambda: dict(measured()))
    return {str(name): float(str(value)) for name, value in dict(found).items()}  # type: ignore[arg-type]


def timed_like(contest: Contest, candidate: Candidate) -> Candidate:
    """An engine that was built and takes the same time; itself where there is none."""
    target = contest.target
    if target.build_seconds is None or not target.preparing_s(candidate.content):
        return candidate
    name = target.timed_as(candidate.content)
    others = (c for c in contest.candidates.values() if not target.preparing_s(c.content))
    return next((other for other in others if target.timed_as(other.content) == name), candidate)
