"""What the package loses against what it replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safety_gates.evidence import KeptEvidence
from safety_gates.gates.regression import FIGURES, RIVALS, RegressionGate
from safety_gates.report.svg import FIRST, INK, LIMIT, Plot, drawing, plot_of
from safety_gates.verdict import Measured

LEDE = "What the engine loses against the float model and the last release, each on the same frames."


def draw(evidence: KeptEvidence, limits: Mapping[str, float]) -> tuple[Plot, ...]:
    """One line for each comparison that is judged: the loss, its interval, and the limit on it."""
    task = evidence.evidence.values["task"]
    names = [f"{name}_loss_to_{rival}" for name, figure in FIGURES.items() if figure.task == task for rival in RIVALS]
    names = [name for name in names if name in limits]
    read = RegressionGate().read(evidence, names)
    measured = {name: each for name, each in read.items() if isinstance(each, Measured)}
    shown = [name for name, each in measured.items() if each.got is not None and each.samples]
    if not shown:
        return ()
    with drawing("regression", height_in=1.3 + 0.45 * len(shown)) as (axes, canvas):
        for row, name in enumerate(shown):
            got, interval = measured[name].got, measured[name].interval
            axes.plot([got or 0.0], [row], "o", color=FIRST)
            if interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high):
                axes.plot([interval.low, interval.high], [row, row], color=INK, linewidth=1.4)
        axes.plot([limits[name]] * 2, [row - 0.35, row + 0.35], color=LIMIT, linewidth=2)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(shown)), [_words(name) for name in shown])
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="loss; left of 0 the engine is the better one")
        return (
            plot_of(
                canvas,
                title="Lost against what it replaces",
                caption="Dots are the losses, thin lines their paired intervals, thick strokes the limits. "
                "A claim passes when its whole line lies left of the limit.",
            ),
        )


def _words(name: str) -> str:
    figure, rival = name.split("_loss_to_")
    return f"{FIGURES[figure].words} to {RIVALS[rival]}"
