"""From what was measured to the rows of docs/results/int8.json: first what is promised, then every contender."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tests.benchmarks.int8.cases import Case
from tests.benchmarks.int8.contender import (
    FLOAT,
    MANY_FRAMES,
    OURS,
    OURS_TENSORRT,
    PROBED,
    SECOND_RUN,
)
from tests.benchmarks.int8.material import VALIDATION_FRAMES
from tests.benchmarks.int8.work import Document, Settings
from tests.benchmarks.results import row

COMMAND = "make bench-int8"
PEERS = ("openvino", "nncf", "onnx")
SEARCH_S, AGAIN_S, PEAK_MIB = 600, 30, 2048
Row = dict[str, Any]
figure = partial(row, command=COMMAND, limit=None)


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """Everything measured of one model.

    Attributes:
        builds: contender → what its build came to.
        judged: contender → its grades; empty where it has none.
        times: threads → latencies of all that run.
    """

    case: Case
    builds: dict[str, Document]
    judged: dict[str, Document]
    times: dict[int, Document]

    def graded(self, name: str) -> Document | None:
        """A contender's grades; None where it has none."""
        found = self.judged.get(name, {})
        return found if found.get("status") == "graded" else None

    def latency(self, name: str, threads: int) -> Document | None:
        """A contender's latency; None where it was not timed."""
        found: Document | None = self.times[threads].get("latencies", {}).get(name)
        return found

    def ships_float(self, name: str) -> bool:
        """Whether a contender's engine is the float engine, byte for byte."""
        mine, float_bytes = (self.builds.get(each, {}).get("sha256") for each in (name, FLOAT))
        return mine is not None and mine == float_bytes


def rows_of(figures: CaseFigures) -> list[Row]:
    """All rows of one model."""
    return [*promised(figures), *(each for name in figures.builds for each in measured(figures, name))]


def promised(figures: CaseFigures) -> Iterator[Row]:
    """Rows with limits."""
    limits = figures.case.limits
    if limits is not None:
        ships = "ships float: " if figures.ships_float(OURS) else ""
        yield from _accuracy(figures, OURS, drop=limits.cpu_drop, kept=limits.cpu_kept, what=ships)
        yield from _accuracy(figures, OURS_TENSORRT, drop=limits.tensorrt_drop, kept=limits.tensorrt_kept)
        built = figures.builds.get(OURS_TENSORRT, {})
        if "int8_share" in built:
            name = f"{figures.case.name}, {OURS_TENSORRT}: multiply-adds in INT8"
            yield figure(
                name, built["int8_share"], limit=limits.tensorrt_share, unit="share", better="higher", samples=1
            )
    yield from _chosen_latency(figures)
    if figures.case.name == PROBED:
        yield from _search_cost(figures)


def measured(figures: CaseFigures, name: str) -> Iterator[Row]:
    """What was measured of one contender, for information."""
    who, built = f"{figures.case.name}, {name}", figures.builds[name]
    if built["status"] != "built":
        yield figure(f"{who}: {built['status']}: {built['why']}", 1, unit="failure", better="lower", samples=1)
        return
    yield from _accuracy(figures, name, drop=None, kept=None, what="measured: ")
    yield from _details(figures, name)
    for threads, times in figures.times.items():
        latency = figures.latency(name, threads)
        if latency is not None:
            where, samples = f"{who}: measured: {{}}, threads {threads}", latency["runs"]
            yield figure(where.format("p50"), latency["p50_ms"], unit="ms", better="lower", samples=samples)
            yield figure(
                where.format("time over float's"), latency["ratio"], unit="ratio", better="lower", samples=samples
            )
        elif name in times.get("failed", {}):
            yield figure(f"{who}: {times['failed'][name]}", 1, unit="failure", better="lower", samples=1)
    yield figure(f"{who}: measured: build", built["seconds"], unit="s", better="lower", samples=1)
    yield figure(f"{who}: measured: peak memory", built["peak_bytes"] / 2**20, unit="MiB", better="lower", samples=1)


def conditions_of(figures: list[CaseFigures], settings: Settings) -> dict[str, Any]:
    """What else the figures hold under."""
    pinned = {
        f"{each.case.name}, threads {n}": t.get("openvino_pinned") for each in figures for n, t in each.times.items()
    }
    return {
        **{name: _version(name) for name in PEERS},
        "calibration_frames": settings.calibration_frames,
        "validation_frames": f"at most {VALIDATION_FRAMES}, labelled with what float reports; for all who search",
        "graded_frames": settings.graded_frames or "all",
        "model": "the same for everybody, cleaned by compile.importer",
        "tensorrt_placement": "graded with ONNX Runtime rounding to its grids",
        "openvino_pinned": pinned,
    }


def _accuracy(
    figures: CaseFigures, name: str, *, drop: float | None, kept: float | None, what: str = ""
) -> Iterator[Row]:
    """What is lost and what is kept; a promised contender without grades breaks its promise."""
    grades, who = figures.graded(name), f"{figures.case.name}, {name}: {what}"
    if grades is None:
        if name in figures.builds and drop is not None:
            why = figures.judged.get(name, {}).get("why") or figures.builds[name].get("why", "was not graded")
            yield figure(f"{who}no engine: {why}", 1, limit=0, unit="failure", better="lower", samples=1)
        return
    relative = grades["metric"] == "AP50"
    unit, frames = "% of float's AP50" if relative else "points of IoU", grades["labelled_frames"]
    lost = f"{who}{grades['metric']} lost against float"
    yield figure(lost, grades["drop"], limit=drop, unit=unit, better="lower", samples=frames)
    if drop is None and grades["drop_low"] is not None:
        yield figure(f"{lost}, 95 % from", grades["drop_low"], unit=unit, better="lower", samples=frames)
        yield figure(f"{lost}, 95 % to", grades["drop_high"], unit=unit, better="lower", samples=frames)
    if grades["kept"] is not None and (drop is None or kept is not None):
        said = f"{who}kept of what float reports"
        samples = grades["reported_by_float"]
        yield figure(said, grades["kept"], limit=kept, unit="share", better="higher", samples=samples)


def _details(figures: CaseFigures, name: str) -> Iterator[Row]:
    who, grades = f"{figures.case.name}, {name}: measured: ", figures.graded(name)
    if grades is not None:
        samples = grades["reported_by_float"]
        yield figure(f"{who}agreement both ways", grades["both_ways"], unit="share", better="higher", samples=samples)
    elif why := figures.judged.get(name, {}).get("why"):
        yield figure(f"{who}does not run: {why}", 1, unit="failure", better="lower", samples=1)
    share = figures.builds[name]["int8_share"]
    yield figure(f"{who}multiply-adds in INT8", share, unit="share", better="higher", samples=1)


def _chosen_latency(figures: CaseFigures) -> Iterator[Row]:
    """The plan that ships may not be slower than float; where it is float itself it is as fast by identity."""
    for threads in figures.times:
        latency = figures.latency(OURS, threads)
        if latency is not None:
            same = figures.ships_float(OURS)
            name = f"{figures.case.name}, {OURS}: time over float's, threads {threads}{', float ships' if same else ''}"
            ratio = 1.0 if same else latency["ratio"]
            yield figure(name, ratio, limit=1.0, unit="ratio", better="lower", samples=latency["runs"])


def _search_cost(figures: CaseFigures) -> Iterator[Row]:
    """What the search for the probed model costs."""
    wanted = (
        (OURS, "seconds", "search", SEARCH_S, "s", 1),
        (SECOND_RUN, "seconds", "from cache", AGAIN_S, "s", 1),
        (MANY_FRAMES, "peak_bytes", "peak memory", PEAK_MIB, "MiB", 2**20),
    )
    for name, key, what, limit, unit, divisor in wanted:
        built = figures.builds.get(name)
        if built is not None and key in built:
            identity = f"{figures.case.name}, {name}: {what}"
            yield figure(identity, built[key] / divisor, limit=limit, unit=unit, better="lower", samples=1)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
