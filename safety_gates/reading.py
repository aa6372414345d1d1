"""The recordings of a case, read with progress: each frame of one, or one recording after another."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from perception.frame import Frame
from perception.sources.source import FrameSource
from perception.sources.table import kind_and_path, open_source, source_class
from perception.terminal import Step, Terminal
from safety_gates.case import Case

UNTIMED = frozenset({"image_folder"})
"""Kinds of recording whose capture times are made up: what moved between two of their pictures nobody knows."""


class Reader:
    """Reads the recordings of a case."""

    def __init__(self, case: Case, terminal: Terminal) -> None:
        """Open nothing yet."""
        self.stage = ""
        self._case = case
        self._terminal = terminal

    def sequences(self) -> list[Path]:
        """The recordings whose frames follow each other in real time, as `sequence_log` numbers them from 1."""
        recordings = self._case.timing or (self._case.recording,)
        return [path for path in recordings if kind_and_path(path)[0] not in UNTIMED]

    @contextmanager
    def frames(self, what: str) -> Iterator[Iterator[Frame]]:
        """The frames of the recording, with progress; the next are decoded while the block works on one.

        Args:
            what: is shown beside the progress.

        Raises:
            SourceError: the recording cannot be read.
        """
        with self.stepped(open_source(self._case.recording), what, self._case.frames) as frames:
            yield frames

    @contextmanager
    def timed_recordings(self, what: str) -> Iterator[Iterator[Iterator[Frame]]]:
        """The frames latency is measured on, recording by recording, with progress; each is decoded when asked for.

        Args:
            what: is shown beside the progress.

        Raises:
            SourceError: a recording cannot be read.
        """
        with closing(self._one_after_another(what)) as recordings:
            yield recordings

    def _one_after_another(self, what: str) -> Generator[Iterator[Frame]]:
        """Each recording is closed before the next is opened: one decoder and one progress bar at a time."""
        if not self._case.timing:
            with self.stepped(_undecoded(self._case.recording), what, self._case.frames) as frames:
                yield frames
        for path in self._case.timing:
            with self.stepped(_undecoded(path), f"{what}, {path.name}", None) as frames:
                yield frames

    @contextmanager
    def stepped(self, source: FrameSource, what: str, most: int | None) -> Iterator[Iterator[Frame]]:
        """At most so many frames of a source, with progress; closes it."""
        try:
            counts = [camera.frame_count for camera in source.cameras]
            known = None if None in counts else sum(count or 0 for count in counts)
            limits = [count for count in (known, most) if count is not None]
            with self._terminal.progress(self.stage + what, min(limits, default=None)) as step:
                yield _stepping(islice(source.frames(), most), step)
        finally:
            source.close()


def _undecoded(recording: Path) -> FrameSource:
    """A source that decodes a frame only when it is asked for it."""
    kind, path = kind_and_path(recording)
    source: FrameSource = source_class(kind)(path)
    return source


def _stepping(frames: Iterator[Frame], step: Step) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        step()
