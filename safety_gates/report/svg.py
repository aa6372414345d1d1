"""Plots as inline SVG that takes the page's colours and font, so that it follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

Limits: TypeAlias = Mapping[str, float]
"""Quantity → its limit, for the lines that plots draw."""

# Placeholders that no plot would choose, replaced by the page's colours once the plot is drawn.
INK, FAINT, FIRST, SECOND, THIRD, LIMIT = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
SERIES = (FIRST, SECOND, THIRD)
_CSS_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    LIMIT: "var(--limit)",
}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot.

    Attributes:
        title: what it shows.
        caption: how to read it.
        svg: the markup, safe to stand in a page.
    """

    title: str
    caption: str
    svg: str


@contextmanager
def drawing(name: str, *, width_in: float = 5.0, height_in: float = 3.0) -> Iterator[tuple[Axes, Canvas]]:
    """Axes in the page's style while the block runs.

    Args:
        name: keeps the identifiers inside the markup apart from those of other plots of the page.
        width_in: at 72 px an inch; a phone shows about 5 in without shrinking.
        height_in: likewise.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=(width_in, height_in), layout="constrained")
        canvas.patch.set_alpha(0)
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        yield axes, canvas


def plot_of(canvas: Canvas, *, title: str, caption: str) -> Plot:
    """The markup of a drawn canvas; call it inside `drawing`."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(title, caption, _inline(buffer.getvalue(), title))


def _inline(document: str, title: str) -> str:
    """From a file to a fragment: no prologue, no metadata, no repeated identifiers, the page's colours and font."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{escape(title)}">', svg, count=1
    )
    svg = re.sub(r"font: (\d+(?:\.\d+)?px)[^;\"]*", r"font: \1 var(--font)", svg)
    for placeholder, colour in _CSS_COLOURS.items():
        svg = svg.replace(placeholder, colour)
    return svg.strip()
