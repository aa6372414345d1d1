"""The sink that writes a run log; its format and its reader are in `perception.record`."""

from __future__ import annotations

import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from perception.errors import OutputError
from perception.files import cannot_write, staged_file
from perception.logged_frame import fields_from_frame
from perception.pipeline import FrameResult
from perception.record import RunHeader, RunSummary, incomplete_path, line_of, line_without_timing, on_simulated_clock
from perception.sinks.staged import Staged

if TYPE_CHECKING:
    from hashlib import _Hash


class _Written(NamedTuple):
    """How far the log is written. One value, so that an interrupt falls before or after a frame and never inside."""

    frames: int
    results: _Hash
    end_bytes: int


class RunLogWriter:
    """Flushes every frame to a hidden file beside `path` while running.

    `close` puts the complete log at `path`. `abort` leaves `path` alone and puts what was recorded beside it, as
    `NAME.incomplete.SUFFIX`. Where the machine dies the hidden file stays; it has no summary, so the reader refuses it.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin the log.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._path = path
        self._simulated = header.clock == "simulated"
        self._staged = Staged(path)
        self._file = self._staged.path.open("wb", buffering=0)
        self._open = True
        self._written = _Written(0, sha256(), self._append(line_of(header.model_dump(mode="json"))))

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        fields = fields_from_frame(on_simulated_clock(outcome) if self._simulated else outcome)
        results = self._written.results.copy()
        results.update(line_without_timing(fields))
        self._written = _Written(self._written.frames + 1, results, self._append(line_of(fields)))

    def close(self) -> None:
        """See `Sink.close`."""
        if not self._open:
            return
        self._append(self._summary(complete=True))
        self._file.close()
        self._staged.keep()
        self._open = False

    def abort(self) -> None:
        """See `Sink.abort`. What was recorded stays beside the path, as a log that says it is incomplete."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError):
            self._file.close()
        with suppress(OSError, OutputError):
            self._set_aside()
        self._staged.discard()

    def _append(self, line: bytes) -> int:
        """Write a line; returns where the file now ends. What a full disk left of it is cut off, for another try."""
        begin_bytes = self._file.tell()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(begin_bytes)
                self._file.seek(begin_bytes)
            raise cannot_write(self._path, error) from error
        return begin_bytes + len(line)

    def _summary(self, *, complete: bool) -> bytes:
        frames, results, _ = self._written
        summary = RunSummary(complete=complete, frames=frames, results_sha256=results.hexdigest())
        return line_of({"summary": summary.model_dump(mode="json")})

    def _set_aside(self) -> None:
        """Copy the whole lines beside the path, with a summary that says they are not all.

        A replay that was interrupted again before it had caught up with what an earlier one left leaves that as it is.
        """
        if self._written.frames == 0:
            return
        left = incomplete_path(self._path)
        if left.exists() and _is_longer(left, self._staged.path):
            return
        with staged_file(left) as copy:
            shutil.copyfile(self._staged.path, copy)
            with copy.open("r+b") as file:
                file.truncate(self._written.end_bytes)
                file.seek(self._written.end_bytes)
                file.write(self._summary(complete=False))


def _is_longer(left: Path, ours: Path) -> bool:
    """Whether a log that was left earlier is of the same run and holds more."""
    with left.open("rb") as theirs, ours.open("rb") as own:
        return theirs.readline() == own.readline() and left.stat().st_size > ours.stat().st_size
