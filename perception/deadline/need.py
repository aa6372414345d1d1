"""What models, cameras and deadlines ask of a machine, and how much of it that is.

Every model on every camera is a task with a period, a relative deadline and a service time. The service time is a
bound, not a mean: the slowest whole step seen while warming up on this machine, or its median plus the spread that the
package measured when it was compiled, whichever is more. Then, with m engine processes:

- utilisation: the sum of service over period, over m, must stay at or below `MOST_UTILISATION`;
- response time: under non-preemptive earliest deadline first a job waits for jobs that are due no later than itself,
  and for later-due ones that were running when it came. While every deadline is met, those of another task fall due
  within one window as long as its own deadline, or one of them runs and none falls due there: at most ceil(D / T) of
  them either way. While it waits every engine is busy with these, so it answers within service + (their work) / m.
  Source: the demand argument of K. Jeffay, D. Stanat and C. Martel, RTSS 1991, and for several processors the workload
  argument of M. Bertogna, M. Cirinei and G. Lipari, ECRTS 2005.
- cores: the CPU time that reading every frame costs (decoding above all), looking at it, booking it in the loop and
  running its models, over all cores: a network on a GPU is of no use to who cannot decode so many pictures.
- reading: no camera is read faster than its decoder goes;
- the loop: one thread at a time, for as long as a frame takes by the clock where frames come as fast as they are taken.
  Its threads may burn far more CPU time than that while they wait for each other.

The bound is sufficient, not necessary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perception.deadline.costs import FrameCost
from perception.deadline.plan import Criticality

MOST_UTILISATION = 0.9


@dataclass(frozen=True, slots=True)
class Demand:
    """One model on one camera, as a task.

    Attributes:
        period_ns: between two of its frames.
        service_ns: a bound on one whole step.
        deadline_ns: from capture.
        cpu_ns: CPU time of one step, of the engine's process.
        response_ns: the bound; filled in by `bounded`.
    """

    model: str
    camera: str
    period_ns: int
    service_ns: int
    deadline_ns: int
    criticality: Criticality = Criticality.CRITICAL
    cpu_ns: int = 0
    response_ns: int = 0

    @property
    def is_met(self) -> bool:
        """Whether the bound keeps the deadline."""
        return self.response_ns <= self.deadline_ns


@dataclass(frozen=True, slots=True)
class Need:
    """Everything that is asked of a machine.

    Attributes:
        demands: of the engines.
        frames: what every camera's frames cost before an engine sees them.
        booking_ns: CPU time of the loop for one frame and model.
        turn_ns: how long the loop is taken for it.
        lanes: engine processes side by side.
        cores: of the machine.
        spinning: cores that engines keep busy while they wait.
    """

    demands: tuple[Demand, ...]
    frames: tuple[FrameCost, ...]
    booking_ns: int
    turn_ns: int
    lanes: int
    cores: float
    spinning: int = 0

    def shares(self) -> dict[str, float]:
        """How much of each thing that there is only so much of is used; 1 is all of it."""
        cores = self.cores_by_use()
        shares = {
            f"{self.lanes} engine process" + "es" * (self.lanes > 1): utilisation(self.demands, lanes=self.lanes),
            f"{self.cores:g} core" + "s" * (self.cores > 1): sum(cores.values()) / self.cores,
            "the loop": sum(self.turn_ns / demand.period_ns for demand in self.demands),
        }
        return shares | {f"reading {each.camera}": each.apart_ns / each.period_ns for each in self.frames}

    def cores_by_use(self) -> dict[str, float]:
        """How many cores each use keeps busy."""
        engines = sum(demand.cpu_ns / demand.period_ns for demand in self.demands)
        return {
            "reading": sum(each.reading_ns / each.period_ns for each in self.frames),
            "looking and copying": sum(each.looking_ns / each.period_ns for each in self.frames),
            "booking": sum(self.booking_ns / demand.period_ns for demand in self.demands),
            "engines": max(engines, self.spinning),
        }

    def slower(self, share: float) -> Need:
        """The same with only a share of the frames."""
        demands = [replace(each, period_ns=int(each.period_ns / share)) for each in self.demands]
        frames = [replace(each, period_ns=int(each.period_ns / share)) for each in self.frames]
        return replace(self, demands=tuple(demands), frames=tuple(frames))

    def only(self, cameras: Sequence[str]) -> Need:
        """The same with only some of the cameras."""
        demands = [each for each in self.demands if each.camera in cameras]
        frames = [each for each in self.frames if each.camera in cameras]
        return replace(self, demands=tuple(demands), frames=tuple(frames))

    @property
    def is_met(self) -> bool:
        """Whether nothing is used too much and every bound keeps its deadline."""
        met = all(demand.is_met for demand in bounded(self.demands, lanes=self.lanes))
        return met and all(share <= MOST_UTILISATION for share in self.shares().values())


def utilisation(demands: Sequence[Demand], *, lanes: int) -> float:
    """Share of all lanes' time that the demands take."""
    return sum(demand.service_ns / demand.period_ns for demand in demands) / lanes


def bounded(demands: Sequence[Demand], *, lanes: int) -> tuple[Demand, ...]:
    """The same demands with their response bounds."""
    return tuple(replace(demand, response_ns=_response_ns(demand, demands, lanes)) for demand in demands)


def _response_ns(mine: Demand, demands: Sequence[Demand], lanes: int) -> int:
    """See the module: service + work before it / lanes."""
    work_ns = sum(_jobs_due_within(mine.deadline_ns, each) * each.service_ns for each in demands)
    return mine.service_ns + (work_ns - mine.service_ns) // lanes


def _jobs_due_within(window_ns: int, task: Demand) -> int:
    """How many jobs of a task can fall due within a window; due dates lie a period apart."""
    return -(-window_ns // task.period_ns)
