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
    """

    model: ModelPlan
    arrival: Arrival
    engine: int = 0
    causes: tuple[str, ...] = ()

    @property
    def due_ns(self) -> int:
        """By when its result must be usable."""
        return self.arrival.captured_ns + self.model.deadline_ns

    @property
    def camera_id(self) -> str:
        """Whose frame it is."""
        return self.arrival.frame.camera_id


class Waiting:
    """Jobs not yet started. With `keep_all` a newer frame displaces none."""

    def __init__(self, *, keep_all: bool = False) -> None:
        self._keep_all = keep_all
        self._jobs: dict[tuple[str, str], deque[Job]] = {}

    def put(self, job: Job) -> Job | None:
        """Add a job; returns the one of the same model and camera that it displaced."""
        queue = self._jobs.setdefault((job.model.name, job.camera_id), deque())
        displaced = queue.popleft() if queue and not self._keep_all else None
        queue.append(job)
        return displaced

    def take(self) -> Job | None:
        """The job that is due first; at equal instants the model of higher priority."""
        heads = [queue for queue in self._jobs.values() if queue]
        if not heads:
            return None
        return min(heads, key=lambda queue: (queue[0].due_ns, -queue[0].model.priority)).popleft()

    def heads(self) -> Iterator[Job]:
        """The first of each queue, without taking it."""
        return (queue[0] for queue in self._jobs.values() if queue)

    def drop(self, job: Job) -> None:
        """Take this head out."""
        self._jobs[job.model.name, job.camera_id].popleft()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))
