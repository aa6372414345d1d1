"""Where marks stand in the page's drawings, in units of the drawing: the template only draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compile.explain.report import CompileReport, SearchPoint, Spread

WIDTH, HEIGHT = 640.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 16.0, 44.0
LEAST_DRIFT = 1e-3
"""What drifts less, float itself included, is drawn at the foot of the plot."""
DRIFT_TICKS = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True, slots=True)
class Tick:
    """A line across the plot and what it stands for."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One engine.

    Attributes:
        kind: `float`, `naive`, `ships`, `front` or `tried`.
        label: written beside it; empty for those that only the title names.
        left: whether the label stands on its left.
        title: shown where the pointer rests.
    """

    x: float
    y: float
    kind: str
    label: str
    left: bool
    title: str


@dataclass(frozen=True, slots=True)
class Pareto:
    """Every engine that was tried: what it costs to the right, how far it drifts from float upwards."""

    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    front: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Frames of one bin: calibration upwards from the line, evaluation downwards."""

    x: float
    width: float
    above: float
    below: float
    title: str


@dataclass(frozen=True, slots=True)
class Bars:
    """How one quantity spreads over both sets of frames."""

    title: str
    bars: tuple[Bar, ...]
    least: str
    most: str


def pareto_of(report: CompileReport) -> Pareto | None:
    """None where nothing was tried."""
    if report.search is None or not report.search.points:
        return None
    points = [point for point in report.search.points if not point.failure]
    timed = report.search.objective == "latency"
    costs = [_cost(point, timed) for point in points]
    x_ticks = _steps(min((*costs, 1.0)), max((*costs, 1.0)))
    low, high = x_ticks[0], x_ticks[-1]

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    marks = [_mark(point, across(cost), report) for point, cost in zip(points, costs, strict=True)]
    front = sorted(
        (mark.x, mark.y) for mark, point in zip(marks, points, strict=True) if point.on_front and mark.kind != "float"
    )
    return Pareto(
        x_title="time over float's" if timed else "share of multiply-adds in float",
        x_ticks=tuple(Tick(across(value), f"{value:g}") for value in x_ticks),
        y_ticks=tuple(Tick(_up(drift), f"{drift:.1%}".replace(".0%", "%")) for drift in DRIFT_TICKS),
        marks=tuple(marks),
        front=" ".join(f"{x:.1f},{y:.1f}" for x, y in front),
    )


def bars_of(title: str, spread: Spread) -> Bars:
    """A histogram of both sets, each by its own share of frames."""
    most = max(*_shares(spread.calibration), *_shares(spread.evaluation), 1e-9)
    step = (WIDTH - LEFT - RIGHT) / len(spread.calibration)
    edges = zip(spread.edges, spread.edges[1:], strict=False)
    bars = tuple(
        Bar(
            LEFT + number * step,
            step - 2,
            70 * _shares(spread.calibration)[number] / most,
            70 * _shares(spread.evaluation)[number] / most,
            f"{low:.0f} to {high:.0f}: {spread.calibration[number]} calibrated, {spread.evaluation[number]} graded",
        )
        for number, (low, high) in enumerate(edges)
    )
    return Bars(title, bars, f"{spread.edges[0]:.0f}", f"{spread.edges[-1]:.0f}")


def _cost(point: SearchPoint, timed: bool) -> float:
    return point.time_ratio if timed and point.time_ratio is not None else point.float_macs_share


def _mark(point: SearchPoint, x: float, report: CompileReport) -> Mark:
    kinds = {report.decision.chosen: "ships", report.reference.name: "float"}
    if report.naive is not None:
        kinds.setdefault(report.naive.name, "naive")
    kind = kinds.get(point.name, "front" if point.on_front else "tried")
    words = {"ships": f"ships: {point.name}", "float": "float", "naive": "naive INT8"}.get(kind, "")
    title = f"{point.name}: agreement {point.agreement:.3f}, drift {point.drift:.3f}, {point.float_layers} layers float"
    return Mark(x, _up(point.drift), kind, words, x > WIDTH * 0.6, title)


def _up(drift: float) -> float:
    """Height of a drift, on a logarithmic scale."""
    share = math.log(max(drift, LEAST_DRIFT) / LEAST_DRIFT) / math.log(1 / LEAST_DRIFT)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(share, 1.0)


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, four to nine of them."""
    rough = max(high - low, 0.05) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 6) for number in range(first, max(last, first + 1) + 1)]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]
