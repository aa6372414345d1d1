"""How old the results in use are, and what their age costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safety_gates.evidence import KeptEvidence
from safety_gates.gates.streaming import PROMPT, STREAMED, sides_of
from safety_gates.report.svg import FIRST, INK, LIMIT, SECOND, Plot, drawing, plot_of

LEDE = "Accuracy of the newest finished result at each frame's instant, beside that of an engine that is never late."


def draw(evidence: KeptEvidence, limits: Mapping[str, float]) -> tuple[Plot, ...]:
    """Accuracy of a prompt engine and of this one side by side, and the ages of the results in use."""
    figure = "ap50_95" if evidence.evidence.values["task"] == "detection" else "miou"
    if not evidence.evidence.values["timed"]:
        return (_ages(evidence),)
    got = {side: each.got for side, each in sides_of(evidence, figure).items()}
    return (_sides(got[PROMPT], got[STREAMED], limits.get(f"{figure}_loss")), _ages(evidence))


def _sides(prompt: float, streamed: float, limit: float | None) -> Plot:
    with drawing("streaming-sides", height_in=1.9) as (axes, canvas):
        axes.barh([0, 1], [prompt, streamed], height=0.55, color=[SECOND, FIRST], alpha=0.75)
        for row, got in enumerate((prompt, streamed)):
            axes.text(got + 0.01, row, f"{got:.3f}", va="center", color=INK)
        if limit is not None:
            axes.plot([prompt - limit] * 2, [0.6, 1.4], color=LIMIT, linewidth=2)
        axes.set_yticks([0, 1], [PROMPT, STREAMED])
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 1.05), ylim=(1.6, -0.6), xlabel="accuracy")
        return plot_of(
            canvas,
            title="What lateness costs",
            caption="Prompt: done before the next frame. Upright stroke: the least that the limit on the loss leaves.",
        )


def _ages(evidence: KeptEvidence) -> Plot:
    ages_ms = np.asarray(evidence.arrays["age_ns"], np.float64) / 1e6
    with drawing("streaming-ages", height_in=2.2) as (axes, canvas):
        axes.hist(ages_ms, bins=min(40, max(5, len(np.unique(ages_ms.round())))), color=FIRST, alpha=0.75)
        axes.set(xlim=(0, None), xlabel="ms between a frame and the frame whose result is in use", ylabel="frames")
        return plot_of(
            canvas,
            title="Age of the result in use",
            caption="One frame's time is what a fast engine costs; further right, frames were skipped.",
        )
