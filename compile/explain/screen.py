"""What an engine package is, on a terminal: the same story as the page beside it, shorter."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.markup import escape

from compile.explain.page import PAGE, facts_of, metrics_of, percent
from compile.explain.report import REPORT, Candidate, CompileReport, Layer, read_report
from perception.errors import PackageError
from perception.package import EnginePackage
from perception.terminal import Terminal

MOST_LAYERS = 12


def report_of(package: EnginePackage) -> CompileReport:
    """What its compilation measured.

    Raises:
        PackageError: the package carries no report, or one that cannot be read: a float package written for reference.
    """
    path = package.folder / REPORT
    if REPORT not in package.manifest.files:
        raise PackageError(f"{path}: is not in the package; it was written as a reference, compile the model for more")
    return read_report(json.loads(path.read_bytes()), str(path))


def show(package: EnginePackage, report: CompileReport, terminal: Terminal) -> None:
    """Print it."""
    manifest = package.manifest
    terminal.say(f"\n[bold]{escape(manifest.name)}[/]  [dim]{escape(f'package {package.folder}')}[/]\n")
    terminal.say(f"[bold]{escape(report.decision.why)}[/]")
    terminal.say(escape(report.decision.naive) if report.decision.naive else "INT8 was not tried")
    terminal.say("")
    terminal.table("At a glance", ("", "", ""), facts_of(report))
    terminal.say("")
    metrics = metrics_of(report)
    header = ("", "engine", *metrics, "lost", "p50 ms", "× float", "in float")
    terminal.table("Graded", header, [_cells(row, metrics, report) for row in report.decision.candidates])
    if report.layers:
        terminal.say("")
        _show_layers(report, terminal)
    if report.coverage is not None:
        terminal.say(f"\n[bold]Calibration[/]  {escape(report.coverage.verdict)}")
    if PAGE in manifest.files:
        terminal.say(f"[dim]every layer and every engine that was tried: {escape(str(package.folder / PAGE))}[/]")


def _cells(row: Candidate, metrics: list[str], report: CompileReport) -> list[str]:
    timed = row.latency
    return [
        "→" if row is report.chosen else "",
        escape(row.name),
        *(f"{row.scores[name]:.3f}" if name in row.scores else "–" for name in metrics),
        "" if row is report.reference else percent(row.loss),
        "–" if timed is None else f"{timed.p50_ms:.2f}",
        "–" if timed is None else f"{timed.times_float.median:.2f}",
        f"{row.float_layers}/{row.weighted_layers}",
    ]


def _show_layers(report: CompileReport, terminal: Terminal) -> None:
    """Those that matter most to the results; the page has them all."""
    ordered = sorted(report.layers, key=lambda layer: -(layer.task_effect or 0.0))[:MOST_LAYERS]
    title = f"The {len(ordered)} layers of {len(report.layers)} that matter most to the results"
    header = ("layer", "precision", "lost", "effect", "float µs", "here µs", "why")
    terminal.table(title, header, [tuple(_layer_cells(layer)) for layer in ordered])


def _layer_cells(layer: Layer) -> Iterator[str]:
    yield escape(layer.node)
    yield layer.precision
    for share in (layer.loss, layer.task_effect):
        yield "–" if share is None else percent(share)
    for time_us in (layer.time_us_float, layer.time_us):
        yield "–" if time_us is None else f"{time_us:.0f}"
    yield escape(layer.why or layer.recipe)
