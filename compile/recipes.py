"""Ways to quantize. A new one is one more line in the table."""

from __future__ import annotations

from dataclasses import dataclass

from compile.reconstruction import Rounding
from compile.rules import Scope

FITTED = "fitted"
FITTED_WORDS = "ranges fitted to the layers that read them"
EQUALIZED_WORDS = f"{FITTED_WORDS}, channels equalized"
ROUNDED_WORDS = "each layer rounded and corrected as loses least"
CHOSEN_WORDS = f"{FITTED_WORDS}, {ROUNDED_WORDS}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantize a whole network.

    Attributes:
        name: of the candidate it makes.
        range_rule: name in `compile.ranges.RANGE_RULES`; `FITTED` for the rule that costs each tensor's readers least.
        scope: how far 8 bits reach.
        words: for people.
        equalizes: with operators too, where fitted ranges are not enough and the engine has a way to; channels that
            can be spread without any are spread by all that fit (`compile.spreading`).
        rounding: how weights are rounded and biases corrected, layer by layer; None leaves them as they are.
    """

    name: str
    range_rule: str
    scope: Scope
    words: str
    rounding: Rounding | None = None
    equalizes: bool = True


RECIPES: dict[str, tuple[Recipe, ...]] = {
    # The first is what everybody tries first; it is always measured, so that its price is known. No operator equalizes
    # channels here: ONNX Runtime would make a pass over memory of each.
    "onnxrt": (
        Recipe("int8-minmax", "minmax", "weighted", "MinMax ranges, convolutions and matrix products"),
        Recipe("int8-percentile", "percentile_99.99", "weighted", "99.99 % ranges, convolutions and matrix products"),
        Recipe("int8-minmax-chains", "minmax", "chains", "MinMax ranges, whole chains of operators"),
        Recipe("int8-percentile-chains", "percentile_99.99", "chains", "99.99 % ranges, whole chains of operators"),
        Recipe("int8-corrected", FITTED, "weighted", f"{FITTED_WORDS}, biases corrected", "nearest"),
        Recipe("int8-corrected-chains", FITTED, "chains", f"{FITTED_WORDS}, biases corrected, whole chains", "nearest"),
        Recipe("int8-chosen-chains", FITTED, "chains", f"{CHOSEN_WORDS}, whole chains", "chosen"),
    ),
    "tensorrt": (
        Recipe("int8-minmax", "minmax", "weighted", "MinMax ranges"),
        # Equalizers that are operators cost TensorRT a kernel each: faster without, more accurate with them.
        Recipe("int8-plain", FITTED, "weighted", f"{FITTED_WORDS}, biases corrected", "nearest", equalizes=False),
        Recipe("int8-plain-chosen", FITTED, "weighted", CHOSEN_WORDS, "chosen", equalizes=False),
        Recipe("int8-fitted", FITTED, "weighted", EQUALIZED_WORDS),
        Recipe("int8-corrected", FITTED, "weighted", f"{EQUALIZED_WORDS}, biases corrected", "nearest"),
        Recipe("int8-chosen", FITTED, "weighted", f"{EQUALIZED_WORDS}, {ROUNDED_WORDS}", "chosen"),
    ),
}
