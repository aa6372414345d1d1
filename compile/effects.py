"""What each layer's 8 bits do to the results: the whole network in float but for that layer, on a few frames."""

from __future__ import annotations

from collections.abc import Sequence

from compile.backends.onnxrt import build
from compile.contest import Contest
from compile.grading import Examination
from compile.recipes import Recipe
from compile.sensitivity import LayerLoss
from perception.errors import EngineError
from perception.files import sha256_of_bytes

EFFECT_FRAMES = 8


def task_effects(contest: Contest, recipe: Recipe, layers: Sequence[LayerLoss]) -> dict[str, float]:
    """Layer → drift of the results from float with that layer alone in 8 bits; ends early where time does.

    One layer's noise at a time adds up to the whole network's as long as it is small, which is where a choice is; and
    a layer that alone ruins the network is found whatever the others do.
    """
    if contest.trial is None:
        raise ValueError("contest: has no frames to try candidates on")
    frames = contest.trial.telling(EFFECT_FRAMES)
    with contest.target.simulated(contest.reference.content) as engine:
        few = Examination.unlabelled(contest.job.spec, frames, engine)
    effects: dict[str, float] = {}
    with contest.job.terminal.progress("putting each layer alone in 8 bits", len(layers)) as step:
        for layer in layers:
            if contest.is_out_of_time:
                break
            effects[layer.node] = _effect(contest, recipe, layer, few)
            step()
    return effects


def _effect(contest: Contest, recipe: Recipe, layer: LayerLoss, few: Examination) -> float:
    quantizer = contest.quantizer
    key = (
        "effect",
        sha256_of_bytes(contest.reference.content),
        *quantizer.identity,
        recipe.range_rule,
        recipe.scope,
        recipe.rounding,
        recipe.equalizes,
        layer.node,
        type(contest.target).__name__,
        *few.identity,
        contest.job.threads,
    )
    return float(str(contest.job.store.document(key, lambda: _measured(contest, recipe, layer, few))))


def _measured(contest: Contest, recipe: Recipe, layer: LayerLoss, few: Examination) -> float:
    alone = build(contest.quantizer.alone(recipe, layer))
    try:
        with contest.target.simulated(alone) as engine:
            return few.grade(few.results(contest.job.spec, engine)).apart
    except EngineError:
        return 1.0
