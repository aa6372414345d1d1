"""One chapter of plots for each gate that has something to show, drawn from its evidence alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from compile.accuracy import DetectionMatches
from compile.average_precision import IOUS, RECALLS, GroupMatches
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.accuracy import class_figures, detection_matches
from safety_gates.report import draw_regression, draw_robustness, draw_slices, draw_streaming, draw_temporal
from safety_gates.report.machine_plots import (
    calibration_plots,
    determinism_plots,
    latency_plots,
    provenance_plots,
    resources_plots,
    sensor_faults_plots,
)
from safety_gates.report.svg import FIRST, INK, LIMIT, SERIES, Limits, Plot, drawing, plot_of
from safety_gates.verdict import Measured, Verdict

MOST_CURVES = 3
MOST_BARS = 12
LINES = ("-", "--", ":")


@dataclass(frozen=True, slots=True)
class Chapter:
    """The plots of one gate, and the digest of the evidence they are drawn from."""

    name: str
    lede: str
    evidence: str
    plots: tuple[Plot, ...]


def chapters_of(exhibits: Mapping[str, object], verdicts: Sequence[Verdict]) -> tuple[Chapter, ...]:
    """The chapters of every gate that has evidence to draw, in the gates' order."""
    found = []
    for gate, (lede, draw) in _CHAPTERS.items():
        exhibit = exhibits.get(gate)
        if isinstance(exhibit, KeptEvidence):
            limits = {
                each.requirement.quantity: each.requirement.limit for each in verdicts if each.requirement.gate == gate
            }
            if plots := draw(exhibit, limits):
                found.append(Chapter(gate, lede, exhibit.sha256, plots))
    return tuple(found)


def _accuracy(evidence: KeptEvidence, limits: Limits) -> tuple[Plot, ...]:
    if evidence.evidence.values["task"] == "segmentation":
        return (_class_bars(evidence, "IoU", limits.get("miou")),)
    return (_precision_recall(detection_matches(evidence)), _class_bars(evidence, "AP50", limits.get("ap50")))


def _precision_recall(matches: DetectionMatches) -> Plot:
    """Curves of the classes with most objects: more than a few cannot be told apart."""
    busiest = sorted(matches.groups, key=lambda name: -int(matches.groups[name].labelled.sum()))[:MOST_CURVES]
    with drawing("precision-recall") as (axes, canvas):
        for style, name in enumerate(busiest):
            recall, precision = _curve(matches.groups[name])
            axes.plot(recall, precision, LINES[style], color=SERIES[style], label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of the objects found", ylabel="precision")
        axes.legend(loc="lower left")
        return plot_of(
            canvas,
            title="Precision against recall",
            caption=f"At overlap {IOUS[0]:g}, for the classes with most objects; average precision is the area below. "
            "Up and to the right is better.",
        )


def _curve(group: GroupMatches) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """101 recalls and the best precision from each on, at the lowest overlap: what average precision averages."""
    found, given = np.cumsum(group.right[0]), np.cumsum(group.right[0] | group.wrong[0])
    best = np.maximum.accumulate((found / np.maximum(given, 1))[::-1])[::-1]
    reached = np.searchsorted(found / max(1, int(group.labelled.sum())), RECALLS)
    return RECALLS, np.append(best, 0.0)[reached]


def _class_bars(evidence: KeptEvidence, quantity: str, limit: float | None) -> Plot:
    shown = sorted(class_figures(evidence), key=lambda each: -each.measured.samples)[:MOST_BARS]
    with drawing("class-bars", height_in=max(1.6, 0.42 * len(shown) + 0.9)) as (axes, canvas):
        for row, each in enumerate(shown):
            _bar(axes, row, each.measured)
        axes.set_yticks(range(len(shown)), [f"{each.name} ({each.measured.samples})" for each in shown])
        axes.grid(axis="y", visible=False)
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), xlabel=quantity)
        if limit is not None:
            axes.axvline(limit, color=LIMIT, linewidth=2)
        return plot_of(
            canvas,
            title=f"{quantity} by class",
            caption="Thin lines are the intervals, numbers in brackets the samples of the class. "
            "The upright line is the limit on the mean of all classes.",
        )


def _bar(axes: Axes, row: int, measured: Measured) -> None:
    axes.barh(row, measured.got or 0.0, height=0.55, color=FIRST, alpha=0.75)
    interval = measured.interval
    if interval is not None and math.isfinite(interval.low) and math.isfinite(interval.high):
        axes.plot([interval.low, interval.high], [row, row], color=INK, linewidth=1.4)


def _parity(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    arrays = evidence.arrays
    if evidence.evidence.values["task"] == "segmentation":
        share = 1 - np.asarray(arrays["equal"], np.float64) / np.asarray(arrays["pixels"], np.float64)
        return (_over_frames(share * 100, "pixels that differ, %", "Difference frame by frame"),)
    differing = np.asarray(arrays["missed"]) + np.asarray(arrays["ghosts"])
    return (
        _over_frames(differing, "objects that differ", "Difference frame by frame"),
        _score_differences(np.asarray(arrays["score_difference"], np.float64)),
    )


def _over_frames(values: NDArray[np.generic], label: str, title: str) -> Plot:
    with drawing(f"parity-{label}") as (axes, canvas):
        axes.fill_between(np.arange(len(values)), values, step="mid", color=FIRST, alpha=0.75, linewidth=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=np.issubdtype(values.dtype, np.integer), min_n_ticks=1))
        most = max(1.0, 1.05 * float(np.max(values, initial=0)))
        axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, most), xlabel="frame", ylabel=label)
        return plot_of(
            canvas, title=title, caption="Flat is better; a hill is a scene that the two models see differently."
        )


def _score_differences(differences: NDArray[np.float64]) -> Plot:
    reach = max(0.01, float(np.abs(differences).max(initial=0.0)))
    with drawing("parity-scores") as (axes, canvas):
        axes.hist(differences, bins=41, range=(-reach, reach), color=FIRST, alpha=0.75)
        axes.axvline(0, color=INK, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlim=(-reach, reach), xlabel="score of the engine − score of the reference", ylabel="objects")
        return plot_of(
            canvas,
            title="Scores of the objects both find",
            caption="Narrow and centred on 0 is better; off centre, the engine is more or less sure of everything.",
        )


_CHAPTERS: dict[str, tuple[str, Callable[[KeptEvidence, Limits], tuple[Plot, ...]]]] = {
    "accuracy": ("What the engine finds, against the labels of the recording.", _accuracy),
    "regression": (draw_regression.LEDE, draw_regression.draw),
    "slices": (draw_slices.LEDE, draw_slices.draw),
    "robustness": (draw_robustness.LEDE, draw_robustness.draw),
    "parity": ("What the engine says, against the float model on the same frames.", _parity),
    "streaming": (draw_streaming.LEDE, draw_streaming.draw),
    "temporal": (draw_temporal.LEDE, draw_temporal.draw),
    "sensor_faults": ("What happens when a camera breaks, and when it works again.", sensor_faults_plots),
    "latency": ("How long a frame takes at the camera's rate, from capture to usable result.", latency_plots),
    "determinism": ("Whether the same frames give the same results, bit for bit.", determinism_plots),
    "calibration": ("What calibrated the engine, against the frames that judge it.", calibration_plots),
    "resources": ("A process with nothing but this package, run for a while.", resources_plots),
    "provenance": ("What the runtime is made of.", provenance_plots),
}
