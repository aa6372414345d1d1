"""The protocol of everything that is told about published frames."""

from __future__ import annotations

from typing import Protocol

from perception.pipeline import FrameResult


class Sink(Protocol):
    """Is told every published frame, then ended once: by `close` when all went well, by `abort` when it did not.

    Whatever it writes appears at its final path at `close` and not before. After the first ending, both do nothing.
    """

    def write(self, outcome: FrameResult) -> None:
        """Take one frame. The result's arrays may change after the call; what is needed longer is copied.

        Raises:
            OutputError: the disk is full or the folder is gone.
        """

    def close(self) -> None:
        """Finish, and put the output in its place.

        Raises:
            OutputError: the output cannot be completed; an earlier one is untouched.
        """

    def abort(self) -> None:
        """Stop without a complete output: nothing half-written is left at the final path. Raises nothing."""
