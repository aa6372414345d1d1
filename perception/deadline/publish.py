"""Telling the world: counts, sinks and callbacks, on a thread of their own, so that no disk delays an engine."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from perception.deadline.tally import RunTally
from perception.errors import OutputError
from perception.pipeline import FrameResult
from perception.sinks.sink import Sink

RETRIES = 20
RETRY_AFTER_S = 0.25
MOST_WAITING = 256
"""Frames that may wait for a slow sink: beyond, the loop waits, and says so, before memory runs out."""


class Publisher:
    """Hands every outcome to the tally, to each sink and to a callback, in order.

    A sink that cannot write is tried again for 5 s; then it is given up with what it wrote, and `failures` says why:
    the loop goes on.
    """

    def __init__(self, sinks: Sequence[Sink], on_frame: Callable[[FrameResult], None]) -> None:
        """Start the thread; the sinks are ended by `finish` or `abort`."""
        self.tally = RunTally()
        self.failures: list[OutputError] = []
        self.struggling = False
        self._sinks = list(sinks)
        self._on_frame = on_frame
        self._failure: BaseException | None = None
        self._queue: queue.Queue[FrameResult | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="publish", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Outcomes that wait to be written."""
        return self._queue.qsize()

    def publish(self, outcome: FrameResult) -> None:
        """Hand over one outcome."""
        self._queue.put(outcome)

    def check(self) -> None:
        """See whether all is well.

        Raises:
            BaseException: what the callback raised.
        """
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Write what waits and close every sink.

        Raises:
            BaseException: what the callback raised.
            OutputError: a sink could not be completed, now or before.
        """
        self._end()
        for sink in self._sinks:
            sink.close()
        if self.failures:
            raise self.failures[0]

    def abort(self) -> None:
        """Write what waits and abort every sink. Raises nothing."""
        self._queue.put(None)
        self._thread.join()
        for sink in self._sinks:
            sink.abort()

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self.check()

    def _work(self) -> None:
        while (outcome := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self.tally.add(outcome)
                for sink in tuple(self._sinks):
                    self._write(sink, outcome)
                self._on_frame(outcome)
            except BaseException as failure:  # noqa: BLE001  (carried to the loop's thread)
                self._failure = failure

    def _write(self, sink: Sink, outcome: FrameResult) -> None:
        for attempt in range(RETRIES):
            try:
                sink.write(outcome)
            except OutputError as error:
                self.struggling = True
                if attempt == RETRIES - 1:
                    self.failures.append(error)
                    self._sinks.remove(sink)
                    sink.abort()
                    return
                time.sleep(RETRY_AFTER_S)
            else:
                self.struggling = bool(self.failures)
                return
