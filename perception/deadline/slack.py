"""A candidate package on the same frames as production, in slack only: started in slack, stopped when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from perception.deadline.crew import Crew
from perception.deadline.jobs import Arrival, Job
from perception.deadline.lane import LaneState
from perception.deadline.plan import ModelPlan
from perception.deadline.slots import Slots

_SPARE = 1.2
"""A shadow is started where the slack is so many times what its slowest recent frame took."""


@dataclass(slots=True)
class ShadowTally:
    """What became of the frames a shadow could have seen."""

    offered: int = 0
    run: int = 0
    shed: int = 0


class Slack:
    """Holds the newest frame a shadow could see, and lets it run where nothing else wants to."""

    def __init__(self, shadows: tuple[ModelPlan, ...], crew: Crew, slots: Slots) -> None:
        """Several shadows take turns, frame by frame."""
        self.tally = ShadowTally()
        self._shadows, self._crew, self._slots = shadows, crew, slots
        self._job: Job | None = None

    def offer(self, arrival: Arrival) -> None:
        """The newest frame waits for slack; what waited before is shed."""
        if not self._shadows or arrival.slot is None or not self._shadows[0].wants(arrival.frame.camera_id):
            return
        self.shed()
        self._slots.hold(arrival.slot)
        self._job = Job(self._shadows[self.tally.offered % len(self._shadows)], arrival)
        self.tally.offered += 1

    def shed(self) -> None:
        """Give up the frame that waits."""
        if self._job is not None and self._job.arrival.slot is not None:
            self.tally.shed += 1
            self._slots.release(self._job.arrival.slot)
        self._job = None

    def end(self) -> None:
        """Production wants to run: stop the shadow where it stands."""
        if self._crew.shadow is not None:
            self._crew.shadow.freeze()

    def use(self, slack_ns: int) -> None:
        """Nothing of production runs or waits, and the next frame is to be expected after `slack_ns`."""
        lane = self._crew.shadow
        if lane is None:
            return
        lane.thaw()
        job = self._job
        if job is None or lane.state is not LaneState.IDLE:
            return
        job.engine = self._crew.engines[job.model.name, 0]
        needed_ns = _SPARE * self._crew.times[True, job.engine].slowest_ns
        if slack_ns >= needed_ns and self._crew.give(lane, job):
            self.tally.run += 1
            self._job = None

    @property
    def is_busy(self) -> bool:
        """Whether a shadow works on a frame and is not stopped."""
        lane = self._crew.shadow
        return lane is not None and lane.state is LaneState.BUSY and not lane.is_frozen
