"""What people and machines read from the command line: progress and tables, or one JSON document on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

SHORT_CELL = 12


class Step(Protocol):
    """Advances a progress bar by one."""

    def __call__(self) -> None:
        """One more done."""


class Terminal:
    """One place to talk. With `as_json` people's text goes to stderr and stdout carries one JSON document only."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Open the console; `quiet` leaves errors and results only."""
        self.as_json = as_json
        self._quiet = quiet
        self._people = Console(stderr=as_json, highlight=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def console(self) -> Console:
        """Where people read, for what draws by itself."""
        return self._people

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at a terminal and wants to see progress."""
        return self._people.is_terminal and not self._quiet

    def say(self, text: str) -> None:
        """One line for people (rich markup)."""
        if not self._quiet:
            self._people.print(text)

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table for people: where it is too wide, long columns fold and short ones, numbers mostly, do not."""
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", show_edge=False)
        lines = [tuple(row) for row in rows]
        for name, *cells in zip(header, *lines, strict=True):
            table.add_column(name, overflow="fold", no_wrap=max(map(len, (name, *cells))) <= SHORT_CELL)
        for line in lines:
            table.add_row(*line)
        self._people.print(table)

    def result(self, document: object) -> None:
        """The machine's answer: printed with `--json` only."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def error(self, text: str) -> None:
        """One line on stderr, never marked up: messages quote file names and tensors with brackets."""
        self._errors.print(text, markup=False, style="red")

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Step]:
        """A progress bar with time left while the block runs; calling what is lent advances it by one.

        Where nobody watches a terminal, in a log file or a pipe, one line says what has begun.
        """
        watched = self.is_watched
        if not watched:
            self.say(f"{escape(what)} …")
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._people, transient=True, disable=not watched) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)
