"""How old the results in use are, and what their age costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from safety_gates.evidence import KeptEvidence
from safety_gates.gates.streaming import StreamingGate
from safety_gates.report.svg import FIRST, INK, LIMIT, SECOND, Plot, drawing, plot_of
from safety_gates.verdict import Measured

LEDE = "Accuracy of the newest finished result at each frame's instant, beside that of an engine that is never late."


def draw(evidence: KeptEvidence, limits: Mapping[str, float]) -> tuple[Plot, ...]:
    """Accuracy of a prompt engine and of this one side by side, and the ages of the results in use."""
    figure = "ap50_95" if evidence.evidence.values["task"] == "detection" else "miou"
    measured = StreamingGate().read(evidence, [figure, f"{figure}_loss"])
    if measured[figure].got is None:
        return (_ages(evidence),)
    return (_sides(measured[figure], measured[f"{figure}_loss"], limits.get(f"{figure}_loss")), _ages(evidence))


def _sides(streamed: Measured, lost: Measured, limit: float | None) -> Plot:
    now, loss = streamed.got or 0.0, lost.got or 0.0
    with drawing("streaming-sides", height_in=1.9) as (axes, canvas):
        axes.barh([0, 1], [now + loss, now], height=0.55, color=[SECOND, FIRST], alpha=0.75)
        for row, got in enumerate((now + loss, now)):
            axes.text(got + 0.01, row, f"{got:.3f}", va="center", color=INK)
        if limit is not None:
            axes.plot([now + loss - limit] * 2, [0.6, 1.4], color=LIMIT, linewidth=2)
        axes.set_yticks([0, 1], ["prompt", "streaming"])
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
