"""Frames that wait for an engine: the newest of each camera for each model, earliest deadline first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from perception.camera_health import Ailment
from perception.deadline.plan import ModelPlan
from perception.frame import Frame


@dataclass(slots=True)
class Arrival:
    """A frame that reached the runtime.

    Attributes:
        slot: where its pixels lie in shared memory; None where there was no room.
        captured_ns: when the sensor took it, on the runtime's clock.
        ailments: what its camera suffers from.
    """

    frame: Frame
    slot: int | None
    captured_ns: int
    arrived_ns: int
    ailments: frozenset[Ailment]
    set_id: int | None = None
    skew_ns: int = 0


@dataclass(slots=True)
class Job:
    """One frame for one model.

    Attributes:
        engine: which of the worker's engines is to look at it; chosen when it is started.
        causes: what it suffers from already.
        rank_ns: who waits longest: when it is due, or a frame of its model and camera before it that was not started.
    """

    model: ModelPlan
    arrival: Arrival
    engine: int = 0
    causes: tuple[str, ...] = ()
    rank_ns: int = 0

    @property
    def due_ns(self) -> int:
        """By when its result must be usable."""
        return self.arrival.captured_ns + self.model.deadline_ns

    @property
    def camera_id(self) -> str:
        """Whose frame it is."""
        return self.arrival.frame.camera_id


class Waiting:
    """Jobs not yet started. With `keep_all` a newer frame displaces none.

    Under overload plain earliest-deadline-first would let the camera that takes its pictures first win every time. So a
    frame takes over the rank of the one before it that was not started: everybody gets a turn.
    """

    def __init__(self, *, keep_all: bool = False) -> None:
        self._keep_all = keep_all
        self._jobs: dict[tuple[str, str], deque[Job]] = {}
        self._owed_ns: dict[tuple[str, str], int] = {}

    def put(self, job: Job) -> Job | None:
        """Add a job; returns the one of the same model and camera that it displaced."""
        key = _key(job)
        queue = self._jobs.setdefault(key, deque())
        displaced = queue.popleft() if queue and not self._keep_all else None
        if displaced is not None:
            self._owed_ns[key] = displaced.rank_ns
        job.rank_ns = min(job.due_ns, self._owed_ns.get(key, job.due_ns))
        queue.append(job)
        return displaced

    def take(self) -> Job | None:
        """The job that is due first, or owed a turn since then; at equal instants the model of higher priority."""
        heads = [queue for queue in self._jobs.values() if queue]
        if not heads:
            return None
        job = min(heads, key=lambda queue: (queue[0].rank_ns, -queue[0].model.priority)).popleft()
        self._owed_ns[_key(job)] = job.rank_ns
        return job

    def give_back(self, job: Job) -> None:
        """A job that was taken could not be started: it waits again, before any newer one."""
        self._jobs[_key(job)].appendleft(job)

    def started(self, job: Job) -> None:
        """A job that was taken got its turn."""
        self._owed_ns.pop(_key(job), None)

    def heads(self) -> Iterator[Job]:
        """The first of each queue, without taking it."""
        return (queue[0] for queue in self._jobs.values() if queue)

    def drop(self, job: Job) -> None:
        """Take this head out."""
        self._jobs[_key(job)].popleft()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))


def _key(job: Job) -> tuple[str, str]:
    return job.model.name, job.camera_id
