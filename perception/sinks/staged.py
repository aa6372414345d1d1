"""A staged file whose life is longer than one block."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from perception.files import staged_file


class Staged:
    """A temporary file beside its final path, until `keep` puts it there or `discard` removes it."""

    def __init__(self, path: Path) -> None:
        """Make the temporary file.

        Raises:
            OutputError: the folder is missing, read-only or full.
        """
        self._block = ExitStack()
        self.path = self._block.enter_context(staged_file(path))

    def keep(self) -> None:
        """Flush it to disk and let it take its place.

        Raises:
            OutputError: it cannot; an earlier file at the final path is untouched.
        """
        self._block.close()

    def discard(self) -> None:
        """Remove it; what stands at the final path stays."""
        unwanted = _Unwanted()
        self._block.__exit__(_Unwanted, unwanted, None)


class _Unwanted(Exception):
    """Tells the block to end without keeping its file; nobody else sees it."""
