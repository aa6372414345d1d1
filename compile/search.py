"""Which precision each layer gets: whole recipes first, then the layers that cost most are given back to float.

A layer is given back where it buys most: by what the network's results lose when that layer alone is in 8 bits, over
what its 8 bits save. Every step is measured on the search's frames and, where this is the machine, on the clock; what
lies on the front of drift against cost is graded on frames that chose nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from compile.contest import Contest, grade, open_exams, try_out
from compile.effects import task_effects
from compile.job import Job
from compile.plans import (
    build_first,
    by_promise,
    estimate,
    fastest_float,
    keep_what_does_not_pay,
    layer_times,
    timed_like,
)
from compile.quantizer import Quantizer, usable_recipes
from compile.race import time_them
from compile.recipes import Recipe
from compile.target import Target

HOPELESSLY_SLOW = 1.1
"""Times as long as float, at the near end of its interval: keeping layers float moves it towards float, not past it."""

MOST_FLOAT = 0.5
"""Share of multiply-adds in float beyond which giving back goes no further where nothing is timed."""

MOST_FINALISTS = 5
MOST_BUILT = 3
"""Finalists where each must be built for minutes."""

REFINEMENTS = 2
NEARLY_AS_GOOD = 1.5
"""A recipe whose drift is at most so many times the best one's is tried beside it when layers are given back."""

OUT_OF_TIME = "the time limit ended the search before every layer's turn"

LEAST_SAVED = 0.02
"""Share of the mean layer's saving that every layer is taken to save at least."""


def search(job: Job, quantizer: Quantizer, target: Target) -> Contest:
    """Measure float and, unless float was demanded, every INT8 engine that is worth it.

    Raises:
        LabelError, CalibrationError: float itself finds nothing on the frames to grade on.
        ModelError, EngineError: the network fails on a real frame.
    """
    contest = Contest(job, quantizer, target)
    limit_s = job.options.time_limit_s
    contest.ends_at = None if limit_s is None else time.monotonic() + limit_s
    reference = quantizer.float_candidate()
    contest.candidates[reference.name] = reference
    recipes = usable_recipes(quantizer, quantizer.rules.engine_kind) if _wants(job, "int8") else ()
    half = quantizer.rules.half and _wants(job, "fp16")
    if recipes or half or job.options.labels is not None:
        open_exams(contest, searching=bool(recipes or half))
    if half:
        try_out(contest, [quantizer.half_candidate()])
    build_first(contest)
    if recipes:
        _try_whole(contest, recipes)
    contest.reserved_s = 0.0
    time_them(contest, by_promise(contest))
    if contest.target.build_seconds is not None:
        keep_what_does_not_pay(contest)
    for scope in dict.fromkeys(recipe.scope for recipe in recipes):
        _give_back(contest, [recipe for recipe in recipes if recipe.scope == scope])
    if contest.target.build_seconds is None:
        time_them(contest, list(contest.candidates))
    else:
        estimate(contest)
    if recipes or half:
        finalists = contest.affordable(_finalists(contest, [recipe.name for recipe in recipes[:1]]))
        time_them(contest, finalists, again=True)
        grade(contest, finalists)
    return contest


def _wants(job: Job, precision: str) -> bool:
    return job.options.precision in ("auto", precision) and precision in job.profile.precisions


def _try_whole(contest: Contest, recipes: Sequence[Recipe]) -> None:
    """The whole network by each recipe; the first always, the others while there is time."""
    quantizer = contest.quantizer
    if not all(quantizer.is_kept(recipe) for recipe in recipes):
        with contest.job.terminal.progress("watching every tensor on the calibration frames", None) as step:
            quantizer.observe(recipes, step)
    for number, recipe in enumerate(recipes):
        if number and contest.is_out_of_time:
            contest.notes.append(f"the time limit left {len(recipes) - number} recipes untried")
            return
        with contest.job.terminal.progress(f"quantizing: {recipe.words}", None):
            candidate = quantizer.candidate(recipe)
        try_out(contest, [candidate])


def _give_back(contest: Contest, recipes: Sequence[Recipe]) -> None:
    """Give layers back to float, more and more of them, until the search's frames say it is enough; then fewer."""
    tried = sorted(
        (recipe for recipe in recipes if recipe.name in contest.trials and not contest.failed(recipe.name)),
        key=lambda recipe: contest.trials[recipe.name].apart,
    )
    if not tried or contest.passes(tried[0].name) or _is_hopelessly_slow(contest, tried[0].name):
        return
    if _is_told_to_stop(contest):
        return
    best = tried[0]
    within = NEARLY_AS_GOOD * contest.trials[best.name].apart
    team = [recipe for recipe in tried[:2] if contest.trials[recipe.name].apart <= within]
    order = _order_of_giving_back(contest, best)
    failed = 0
    for count in _rungs(contest, order):
        if _is_told_to_stop(contest):
            return
        if _try_kept(contest, team, order[:count]):
            _refine(contest, team, order, between=(failed, count))
            return
        failed = count


def _is_told_to_stop(contest: Contest) -> bool:
    """Whether time is out, which is noted once."""
    if contest.is_out_of_time and OUT_OF_TIME not in contest.notes:
        contest.notes.append(OUT_OF_TIME)
    return contest.is_out_of_time


def _refine(contest: Contest, team: Sequence[Recipe], order: Sequence[str], *, between: tuple[int, int]) -> None:
    """Fewer layers in float than a number that passes, more than one that does not."""
    failed, passed = between
    for _ in range(REFINEMENTS):
        middle = (failed + passed) // 2
        if middle == failed or contest.is_out_of_time:
            return
        if _try_kept(contest, team, order[:middle]):
            passed = middle
        else:
            failed = middle


def _try_kept(contest: Contest, recipes: Sequence[Recipe], layers: Sequence[str]) -> bool:
    """Try recipes with some layers in float; whether one passes."""
    kept = {name: _why_kept(contest, name) for name in layers}
    names = []
    for recipe in recipes:
        with contest.job.terminal.progress(f"quantizing: {recipe.words}, {len(kept)} layers in float", None):
            candidate = contest.quantizer.candidate(recipe, kept)
        try_out(contest, [candidate])
        names.append(candidate.name)
    return any(contest.passes(name) for name in names)


def _why_kept(contest: Contest, name: str) -> str:
    if name in contest.effects:
        return f"alone in 8 bits it moves the results by {contest.effects[name]:.2%}"
    lost = next((loss.noise_share for losses in contest.losses.values() for loss in losses if loss.node == name), None)
    return "kept with its neighbours" if lost is None else f"loses {lost:.1%} of its signal"


def _rungs(contest: Contest, order: Sequence[str]) -> Iterator[int]:
    """1, 2, 4, 8 … layers; where nothing is timed only as long as most of the network stays in 8 bits."""
    most = (1.0 if contest.target.is_timed else MOST_FLOAT) * sum(contest.macs.values())
    count = 1
    while count < len(order) and (count <= 2 or sum(contest.macs.get(name, 0) for name in order[:count]) <= most):
        yield count
        count *= 2


def _order_of_giving_back(contest: Contest, recipe: Recipe) -> list[str]:
    """The layers in 8 bits, those first whose return to float buys most accuracy for what it costs.

    Noise of independent layers adds up by its squares, so a layer's part in the drift is the square of its own.
    """
    with contest.job.terminal.progress(f"finding what each layer loses by {recipe.name}", None):
        losses = contest.losses[recipe.name] = contest.quantizer.losses(recipe)
    integer = [loss for loss in losses if loss.node in contest.candidates[recipe.name].integer_nodes]
    contest.effects |= task_effects(contest, recipe, integer)
    layers = [loss.node for loss in integer]
    saved = _saved(contest, recipe.name, layers)
    least = LEAST_SAVED * max(sum(saved.values()), 1e-9) / max(len(saved), 1)
    worth = {name: contest.effects.get(name, 0.0) ** 2 / max(saved[name], least) for name in layers}
    return sorted(layers, key=lambda name: -worth[name])


def _saved(contest: Contest, name: str, layers: Sequence[str]) -> Mapping[str, float]:
    """What each layer saves in 8 bits: microseconds on the target, else multiply-adds."""
    if not contest.target.is_timed:
        return {layer: float(contest.macs.get(layer, 0)) for layer in layers}
    candidate = timed_like(contest, contest.candidates[name])
    if not contest.can_build(candidate.name):
        return {layer: float(contest.macs.get(layer, 0)) for layer in layers}
    before, after = layer_times(contest, fastest_float(contest)), layer_times(contest, candidate)
    return {layer: before.get(layer, 0.0) - after.get(layer, 0.0) for layer in layers}


def _is_hopelessly_slow(contest: Contest, name: str) -> bool:
    timed = contest.latencies.get(name)
    most = HOPELESSLY_SLOW * contest.cost(fastest_float(contest).name)
    slow = contest.job.options.precision == "auto" and timed is not None and timed.ratio.low > most
    if slow:
        contest.notes.append(f"{name} is slower than float: giving layers back would not make it faster")
    return slow


def _finalists(contest: Contest, naive: Sequence[str]) -> list[str]:
    """Naive INT8, whose price is told unless it must be built for that; the cheapest that pass; and the most accurate.

    Where engines must be built, they are few, and float in half precision is one of them anyhow.
    """
    builds = contest.target.build_seconds is not None
    most = MOST_BUILT if builds else MOST_FINALISTS
    naive = [name for name in naive if not contest.target.preparing_s(contest.candidates[name].content)]
    passing = sorted(
        (name for name in contest.trials if name != contest.reference.name and contest.passes(name)), key=contest.cost
    )
    accurate = sorted(contest.front(), key=lambda name: contest.trials[name].apart)
    chosen = list(dict.fromkeys((*passing[: most - 1], *accurate, *passing)))[:most]
    return list(dict.fromkeys((*chosen, *naive) if builds else (*naive, *chosen)))
