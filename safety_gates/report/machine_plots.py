"""Plots of the gates that ask how the engine runs: in time, alike, within memory, and made of what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from safety_gates.evidence import KeptEvidence
from safety_gates.gates.calibration import uncovered_frames
from safety_gates.gates.determinism import changed_frames
from safety_gates.gates.latency import deadline_ms, stages_ms, states
from safety_gates.gates.provenance import sbom_in
from safety_gates.gates.resources import memory_mb
from safety_gates.report.svg import FAINT, FIRST, INK, LIMIT, SECOND, THIRD, Limits, Plot, drawing, plot_of
from safety_gates.statistics import percentile

MOST_LICENCES = 10
LONGEST_LICENCE = 28
BINS = 24


def latency_plots(evidence: KeptEvidence, limits: Limits) -> tuple[Plot, ...]:
    """The tail, and everything over the frames: latency, misses, temperature."""
    stages = stages_ms(evidence)
    budget_ms = limits.get("total_p99", deadline_ms(evidence))
    return (_tail(stages, budget_ms), _timeline(stages["total"], budget_ms, states(evidence)))


def determinism_plots(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    """Where over the recording results changed."""
    rows = (
        ("opened anew", changed_frames(evidence, "first", "reloaded"), FIRST),
        ("seen again", changed_frames(evidence, "reloaded", "repeated"), SECOND),
    )
    with drawing("determinism", height_in=1.7) as (axes, canvas):
        for row, (_name, changed, colour) in enumerate(rows):
            axes.barh(row, len(changed), height=0.5, color=FAINT)
            axes.vlines(np.flatnonzero(changed) + 0.5, row - 0.3, row + 0.3, color=colour, linewidth=1.4)
        axes.set_yticks(range(len(rows)), [f"{name}: {int(changed.sum())}" for name, changed, _ in rows])
        axes.grid(visible=False)
        axes.set(xlim=(0, evidence.evidence.samples), ylim=(1.6, -0.6), xlabel="frame")
        caption = "An upright line is a frame whose result differs by at least one bit; an empty bar is better."
        return (plot_of(canvas, title="Frames whose result changed", caption=caption),)


def calibration_plots(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    """Light and contrast of both sets, and how near each judging frame comes to one that calibrated."""
    if not len(evidence.arrays["calibration_brightness"]):
        return ()
    return (_two_sets(evidence), _nearness(evidence))


def sensor_faults_plots(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    """The worst of each planted fault: frames until it is flagged, frames until all is well again."""
    names = np.asarray(evidence.arrays["fault"])
    faults = list(dict.fromkeys(names.tolist()))
    with drawing("sensor-faults", height_in=0.34 * len(faults) + 1.0) as (axes, canvas):
        for offset, (column, colour, label) in enumerate(
            (("delay", FIRST, "until flagged"), ("recovery", SECOND, "until well again"))
        ):
            frames = np.asarray(evidence.arrays[column], np.int64)
            for row, fault in enumerate(faults):
                of_fault = frames[names == fault]
                never, worst = bool(np.any(of_fault < 0)), int(of_fault.max())
                place = row - 0.17 + 0.34 * offset
                axes.barh(place, 0.0 if never else worst, height=0.3, color=colour, label="" if row else label)
                told = "never" if never else str(worst)
                axes.text((0 if never else worst) + 0.06, place, told, va="center", color=INK, fontsize=8)
        axes.set_yticks(range(len(faults)), faults)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(ylim=(len(faults) - 0.4, -0.6), xlabel="frames, the worst of all stretches")
        axes.set_xlim(0, max(3.0, float(axes.get_xlim()[1])))
        axes.legend(loc="best")
        caption = (
            f"{len(names)} faults planted. 0 is best: flagged with the frame itself, well with the first sound one."
        )
        return (plot_of(canvas, title="Faults of a camera", caption=caption),)


def resources_plots(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    """Memory over the soak, with temperature where the machine tells it."""
    frame, held_mb = memory_mb(evidence)
    if not np.isfinite(held_mb).any():
        return ()
    with drawing("memory") as (axes, canvas):
        axes.plot(frame, held_mb, color=FIRST)
        low, high = float(np.nanmin(held_mb)), float(np.nanmax(held_mb))
        room = max(1.0, 0.1 * (high - low))
        axes.set(xlim=(0, frame[-1]), ylim=(low - room, high + room), xlabel="frame", ylabel="MB held")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _temperature(axes, frame, np.asarray(evidence.arrays["temperature_c"], np.float64))
        caption = "A level line is better; a slope is memory that never comes back."
        return (plot_of(canvas, title="Memory over the soak", caption=caption),)


def provenance_plots(evidence: KeptEvidence, _: Limits) -> tuple[Plot, ...]:
    """Under which licences the components of the runtime come."""
    sbom = sbom_in(evidence)
    if sbom is None:
        return ()
    licences = Counter(_licence(component) for component in json.loads(sbom).get("components", []))
    shown = licences.most_common(MOST_LICENCES)
    with drawing("licences", height_in=max(1.6, 0.36 * len(shown) + 0.9)) as (axes, canvas):
        axes.barh(range(len(shown)), [count for _, count in shown], height=0.6, color=FIRST, alpha=0.75)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", visible=False)
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="components")
        caption = (
            f"{sum(licences.values())} components in the bill of materials (CycloneDX), the most frequent licences."
        )
        return (plot_of(canvas, title="Licences of the runtime", caption=caption),)


def _tail(stages: Mapping[str, NDArray[np.float64]], limit_ms: float) -> Plot:
    """Share of frames that took longer, on a log axis: the tail is where deadlines are missed."""
    with drawing("latency-tail") as (axes, canvas):
        for name, colour, style in (("total", FIRST, "-"), ("infer", SECOND, "--")):
            ordered = np.sort(stages[name] if name == "total" else stages[name][np.isfinite(stages[name])])
            longer = 1 - np.arange(len(ordered)) / len(ordered)
            had, p99 = np.isfinite(ordered), percentile(ordered, 0.99)
            told = f"{name}, p99 {p99:.2f} ms" if np.isfinite(p99) else f"{name}, p99 never"
            axes.step(ordered[had], longer[had], style, where="pre", color=colour, label=told)
        _mark_limit(axes.axvline, limit_ms)
        axes.axhline(0.01, color=FAINT, linewidth=1.2)
        axes.set(
            yscale="log", ylim=(0.5 / len(stages["total"]), 1.2), xlabel="ms", ylabel="share of frames that took longer"
        )
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        axes.set_xlim(left=0)
        axes.legend(loc="best")
        return plot_of(
            canvas,
            title="Latency, with its tail",
            caption="Each step down is a frame; 1 % is p99. What lies right of the upright line is beyond the budget; "
            "a line that ends high has frames that never got a result.",
        )


def _timeline(total_ms: NDArray[np.float64], limit_ms: float, told: Mapping[str, NDArray[np.float64]]) -> Plot:
    """Latency in order, misses as marks on the upper edge, temperature where it is told."""
    had_result = np.isfinite(total_ms)
    most_ms = 1.15 * max(limit_ms, float(total_ms[had_result].max(initial=0.0)))
    missed = np.flatnonzero(total_ms > limit_ms)
    with drawing("latency-timeline") as (axes, canvas):
        axes.plot(np.arange(len(total_ms)), np.where(had_result, total_ms, np.nan), color=FIRST, linewidth=0.9)
        _mark_limit(axes.axhline, limit_ms)
        if len(missed):
            axes.plot(missed, np.full(len(missed), 0.96 * most_ms), "v", color=LIMIT, markersize=5, label="missed")
        axes.set(xlim=(0, max(1, len(total_ms) - 1)), ylim=(0, most_ms), xlabel="frame", ylabel="ms to result")
        hottest = np.fmax(told["temperature_c"], told["gpu_temperature_c"])
        _temperature(axes, told["frame"], hottest)
        axes.legend(loc="best")
        degrees = "" if np.isfinite(hottest).any() else " This machine does not tell its temperature."
        return plot_of(
            canvas,
            title="Latency, misses and temperature",
            caption="A level line is a steady machine; a slope is heat, a spike is something else that ran. "
            f"{len(missed)} of {len(total_ms)} frames missed the budget.{degrees}",
        )


def _temperature(axes: Axes, frame: NDArray[np.float64], celsius: NDArray[np.float64]) -> None:
    """On an axis of its own at the right; nothing where the machine does not tell."""
    told = np.isfinite(celsius)
    if not told.any():
        return
    right = axes.twinx()
    right.plot(frame[told], celsius[told], ":", color=THIRD)
    right.set(ylabel="°C (dotted)", ylim=(celsius[told].min() - 5, celsius[told].max() + 5))
    right.spines["right"].set_visible(True)
    right.grid(visible=False)


def _two_sets(evidence: KeptEvidence) -> Plot:
    arrays = evidence.arrays
    with drawing("calibration-sets") as (axes, canvas):
        for name, colour, marker in (("evaluation", SECOND, "."), ("calibration", FIRST, "x")):
            light, contrast = arrays[f"{name}_brightness"], arrays[f"{name}_contrast"]
            axes.plot(light, contrast, marker, color=colour, alpha=0.7, label=name)
        light, contrast = arrays["calibration_brightness"], arrays["calibration_contrast"]
        left, right, low, high = (float(end) for end in (light.min(), light.max(), contrast.min(), contrast.max()))
        axes.plot([left, right, right, left, left], [low, low, high, high, low], color=INK, linewidth=1)
        axes.set(xlabel="brightness: mean grey level", ylabel="contrast: grey levels")
        axes.legend(loc="best")
        outside = int(uncovered_frames(evidence).sum())
        return plot_of(
            canvas,
            title="Light of both sets",
            caption=f"The frame spans what calibrated; {outside} of {evidence.evidence.samples} evaluation frames lie "
            "outside of it.",
        )


def _nearness(evidence: KeptEvidence) -> Plot:
    with drawing("calibration-nearness") as (axes, canvas):
        axes.hist(np.asarray(evidence.arrays["nearest"], np.float64), bins=BINS, color=FIRST, alpha=0.75)
        axes.axvline(float(str(evidence.evidence.conditions.settings["near_duplicate"])), color=LIMIT, linewidth=2)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)
        axes.set(xlabel="grey levels to the nearest calibration frame", ylabel="evaluation frames")
        return plot_of(
            canvas,
            title="How near the two sets come",
            caption="Left of the upright line a frame shows the same as one that calibrated, and proves nothing.",
        )


def _licence(component: Mapping[str, Any]) -> str:
    """The licence a component declares, short enough for an axis."""
    first: Mapping[str, Any] = next(iter(component.get("licenses", [])), {})
    licence = first.get("license", first)
    name = str(licence.get("id") or licence.get("expression") or licence.get("name") or "not declared")
    name = name.removeprefix("License :: ").removeprefix("OSI Approved :: ").splitlines()[0]
    return name if len(name) <= LONGEST_LICENCE else f"{name[: LONGEST_LICENCE - 1]}…"


def _mark_limit(line: Callable[..., object], limit_ms: float) -> None:
    line(limit_ms, color=LIMIT, linewidth=2, label=f"budget {limit_ms:g} ms")
