"""One engine process, as the loop sees it: start, give work, take the answer, stop, replace."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from typing import Any

from perception.deadline.slots import Slots
from perception.deadline.worker import Ready, Reply, Setup, Work, receive, send

_WORKER = "from perception.deadline.worker import main; main()"


class LaneState(Enum):
    """What a lane is doing."""

    OPENING = "opening"
    IDLE = "idle"
    BUSY = "busy"
    DEAD = "dead"


@dataclass(slots=True)
class Lane:
    """A process that runs one frame at a time. Only the loop's thread may touch it.

    Attributes:
        name: for people.
        state: what it is doing.
        since_ns: since when, on `time.perf_counter_ns`.
        ready: what it said when it was opened; None before.
        job: what it is working on, for whoever gave it the work.
        starts: how often its process was started.
        served_ns: how long the last work took, from handing over to answer.
    """

    name: str
    slots: Slots
    setup_file: int
    state: LaneState = LaneState.DEAD
    since_ns: int = 0
    ready: Ready | None = None
    job: Any = None
    starts: int = 0
    served_ns: int = 0
    _frozen: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _connection: socket.socket | None = None

    @property
    def connection(self) -> socket.socket | None:
        """Readable when the process answered or died; None while there is none."""
        return self._connection

    @property
    def pid(self) -> int | None:
        """The process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start a process; it answers `Ready` when it is open. Returns at once."""
        mine, theirs = socket.socketpair()
        files = (theirs.fileno(), self.slots.file, self.setup_file)
        command = [sys.executable, "-c", _WORKER, *map(str, files)]
        self._process = subprocess.Popen(command, pass_fds=files, stdin=subprocess.DEVNULL)
        theirs.close()
        self._connection = mine
        self._become(LaneState.OPENING)
        self._frozen = False
        self.starts += 1

    def give(self, work: Work, job: object) -> bool:
        """Hand work over; False where the process is gone."""
        if self._connection is None:
            return False
        try:
            send(self._connection, work)
        except OSError:
            return False
        self.job = job
        self._become(LaneState.BUSY)
        return True

    def take(self) -> Ready | Reply | str:
        """The answer that is there: opened, done, or the sentence of why it cannot open.

        Raises:
            EOFError: the process died.
        """
        if self._connection is None:
            raise EOFError
        try:
            answer: Ready | Reply | str = receive(self._connection)
        except (OSError, pickle.UnpicklingError) as error:
            raise EOFError from error
        if isinstance(answer, Ready):
            self.ready = answer
        self.served_ns = time.perf_counter_ns() - self.since_ns
        self._become(LaneState.IDLE)
        return answer

    def freeze(self) -> None:
        """Stop the process where it stands, until `thaw`."""
        self._signal_freeze(signal.SIGSTOP, frozen=True)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal_freeze(signal.SIGCONT, frozen=False)

    @property
    def is_frozen(self) -> bool:
        """Whether `freeze` holds it."""
        return self._frozen

    def kill(self) -> str:
        """End the process at once; returns how it ended, for people."""
        process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._become(LaneState.DEAD)
        if process is None:
            return "was not running"
        process.kill()
        code = process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _signal_freeze(self, number: signal.Signals, *, frozen: bool) -> None:
        if self._process is not None and self._frozen != frozen:
            self._process.send_signal(number)
            self._frozen = frozen

    def _become(self, state: LaneState) -> None:
        self.state, self.since_ns = state, time.perf_counter_ns()


def setup_file_of(setup: Setup) -> int:
    """An anonymous file that holds the setup, for processes to inherit; the caller closes it."""
    file = os.memfd_create("tollgate-setup")
    with os.fdopen(os.dup(file), "wb") as writer:
        writer.write(pickle.dumps(setup))
    return file
