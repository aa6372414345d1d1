"""Evidence over time, one plot a criterion, drawn from the signed log alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from safety_gates.report.svg import FAINT, FIRST, INK, LIMIT, SECOND, Plot, drawing, plot_of
from safety_gates.rollout.decision_log import Entry
from safety_gates.rollout.quantities import QUANTITIES

DAY_NS = 86400 * 10**9
LEAST_P = 1e-15
_SPACE = "\u202f"
LABEL_APART = 0.1  # of the axis: names of stages any closer would lie on each other


@dataclass(frozen=True, slots=True)
class Point:
    """One finding at one look, in days since the rollout began."""

    day: float
    finding: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """What all plots of a page share: the rollout's days so far, and when stages changed to which."""

    days: float
    borders: Sequence[tuple[float, str]]


def evidence_plots(entries: Sequence[Entry]) -> tuple[Plot, ...]:
    """A plot of every criterion that was looked at."""
    series = _series(entries)
    span = Span((entries[-1].at_ns - entries[0].at_ns) / DAY_NS, _borders(entries))
    return tuple(
        _DRAW[QUANTITIES[quantity].kind](quantity, points, span)
        for quantity, points in series.items()
        if quantity in QUANTITIES
    )


def exposure_plot(entries: Sequence[Entry], until_ns: int) -> Plot:
    """Share of the fleet that the plan gives the candidate, over time."""
    began = entries[0].at_ns
    days = [(entry.at_ns - began) / DAY_NS for entry in entries] + [(until_ns - began) / DAY_NS]
    shares = [_share(entry) for entry in entries]
    with drawing("exposure", height_in=2.4) as (axes, canvas):
        axes.step(days, [*shares, shares[-1]], where="post", color=FIRST)
        axes.fill_between(days, [*shares, shares[-1]], step="post", color=FIRST, alpha=0.2, linewidth=0)
        _mark(axes, _borders(entries))
        labelled = -math.inf
        for day, name in [(0.0, entries[0].plan.stage), *_borders(entries)]:
            if day - labelled >= LABEL_APART * days[-1]:
                axes.annotate(name, (day, 1), xycoords=("data", "axes fraction"), va="bottom", fontsize=9)
                labelled = day
        _days(axes, days[-1])
        axes.set(ylim=(0, max(5.0, 1.15 * max(shares))), ylabel="% of the fleet")
        return plot_of(
            canvas,
            title="Exposure",
            caption="Share of the fleet that the signed plan gives the candidate. Upright lines are changes of stage.",
        )


def _rate(quantity: str, points: Sequence[Point], span: Span) -> Plot:
    with drawing(f"evidence-{quantity}") as (axes, canvas):
        shown = [point for point in points if point.finding["got"] is not None]
        days = [point.day for point in shown]
        low, high = (
            [_within(point.finding[end], otherwise) for point in shown]
            for end, otherwise in (("low", 1 / 32), ("high", 32.0))
        )
        axes.vlines(days, low, high, color=FIRST, alpha=0.45, linewidth=5)
        axes.plot(days, [point.finding["got"] for point in shown], "o", color=FIRST, markersize=4)
        _limits(axes, points)
        axes.axhline(1.0, color=INK, linewidth=0.8)
        axes.set(
            yscale="log",
            ylim=(0.25, max([8.0, *(1.3 * point.finding["got"] for point in shown)])),
            ylabel="ratio to control",
        )
        axes.yaxis.set_major_locator(LogLocator(2.0))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        _over_time(axes, span)
        return plot_of(
            canvas,
            title=quantity.replace("_", " "),
            caption=f"{QUANTITIES[quantity].says.capitalize()}. Bars are what the ratio may be at that look. Wholly "
            "below the solid line it may advance; wholly above the dashed one it rolls back.",
        )


def _event(quantity: str, points: Sequence[Point], span: Span) -> Plot:
    with drawing(f"evidence-{quantity}") as (axes, canvas):
        days = [point.day for point in points]
        axes.plot(days, [max(point.finding["p_harm"], LEAST_P) for point in points], "o-", color=FIRST, markersize=4)
        axes.plot(days, [point.finding["alpha"] for point in points], "--", color=LIMIT, drawstyle="steps-mid")
        axes.set(yscale="log", ylim=(_floor(points), 2), ylabel="p without harm")
        _over_time(axes, span)
        last = points[-1].finding
        return plot_of(
            canvas,
            title=quantity.replace("_", " "),
            caption=f"{QUANTITIES[quantity].says.capitalize()}: {_percent(last['got'])} of the candidate's, "
            f"{_percent(last['control'])} of control's at the last look. Drawn is how likely such a draw is if the "
            "candidate does nothing; below the dashed line it rolls back.",
        )


def _level(quantity: str, points: Sequence[Point], span: Span) -> Plot:
    with drawing(f"evidence-{quantity}") as (axes, canvas):
        shown = [point for point in points if point.finding["got"] is not None]
        axes.plot([p.day for p in shown], [100 * p.finding["got"] for p in shown], "o-", color=FIRST, markersize=4)
        most = max([100 * point.finding["got"] for point in shown] + [100 * point.finding["limit"] for point in points])
        axes.hlines(100 * points[-1].finding["limit"], 0, max(p.day for p in points), color=LIMIT, linewidth=2)
        axes.set(ylim=(0, 1.3 * most), ylabel="% in the median vehicle")
        _over_time(axes, span)
        return plot_of(
            canvas,
            title=quantity.replace("_", " "),
            caption=f"{QUANTITIES[quantity].says.capitalize()}. Shown to be below the line it may advance, shown to be "
            "above it rolls back.",
        )


def _limits(axes: Axes, points: Sequence[Point]) -> None:
    """Limits as they stood at each look."""
    days = [points[0].day - 0.5, *(point.day for point in points), points[-1].day + 0.5]
    seen = [points[0], *points, points[-1]]
    limits = [_within(point.finding["limit"], 32.0) for point in seen]
    axes.plot(days, limits, color=LIMIT, linewidth=2, drawstyle="steps-mid")
    harms = [point.finding["harm"] for point in seen]
    axes.plot(days, harms, "--", color=SECOND, linewidth=1.4, drawstyle="steps-mid")


def _over_time(axes: Axes, span: Span) -> None:
    """The same days on every plot, and upright lines where a stage ended."""
    _mark(axes, span.borders)
    _days(axes, 1.04 * span.days)


def _mark(axes: Axes, borders: Sequence[tuple[float, str]]) -> None:
    for day, _ in borders:
        axes.axvline(day, color=FAINT, linewidth=1.2, zorder=0)


def _days(axes: Axes, until: float) -> None:
    axes.set(xlim=(0, max(until, 0.1)), xlabel="days")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=until > 2))


def _series(entries: Sequence[Entry]) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for entry in entries:
        for finding in (entry.judgement or {}).get("findings") or ():  # type: ignore[union-attr]
            point = Point((entry.at_ns - entries[0].at_ns) / DAY_NS, finding)  # type: ignore[arg-type]
            series.setdefault(str(point.finding["quantity"]), []).append(point)
    return series


def _borders(entries: Sequence[Entry]) -> list[tuple[float, str]]:
    pairs = pairwise(entries)
    return [
        ((after.at_ns - entries[0].at_ns) / DAY_NS, "" if after.plan.state == "rolled_back" else after.plan.stage)
        for before, after in pairs
        if (after.plan.stage, after.plan.state) != (before.plan.stage, before.plan.state)
    ]


def _share(entry: Entry) -> float:
    return 0.0 if entry.plan.state == "rolled_back" else 100 * entry.plan.current.share * (1 - entry.plan.holdout)


def _floor(points: Sequence[Point]) -> float:
    """Where the axis of a p ends: below every p and every level."""
    least = min(min(point.finding["p_harm"], point.finding["alpha"]) for point in points)
    return float(max(LEAST_P, 0.1 * least))


def _within(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not math.isfinite(value) or value == 0 else float(value)


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.2g}{_SPACE}%"


_DRAW = {"rate": _rate, "event": _event, "level": _level}
