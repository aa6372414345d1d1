"""Every slice's own figure, so that no average hides one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from safety_gates.evidence import KeptEvidence
from safety_gates.gates.slices import slice_parts
from safety_gates.report.svg import FAINT, FIRST, INK, LIMIT, Plot, drawing, plot_of
from safety_gates.worst import Part

LEDE = "The same objects by class, height, distance, truncation, occlusion, light and weather; the worst slice decides."


def draw(evidence: KeptEvidence, limits: Mapping[str, float]) -> tuple[Plot, ...]:
    """Recall of each slice, and what it lost against the float model where there is one."""
    recall, loss = (slice_parts(evidence, quantity) for quantity in ("worst_recall", "worst_loss"))
    plots = [_bars(recall, "Recall by slice", "share of the objects found", limits.get("worst_recall"))]
    if loss:
        plots.append(_bars(loss, "Lost by slice", "share of the objects lost against float", limits.get("worst_loss")))
    return tuple(plots)


def _bars(parts: Sequence[Part], title: str, label: str, limit: float | None) -> Plot:
    with drawing(title, height_in=max(1.8, 0.3 * len(parts) + 1.0)) as (axes, canvas):
        for row, part in enumerate(parts):
            axes.barh(row, part.got, height=0.62, color=FIRST if part.enough else FAINT, alpha=0.75)
            if part.enough and math.isfinite(part.interval.low):
                axes.plot([part.interval.low, part.interval.high], [row, row], color=INK, linewidth=1.4)
        axes.set_yticks(range(len(parts)), [f"{part.name} ({part.samples})" for part in parts])
        axes.grid(axis="y", visible=False)
        axes.set(ylim=(len(parts) - 0.4, -0.6), xlabel=label)
        axes.axvline(0, color=INK, linewidth=0.8)
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linewidth=2)
        return plot_of(
            canvas,
            title=title,
            caption="Thin lines are intervals that hold for all slices at once, numbers in brackets the objects. "
            "Pale bars rest on too few objects to judge. The upright line is the limit.",
        )
