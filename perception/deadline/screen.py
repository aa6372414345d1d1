"""A screen for people beside a run: what every camera gets, what is wrong, how the machine is. Calm: twice a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hw_profiles.telemetry import sample
from perception.deadline.condition import Level
from perception.deadline.run import Running
from perception.deadline.tally import Stream
from perception.latency import LatencyRecorder
from perception.pipeline import Status

REFRESH_S = 0.5
EVENTS_SHOWN = 5
_COLOURS = {Level.READY: "green", Level.DEGRADED: "yellow", Level.FAULT: "red"}


class Screen:
    """Draws a run. Holds the counts of its last look, for rates."""

    def __init__(self, running: Running, title: str) -> None:
        """Look at a run for the first time."""
        self._running, self._title = running, title
        self._began_ns = self._looked_ns = time.perf_counter_ns()
        self._counts: dict[tuple[str, str], int] = {}
        self._rates: dict[tuple[str, str], float] = {}

    def draw(self) -> RenderableType:
        """Everything, now."""
        self._measure()
        return Group(self._headline(), Text(), self._streams(), Text(), self._machine(), *self._news())

    def _measure(self) -> None:
        """Results a second since the last look, at least one second ago."""
        now_ns = time.perf_counter_ns()
        if now_ns - self._looked_ns < 1_000_000_000:
            return
        for key, stream in tuple(self._running.publisher.tally.streams.items()):
            count = stream.age.samples
            self._rates[key] = (count - self._counts.get(key, 0)) / (now_ns - self._looked_ns) * 1e9
            self._counts[key] = count
        self._looked_ns = now_ns

    def _headline(self) -> Text:
        level = self._running.condition.level
        seconds = (time.perf_counter_ns() - self._began_ns) // 1_000_000_000
        line = Text.assemble(
            ("● ", _COLOURS[level]),
            (level.name, f"bold {_COLOURS[level]}"),
            (f"   {self._title}", "bold"),
            (f"   {seconds // 60:02d}:{seconds % 60:02d}", "dim"),
        )
        return line

    def _streams(self) -> Table:
        table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="dim", border_style="dim", pad_edge=False)
        table.add_column("camera")
        table.add_column("model", style="dim")
        for name in ("rate Hz", "age p50", "p99", "max ms", "on time", "late", "skipped", "stale", "fault"):
            table.add_column(name, justify="right")
        for key, stream in sorted(self._running.publisher.tally.streams.copy().items(), key=lambda item: item[0][::-1]):
            table.add_row(key[1], key[0], *self._cells(key, stream))
        return table

    def _cells(self, key: tuple[str, str], stream: Stream) -> tuple[str | Text, ...]:
        ages = LatencyRecorder.of_state(stream.age.state())
        frames = stream.frames
        return (
            f"{self._rates.get(key, 0):.1f}",
            *(_ms(ages.percentile_or_none_ns(percent)) for percent in (50, 99)),
            _ms(ages.max_ns if ages.samples else None),
            str(frames[Status.ON_TIME] + frames[Status.DEGRADED]),
            *(_count(frames[status], "yellow") for status in (Status.LATE, Status.SKIPPED, Status.STALE)),
            _count(frames[Status.FAULT], "red"),
        )

    def _machine(self) -> Text:
        now = sample()
        parts = [f"{lane.name} {lane.state.value}" for lane in self._running.crew.all_lanes]
        if now.temperature_c is not None:
            parts.append(f"{now.temperature_c:.0f} °C")
        if now.gpu_temperature_c is not None:
            parts.append(f"GPU {now.gpu_temperature_c:.0f} °C")
        if now.cpu_clock_mhz is not None:
            parts.append(f"{now.cpu_clock_mhz / 1000:.2f} GHz")
        if now.available_bytes is not None:
            parts.append(f"{now.available_bytes / 2**30:.1f} GiB free")
        shadow = self._running.loop.slack.tally
        if shadow.offered:
            parts.append(f"shadow saw {shadow.run / shadow.offered:.0%} of the frames")
        return Text("   ".join(parts), style="dim")

    def _news(self) -> list[RenderableType]:
        """What is wrong now, then the newest events."""
        condition = self._running.condition
        lines: list[RenderableType] = [Text()]
        lines += [Text(f"! {reason}", style=_COLOURS[level]) for level, reason in condition.ranked]
        for event in list(condition.events)[-EVENTS_SHOWN:]:
            seconds = max(0, event.at_ns - self._began_ns) / 1e9
            lines.append(Text(f"{seconds:8.1f} s  {event.what}", style="dim", overflow="ellipsis", no_wrap=True))
        return lines if len(lines) > 1 else []


@contextmanager
def shown(running: Running, title: str, console: Console) -> Iterator[None]:
    """Draw the run on a console while the block runs; the last picture stays."""
    screen, ended = Screen(running, title), threading.Event()
    with Live(screen.draw(), console=console, auto_refresh=False) as live:

        def refresh() -> None:
            while not ended.wait(REFRESH_S):
                live.update(screen.draw(), refresh=True)

        thread = threading.Thread(target=refresh, name="screen", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            live.update(screen.draw(), refresh=True)


def _ms(duration_ns: int | None) -> str:
    """A dash where no sample, or too few, carry it."""
    return "–" if duration_ns is None else f"{duration_ns / 1e6:.1f}"


def _count(number: int, colour: str) -> Text:
    return Text(str(number), style=colour if number else "dim")
