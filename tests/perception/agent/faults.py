"""Ends or starves an agent at any one of its file operations.

Python announces every operation on files to audit hooks before it does it (PEP 578). The hook counts those that change
something under a vehicle's folder; at the one asked for it kills its own process, as a power cut would, or says that
the disk is full, from there on.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate"}
NEEDS_ROOM = {"os.mkdir", "os.symlink", "os.link"}  # and every file opened to be written


class Fault:
    """Counts the changes under a folder, and acts at the `at`-th; with None it only counts."""

    def __init__(self, folder: Path, at: int | None, act: Callable[[], None], *, only: set[str] = CHANGES) -> None:
        self._folder, self._at, self._act, self._only = str(folder), at, act, only
        self.changes: list[str] = []
        self.armed = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """The audit hook."""
        if not self.armed or not self._concerns(event, arguments):
            return
        self.changes.append(f"{event} {arguments[0]}")
        if self._at is not None and len(self.changes) >= self._at:
            self._act()

    def _concerns(self, event: str, arguments: tuple[object, ...]) -> bool:
        if event == "open":
            written = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            return bool(written) and self._is_inside(arguments[0])
        return event in self._only and any(self._is_inside(argument) for argument in arguments[:2])

    def _is_inside(self, argument: object) -> bool:
        return isinstance(argument, (str, Path)) and str(argument).startswith(self._folder)


def kill() -> None:
    """As a power cut: no handler, no cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    """As the kernel says it."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_child(folder: Path, work: Callable[[], None], *, at: int | None, act: Callable[[], None], **only) -> list[str]:
    """Do `work` in a forked process that meets the fault; returns the changes it came to, one a line.

    Raises:
        AssertionError: the child ended in another way than well, or by the fault.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        fault = Fault(folder, at, act, **only)
        sys.addaudithook(fault)
        status = 1
        try:
            fault.armed = True
            work()
            fault.armed = False
            os.write(writing, "\n".join(fault.changes).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        changes = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if at is None:
        assert os.WIFEXITED(status), status
        assert os.WEXITSTATUS(status) == 0, "the child failed without a fault"
    elif act is kill:
        assert killed, f"fault {at} was never met"
    return changes
