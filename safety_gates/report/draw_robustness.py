"""What each kind of spoilt picture costs, severity by severity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.patches import Rectangle

from safety_gates.corruptions import CORRUPTIONS, SEVERITIES
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.robustness import drops_of
from safety_gates.report.svg import FIRST, INK, Plot, drawing, plot_of

LEDE = "How much accuracy is left when the picture is spoilt: sensor, optics, compression and weather."


def draw(evidence: KeptEvidence, _: Mapping[str, float]) -> tuple[Plot, ...]:
    """A heat map: the darker a cell, the more is lost."""
    drops = drops_of(evidence)
    with drawing("robustness", height_in=3.6) as (axes, canvas):
        for row in range(len(CORRUPTIONS)):
            for column in range(len(SEVERITIES)):
                drop = drops[row, column]
                shade = 0.85 * float(np.nan_to_num(np.clip(drop, 0, 1)))
                axes.add_patch(Rectangle((column, row), 1, 1, facecolor=FIRST, alpha=shade, linewidth=0))
                words = "–" if np.isnan(drop) else f"{100 * drop:.0f} %"
                axes.text(column + 0.5, row + 0.5, words, ha="center", va="center", color=INK, fontsize=9)
        axes.set_xticks(np.arange(len(SEVERITIES)) + 0.5, [str(severity) for severity in SEVERITIES])
        axes.set_yticks(np.arange(len(CORRUPTIONS)) + 0.5, list(CORRUPTIONS))
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.set(xlim=(0, len(SEVERITIES)), ylim=(len(CORRUPTIONS), 0), xlabel="severity")
        return (
            plot_of(
                canvas,
                title="Lost on spoilt pictures",
                caption=f"Share of the figure lost against the same {evidence.evidence.samples} frames unspoilt. "
                "The darker a cell, the more is lost.",
            ),
        )
