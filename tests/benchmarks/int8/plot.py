"""Time against harm, a pair of panels a model: a contender that lies further left and lower is better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from perception.files import staged_file
from tests.benchmarks.int8.rows import CaseFigures
from tests.benchmarks.int8.table import NAMES

THREADS = 2
COLOURS = {"ours": "#c2410c", "ONNX Runtime": "#2563eb", "NNCF": "#15803d"}
OTHERS = "#6b7280"
MARKERS = "*osD^vPXhp<>"
FLOOR = 1e-2
"""Harm in per cent below which points lie on the axis: a logarithm has no zero."""


def draw(figures: list[CaseFigures], path: Path) -> None:
    """Write the plot, as SVG or PNG by its suffix."""
    pyplot.rcParams.update({"svg.hashsalt": "int8", "font.size": 8})
    height = 3.0 * len(figures) + 1.2
    canvas, panels = pyplot.subplots(len(figures), 2, figsize=(11, height), squeeze=False)
    legend: dict[str, Any] = {}
    for (left, right), each in zip(panels, figures, strict=True):
        lost = "IoU lost, points" if each.case.name.startswith("road") else "AP50 lost, % of float's"
        legend |= _panel(left, each, "drop", lost)
        legend |= _panel(right, each, "kept", "reported by float and lost, %")
    names = [name for name in NAMES if name in legend]
    canvas.tight_layout(rect=(0, 0, 1, 1 - 1.0 / height))
    canvas.legend([legend[name] for name in names], names, loc="upper center", ncols=4, fontsize=7)
    with staged_file(path) as staged:
        canvas.savefig(staged, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(canvas)


def harm_of(grades: dict[str, Any], key: str) -> float | None:
    """What is plotted upwards, never below `FLOOR`; None where it was not measured.

    Args:
        grades: as `grades.grade` gives them.
        key: `drop`, or `kept` for what is not kept, in per cent.
    """
    if grades[key] is None:
        return None
    return max(grades["drop"] if key == "drop" else 100 * (1 - grades["kept"]), FLOOR)


def _panel(axes: Any, figures: CaseFigures, key: str, what: str) -> dict[str, Any]:
    """Fill one panel; returns what its legend needs, by name."""
    drawn = {}
    for name in figures.builds:
        grades, latency = figures.graded(name), figures.latency(name, THREADS)
        if grades is None or latency is None or (harm := harm_of(grades, key)) is None:
            continue
        mine = name.startswith("ours")
        colour = next((colour for family, colour in COLOURS.items() if name.startswith(family)), OTHERS)
        style = {"color": colour, "marker": MARKERS[NAMES.index(name) % len(MARKERS)], "s": 110 if mine else 34}
        drawn[name] = axes.scatter(latency["ratio"], harm, alpha=0.85, zorder=4 if mine else 3, **style)
    axes.axvline(1.0, color="#9ca3af", linewidth=0.8)
    axes.set(yscale="log", ylim=(FLOOR * 0.7, 150), xlabel=f"time over float's, {THREADS} threads", ylabel=what)
    axes.set_title(figures.case.name, fontsize=8)
    axes.grid(alpha=0.25)
    return drawn
