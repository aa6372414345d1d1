"""The loop: arrivals become jobs, jobs go to engines by earliest deadline, answers are judged and published.

One thread at a time does it and never waits for an engine, a camera or a disk: engines live in processes (`crew`),
sinks are written by a thread (`publish`). The threads of the cameras (`deliver`) start engines themselves, the loop's
own thread hears them and keeps watch. A frame that cannot make its deadline any more is not started. Source:
non-preemptive earliest deadline first, K. Jeffay, D. Stanat and C. Martel, On non-preemptive scheduling of periodic and
sporadic tasks, RTSS 1991.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from perception.camera_health import UNFIT
from perception.deadline.condition import Condition, Level
from perception.deadline.crew import Crew
from perception.deadline.deliver import Delivery
from perception.deadline.jobs import Arrival, Job, Waiting
from perception.deadline.judge import Judge
from perception.deadline.ladder import Ladder
from perception.deadline.lane import Lane
from perception.deadline.plan import Criticality, ModelPlan, Plan, Step
from perception.deadline.publish import Publisher
from perception.deadline.slack import Slack
from perception.deadline.slots import Slots
from perception.sync import Pairer, PairingTally

TICK_NS = 5_000_000
PROBE_NS = 1_000_000_000
"""A model whose every frame was refused for want of time is given one so often, lest an old estimate starve it."""

Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with; owned by whoever opened them."""

    plan: Plan
    slots: Slots
    delivery: Delivery
    crew: Crew
    condition: Condition
    publisher: Publisher


class DeadlineLoop:
    """See the module. `run` returns when every frame that came has been published."""

    def __init__(self, parts: Parts, *, pairer: Pairer | None, keep_all: bool = False, on_tick: Tick) -> None:
        """Take the parts.

        Args:
            parts: all open.
            pairer: numbers frames that belong together; None pairs nothing.
            keep_all: displace no frame: for recordings, where every frame is wanted however late.
            on_tick: called about every 5 ms with the time.
        """
        self.slack = Slack(parts.plan.shadows, parts.crew, parts.slots)
        self.ladder = Ladder(_useful(parts.plan))
        self.waiting = Waiting(keep_all=keep_all)
        self._parts, self._pairer, self._on_tick = parts, pairer, on_tick
        self._judge = Judge(parts.publisher.publish, self.ladder)
        self._keep_all = keep_all
        self._periods: dict[tuple[str, str], int] = {}
        self._started_ns: dict[str, int] = {}
        self._captures: dict[str, deque[int]] = {name: deque(maxlen=9) for name in parts.delivery.health}
        self._ticked_ns = 0
        self._deciding = threading.Lock()

    def run(self) -> None:
        """Run until the cameras end.

        Raises:
            BaseException: what a callback raised.
        """
        parts = self._parts
        parts.delivery.start(self._arrived)
        while not self._is_over():
            heard = parts.crew.selector.select(TICK_NS / 1e9)
            with self._deciding:
                for key, _ in heard:
                    self._hear(key.data)
                now_ns = self._decide()
                if now_ns - self._ticked_ns >= TICK_NS:
                    self._tick(now_ns)
        self._tick(time.perf_counter_ns())

    @property
    def pairing(self) -> PairingTally | None:
        """How well the cameras belonged together; None where nothing is paired."""
        return None if self._pairer is None else self._pairer.close()

    def lost(self, job: Job, why: str) -> None:
        """A job's engine failed while it worked on it."""
        if job.model.criticality is Criticality.SHADOW:
            self._parts.condition.note(f"{job.model.name}: {why}")
        else:
            self._judge.fault(job, why)
        self._release(job.arrival)

    def _arrived(self, arrival: Arrival) -> None:
        """From the thread of the frame's camera."""
        with self._deciding:
            self._accept(arrival)
            self._decide()

    def _decide(self) -> int:
        """Start what can be started; returns the time it was decided by."""
        now_ns = time.perf_counter_ns()
        self._start_jobs(now_ns)
        self._use_slack(now_ns)
        return now_ns

    def _accept(self, arrival: Arrival) -> None:
        frame = arrival.frame
        self._captures[frame.camera_id].append(arrival.captured_ns)
        if self._pairer is not None:
            arrival.set_id, arrival.skew_ns = self._pairer.place(frame.camera_id, frame.captured_ns)
        self._report_camera(arrival)
        for model in self._parts.plan.production:
            if model.wants(frame.camera_id) and self._is_turn(model, arrival):
                self._enlist(Job(model, arrival))
        self.slack.offer(arrival)
        self._release(arrival)

    def _enlist(self, job: Job) -> None:
        """Wait for an engine, or publish why not."""
        arrival = job.arrival
        if arrival.ailments:
            job.causes = tuple(sorted(ailment.value for ailment in arrival.ailments))
        if arrival.ailments & UNFIT:
            self._judge.fault(job, None)
        elif arrival.slot is None:
            self._judge.skip(job, "no room for its pixels")
        elif self._is_off(job.camera_id):
            self._judge.skip(job, "camera off: overload")
        else:
            self._parts.slots.hold(arrival.slot)
            if (displaced := self.waiting.put(job)) is not None:
                self._judge.miss(displaced, "displaced by a newer frame")
                self._release(displaced.arrival)

    def _start_jobs(self, now_ns: int) -> None:
        crew = self._parts.crew
        for lane in tuple(crew.idle()):
            job = self._next_job(now_ns)
            if job is None:
                return
            self.slack.end()
            if not crew.give(lane, job):  # its process died: the loop's thread hears of it and starts another
                self.waiting.give_back(job)
                return
            self._started_ns[job.model.name] = now_ns
            self.waiting.started(job)

    def _next_job(self, now_ns: int) -> Job | None:
        """The job due first that can still make it; those that cannot are published as missed."""
        crew = self._parts.crew
        smaller = Step.SMALLER_ENGINES in self.ladder.given_up
        while (job := self.waiting.take()) is not None:
            job.engine = crew.engine_of(job.model, smaller=smaller and job.model.criticality is not Criticality.SHADOW)
            if job.engine != crew.engines[job.model.name, 0]:
                why = self._why_other_engine(job.model)
                job.causes = job.causes if why in job.causes else (*job.causes, why)
            fastest_ns = crew.times[False, job.engine].fastest_ns
            if self._keep_all or now_ns + fastest_ns <= job.due_ns or self._is_starved(job.model, now_ns):
                return job
            self._judge.miss(job, "could not make its deadline any more")
            self._release(job.arrival)
        return None

    def _is_starved(self, model: ModelPlan, now_ns: int) -> bool:
        return now_ns - self._started_ns.setdefault(model.name, now_ns) > PROBE_NS

    def _why_other_engine(self, model: ModelPlan) -> str:
        return "fallback engine" if model.name in self._parts.crew.replaced else "smaller engine: overload"

    def _hear(self, lane: Lane) -> None:
        crew = self._parts.crew
        answered = crew.take(lane)
        if answered is None:
            return
        job, reply = answered
        if reply.failure:
            crew.note_failure(job)
            self.lost(job, reply.failure)
            return
        self._judge.done(job, reply, is_shadow=lane is crew.shadow)
        self._release(job.arrival)

    def _use_slack(self, now_ns: int) -> None:
        """Let a shadow go on: nothing of production works or waits, and nothing was given up."""
        idle = not self._parts.crew.is_working and not len(self.waiting)
        if idle and Step.DROP_SHADOW not in self.ladder.given_up:
            self.slack.use(self._next_arrival_ns() - now_ns)

    def _next_arrival_ns(self) -> int:
        """When the next frame of any camera is to be expected, by their rates so far; far away where none is known."""
        expected = [
            times[-1] + (times[-1] - times[0]) // (len(times) - 1)
            for times in self._captures.values()
            if len(times) > 1
        ]
        return min(expected, default=0)

    def _is_turn(self, model: ModelPlan, arrival: Arrival) -> bool:
        """Whether a model that does not look at every frame looks at this one."""
        halved = Step.HALVE_RATES in self.ladder.given_up and model.criticality is Criticality.NORMAL
        period_ns = model.period_ns
        if halved:
            times = self._captures[arrival.frame.camera_id]
            usual_ns = (times[-1] - times[0]) // (len(times) - 1) if len(times) > 1 else 0
            period_ns = 2 * max(period_ns, usual_ns)
        if period_ns == 0:
            return True
        key = (model.name, arrival.frame.camera_id)
        due_ns = self._periods.get(key, arrival.captured_ns)
        if arrival.captured_ns < due_ns - period_ns // 4:
            return False
        self._periods[key] = max(due_ns, arrival.captured_ns - period_ns) + period_ns
        return True

    def _is_off(self, camera_id: str) -> bool:
        return Step.CAMERAS_OFF in self.ladder.given_up and camera_id in self._parts.plan.settings.cameras_off

    def _report_camera(self, arrival: Arrival) -> None:
        about = f"camera {arrival.frame.camera_id}"
        if not arrival.ailments:
            self._parts.condition.well(about)
            return
        level = Level.FAULT if arrival.ailments & UNFIT and len(self._captures) == 1 else Level.DEGRADED
        self._parts.condition.report(about, level, ", ".join(sorted(ailment.value for ailment in arrival.ailments)))

    def _tick(self, now_ns: int) -> None:
        parts = self._parts
        self._ticked_ns = now_ns
        parts.publisher.check()
        parts.crew.watch(now_ns)
        if not parts.crew.is_alive:
            self._give_up_waiting(now_ns)
        if (moved := self.ladder.move(now_ns)) is not None:
            self._report_overload(moved)
        self._report_output()
        self._report_silence(now_ns)
        self._report_ends()
        self._on_tick(now_ns)

    def _report_overload(self, moved: str) -> None:
        condition = self._parts.condition
        if self.ladder.given_up:
            condition.report("overload", Level.DEGRADED, moved)
        else:
            condition.note(moved)
            condition.well("overload")

    def _report_output(self) -> None:
        parts = self._parts
        if parts.publisher.struggling:
            parts.condition.report("output", Level.DEGRADED, "a sink cannot write")
        else:
            parts.condition.well("output")

    def _report_silence(self, now_ns: int) -> None:
        parts = self._parts
        for name in self._captures:
            if parts.delivery.is_overdue(name, now_ns):
                parts.condition.report(f"camera {name}", Level.DEGRADED, "gap: no frame for more than 1.5 periods")

    def _report_ends(self) -> None:
        parts = self._parts
        while parts.delivery.failures:
            name, failure = parts.delivery.failures.popleft()
            parts.delivery.failed.append(failure)
            parts.condition.report(f"camera {name}", Level.FAULT, f"ended: {failure}")

    def _give_up_waiting(self, now_ns: int) -> None:
        """No engine is open: what is past its deadline waits in vain."""
        for job in [job for job in self.waiting.heads() if job.due_ns < now_ns]:
            self.waiting.drop(job)
            self._judge.fault(job, "no engine was open in time")
            self._release(job.arrival)

    def _release(self, arrival: Arrival) -> None:
        if arrival.slot is not None:
            self._parts.slots.release(arrival.slot)

    def _is_over(self) -> bool:
        """Whether every frame came and was answered, a shadow's last one too."""
        if not self._parts.delivery.finished:
            return False
        with self._deciding:
            if self._parts.crew.is_working or len(self.waiting):
                return False
            self.slack.shed()
            return not self.slack.is_busy


def _useful(plan: Plan) -> tuple[Step, ...]:
    """The rungs of the plan's ladder that give something up in this plan."""
    useful = {
        Step.DROP_SHADOW: bool(plan.shadows),
        Step.HALVE_RATES: any(model.criticality is Criticality.NORMAL for model in plan.production),
        Step.SMALLER_ENGINES: any(model.smaller is not None for model in plan.production),
        Step.CAMERAS_OFF: bool(plan.settings.cameras_off),
    }
    return tuple(step for step in plan.settings.ladder if useful[step])
