"""What is published for a frame: its own result, the last one with its age, or nothing; and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perception.deadline.jobs import Job
from perception.deadline.ladder import Ladder
from perception.deadline.plan import Criticality, MissPolicy
from perception.deadline.worker import Reply
from perception.pipeline import FrameResult, Instants, Status, Timings
from perception.results import Result


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest own result of a model on a camera, and when its frame was captured."""

    result: Result
    captured_ns: int


class Judge:
    """Gives every job exactly one published outcome."""

    def __init__(self, publish: Callable[[FrameResult], None], ladder: Ladder) -> None:
        """Publish through `publish`; tell the ladder what was missed."""
        self._publish, self._ladder = publish, ladder
        self._last: dict[tuple[str, str], _Last] = {}

    def done(self, job: Job, reply: Reply, *, is_shadow: bool = False) -> None:
        """An engine answered."""
        now_ns = time.perf_counter_ns()
        captured_ns = job.arrival.captured_ns
        late = now_ns > job.due_ns
        if not is_shadow:
            self._ladder.note(now_ns, missed=late)
        if late and job.model.on_miss is MissPolicy.SKIP:
            self._give(job, Status.SKIPPED, causes=("finished too late",), started_ns=reply.started_ns)
            return
        degraded = Status.DEGRADED if job.causes else Status.ON_TIME
        if reply.result is not None:
            self._last[job.model.name, job.camera_id] = _Last(reply.result, captured_ns)
        self._publish(
            FrameResult(
                frame=job.arrival.frame,
                result=reply.result,
                timings=Timings(max(0, reply.started_ns - captured_ns), *reply.stages_ns),
                status=Status.LATE if late else degraded,
                deadline_ns=job.model.deadline_ns,
                model=job.model.name,
                instants=Instants(captured_ns, job.arrival.arrived_ns, reply.started_ns, now_ns),
                age_ns=now_ns - captured_ns,
                causes=job.causes,
                set_id=job.arrival.set_id,
                skew_ns=job.arrival.skew_ns,
            )
        )

    def miss(self, job: Job, why: str) -> None:
        """A frame was not started for want of time."""
        self._ladder.note(time.perf_counter_ns(), missed=True)
        self.skip(job, why)

    def skip(self, job: Job, why: str) -> None:
        """A frame was not started."""
        self._without_own(job, Status.SKIPPED, why)

    def fault(self, job: Job, why: str | None) -> None:
        """The engine failed on it, or its picture is not fit to be looked at."""
        self._without_own(job, Status.FAULT, why)

    def _without_own(self, job: Job, status: Status, why: str | None) -> None:
        causes = job.causes if why is None else (*job.causes, why)
        last = self._last.get((job.model.name, job.camera_id))
        shadow = job.model.criticality is Criticality.SHADOW
        if job.model.on_miss is MissPolicy.REUSE and last is not None and not shadow:
            self._give(job, Status.STALE, causes=causes, last=last)
        else:
            self._give(job, status, causes=causes)

    def _give(
        self,
        job: Job,
        status: Status,
        *,
        causes: tuple[str, ...],
        last: _Last | None = None,
        started_ns: int = 0,
    ) -> None:
        arrival, now_ns = job.arrival, time.perf_counter_ns()
        self._publish(
            FrameResult(
                frame=arrival.frame,
                result=None if last is None else last.result,
                timings=Timings(max(0, (started_ns or now_ns) - arrival.captured_ns), 0, 0, 0),
                status=status,
                deadline_ns=job.model.deadline_ns,
                model=job.model.name,
                instants=Instants(arrival.captured_ns, arrival.arrived_ns, started_ns, now_ns),
                age_ns=now_ns - (arrival.captured_ns if last is None else last.captured_ns),
                causes=causes,
                set_id=arrival.set_id,
                skew_ns=arrival.skew_ns,
            )
        )
