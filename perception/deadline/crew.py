"""The engines' processes: opened, watched, replaced. Detects a hang within its stated time and a crash at once."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from selectors import EVENT_READ, DefaultSelector

from perception.deadline.condition import Condition, Level
from perception.deadline.jobs import Job
from perception.deadline.lane import Lane, LaneState, setup_file_of
from perception.deadline.plan import ModelPlan, Plan
from perception.deadline.slots import Slots
from perception.deadline.worker import Opened, Ready, Reply, Setup, Work
from perception.errors import EngineError
from perception.pipeline import WAITS

OPENING_NS = 120_000_000_000
_MINUTE_NS = 60_000_000_000
_RECENT = 32

Lost = Callable[[Job, str], None]


@dataclass(slots=True)
class EngineTimes:
    """How long whole steps of one engine took lately, in nanoseconds, from handing over to answer."""

    recent_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_RECENT))

    @property
    def fastest_ns(self) -> int:
        """The least that a frame must be expected to take."""
        return min(self.recent_ns, default=0)

    @property
    def slowest_ns(self) -> int:
        """What a frame must be expected to take at most."""
        return max(self.recent_ns, default=0)


class Crew:
    """Lanes that can run every production engine, and one that runs the shadows. One thread only."""

    def __init__(
        self, plan: Plan, slots: Slots, condition: Condition, *, pictures_px: tuple[tuple[int, int], ...], on_lost: Lost
    ) -> None:
        """Describe the processes; `open` starts them.

        Args:
            plan: models and settings.
            slots: shared frames.
            condition: is told what happens.
            pictures_px: widths and heights to warm up on, the largest first.
            on_lost: called with a job whose engine failed, and why.
        """
        self.selector = DefaultSelector()
        self.engines: dict[tuple[str, int], int] = {}
        self.times: dict[tuple[bool, int], EngineTimes] = defaultdict(EngineTimes)
        self.replaced: set[str] = set()
        self.restarts = 0
        self._plan, self._condition, self._on_lost = plan, condition, on_lost
        self._faults: dict[str, deque[int]] = defaultdict(deque)
        self._retry_ns: dict[str, int] = {}
        self._files = [
            setup_file_of(self._setup(plan.production, slots, pictures_px, idle=False)),
            setup_file_of(self._setup(plan.shadows, slots, pictures_px, idle=True)),
        ]
        self.lanes = [Lane(f"engine {number}", slots, self._files[0]) for number in range(plan.settings.lanes)]
        self.shadow = Lane("shadow", slots, self._files[1]) if plan.shadows else None

    @property
    def all_lanes(self) -> tuple[Lane, ...]:
        """Production lanes, then the shadow's."""
        return (*self.lanes, *([self.shadow] if self.shadow else []))

    def open(self) -> None:
        """Start every process and wait until all are open and warm.

        Raises:
            EngineError: one cannot open its engines.
        """
        for lane in self.all_lanes:
            self._start(lane)
        until_ns = time.perf_counter_ns() + OPENING_NS
        while opening := [lane for lane in self.all_lanes if lane.state is LaneState.OPENING]:
            if time.perf_counter_ns() > until_ns:
                raise EngineError(f"{opening[0].name}: not open after {OPENING_NS / 1e9:g} s; look at its package")
            for key, _ in self.selector.select(0.5):
                self._opened(key.data)

    def close(self) -> None:
        """End every process. A second call does nothing."""
        for lane in self.all_lanes:
            self._forget(lane)
            lane.kill()
        self.selector.close()
        while self._files:
            os.close(self._files.pop())

    def idle(self) -> Iterator[Lane]:
        """Production lanes without work."""
        return (lane for lane in self.lanes if lane.state is LaneState.IDLE)

    @property
    def is_working(self) -> bool:
        """Whether a production lane has work."""
        return any(lane.state is LaneState.BUSY for lane in self.lanes)

    @property
    def is_alive(self) -> bool:
        """Whether a production lane is open."""
        return any(lane.state in (LaneState.IDLE, LaneState.BUSY) for lane in self.lanes)

    def engine_of(self, model: ModelPlan, *, smaller: bool) -> int:
        """Which engine looks at this model's frames now."""
        if model.name in self.replaced and model.fallback is not None:
            return self.engines[model.name, model.fallback]
        chosen = model.smaller if smaller and model.smaller is not None else 0
        return self.engines[model.name, chosen]

    def give(self, lane: Lane, job: Job) -> bool:
        """Start a job on a lane; False where the lane turns out dead, and the job is where it was."""
        frame = job.arrival.frame
        if job.arrival.slot is None:
            raise ValueError(f"frame {frame.frame_id}: has no slot, expected one; publish it as skipped")
        return lane.give(Work(job.engine, job.arrival.slot, frame.height_px, frame.width_px), job)

    def take(self, lane: Lane) -> tuple[Job, Reply] | None:
        """What a readable lane has to say; None where it opened or died, which is dealt with here."""
        try:
            answer = lane.take()
        except EOFError:
            self.fail(lane, "engine process died")
            return None
        if isinstance(answer, Reply):
            job: Job = lane.job
            lane.job = None
            self.times[lane is self.shadow, job.engine].recent_ns.append(lane.served_ns)
            return job, answer
        self._welcome(lane, answer)
        return None

    def watch(self, now_ns: int) -> None:
        """Kill what hangs, start again what is due."""
        for lane in self.all_lanes:
            waited_ns = now_ns - lane.since_ns
            if lane.state is LaneState.BUSY and not lane.is_frozen and waited_ns > self._plan.hang_after_ns:
                self.fail(lane, f"engine hung: no answer after {waited_ns / 1e6:.0f} ms")
            elif lane.state is LaneState.OPENING and waited_ns > OPENING_NS:
                self.fail(lane, f"engine not open after {waited_ns / 1e9:.0f} s")
            elif (
                lane.state is LaneState.DEAD and lane is not self.shadow and now_ns >= self._retry_ns.get(lane.name, 0)
            ):
                self._start(lane)

    def fail(self, lane: Lane, why: str) -> None:
        """A lane failed: end it, tell whose frame was lost, start another process."""
        was, job, lane.job = lane.state, lane.job, None
        self._forget(lane)
        ending = lane.kill()
        sentence = f"{why} ({ending})"
        if lane is self.shadow:
            self._condition.report(lane.name, Level.DEGRADED, f"{sentence}; not started again: opening takes time")
            if job is not None:
                self._on_lost(job, sentence)
            return
        level = Level.DEGRADED if len(self.lanes) > 1 else Level.FAULT
        self._condition.report(lane.name, level, f"{sentence}; starting again")
        self.restarts += 1
        failed_to_open = was is LaneState.OPENING
        self._retry_ns[lane.name] = time.perf_counter_ns() + (2_000_000_000 if failed_to_open else 0)
        if job is not None:
            self._blame(job.model)
            self._on_lost(job, sentence)
        if not failed_to_open:
            self._start(lane)

    def note_failure(self, job: Job) -> None:
        """An engine answered that it failed: its process lives, the model is blamed."""
        self._blame(job.model)

    def _blame(self, model: ModelPlan) -> None:
        faults, now_ns = self._faults[model.name], time.perf_counter_ns()
        faults.append(now_ns)
        while faults[0] < now_ns - _MINUTE_NS:
            faults.popleft()
        if len(faults) > self._plan.settings.restarts and model.name not in self.replaced:
            self._replace(model, len(faults))

    def _replace(self, model: ModelPlan, faults: int) -> None:
        if model.fallback is None:
            self._condition.report(model.name, Level.FAULT, f"{faults} faults within a minute and no fallback package")
            return
        self.replaced.add(model.name)
        name = model.packages[model.fallback].manifest.name
        self._condition.report(
            model.name, Level.DEGRADED, f"replaced by its fallback {name} after {faults} faults within a minute"
        )

    def _start(self, lane: Lane) -> None:
        lane.start()
        if lane.connection is not None:
            self.selector.register(lane.connection, EVENT_READ, lane)

    def _forget(self, lane: Lane) -> None:
        if lane.connection is not None and lane.connection.fileno() in self.selector.get_map():
            self.selector.unregister(lane.connection)

    def _opened(self, lane: Lane) -> None:
        try:
            answer = lane.take()
        except EOFError as error:
            self._forget(lane)
            raise EngineError(
                f"{lane.name}: its process {lane.kill()} while opening; open the package with: tollgate bench"
            ) from error
        if isinstance(answer, str):
            raise EngineError(answer)
        self._welcome(lane, answer)

    def _welcome(self, lane: Lane, answer: Ready | Reply | str) -> None:
        if isinstance(answer, str):
            self.fail(lane, answer)
            return
        if isinstance(answer, Ready):
            for number, service_ns in enumerate(answer.service_ns):
                self.times[lane is self.shadow, number].recent_ns.extend(service_ns)
            self._condition.well(lane.name)

    def _setup(
        self, models: tuple[ModelPlan, ...], slots: Slots, pictures_px: tuple[tuple[int, int], ...], *, idle: bool
    ) -> Setup:
        opened: list[Opened] = []
        for model in models:
            for position, package in enumerate(model.packages):
                self.engines[model.name, position] = len(opened)
                threads = 1 if idle else self._plan.threads
                opened.append(Opened(package, threads, model.score, WAITS[self._plan.settings.spin]))
        wish = self._plan.wish
        if idle:
            wish = replace(wish, idle=True, fifo_priority=None, spin=False)
        return Setup(tuple(opened), wish, slots.slot_bytes, pictures_px)
