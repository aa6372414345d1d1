"""From a plan and a source to a finished run: opens everything, runs the loop, closes everything whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from hw_profiles.machine import read_machine
from perception.deadline.admission import Admission, admit, periods_ns
from perception.deadline.condition import Condition
from perception.deadline.costs import frame_costs, rehearsed
from perception.deadline.crew import Crew
from perception.deadline.deliver import Delivery, Pace
from perception.deadline.loop import DeadlineLoop, Parts
from perception.deadline.plan import Plan
from perception.deadline.publish import Publisher
from perception.deadline.realtime import Grant, ask, still_the_collector, threads_switching_quickly, wake_the_collector
from perception.deadline.slack import ShadowTally
from perception.deadline.slots import Slots
from perception.deadline.tally import RunTally
from perception.errors import AdmissionError
from perception.pipeline import FrameResult
from perception.sinks.sink import Sink
from perception.sources.source import FrameSource
from perception.sync import Pairer, PairingTally

_SPARE_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Report:
    """What a run was, from the prediction to what came of it.

    Attributes:
        grants: what the kernel granted to the loop, then to each engine process.
        shadow: None where the plan has none.
        pairing: None where nothing was paired.
        events: what changed, in order, with seconds since the start.
        ways: which way frames took, of each engine of each engine process.
    """

    admission: Admission
    tally: RunTally
    grants: tuple[tuple[str, Grant], ...]
    restarts: int
    shadow: ShadowTally | None
    pairing: PairingTally | None
    events: tuple[tuple[float, str], ...]
    shadows: frozenset[str] = frozenset()
    ways: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "admission": self.admission.to_dict(),
            **self.tally.to_dict(),
            "settings": [{"where": where, **asdict(grant)} for where, grant in self.grants],
            "ways": [{"where": where, "way": way} for where, way in self.ways],
            "restarts": self.restarts,
            "shadow": None if self.shadow is None else asdict(self.shadow),
            "pairing": None if self.pairing is None else self.pairing.to_dict(),
            "events": [{"seconds": seconds, "what": what} for seconds, what in self.events],
        }

    def sentences(self) -> Iterator[str]:
        """What the tables do not say, a line each."""
        yield f"admission: {self.admission.told}"
        for objection in self.admission.objections:
            yield f"forced although {objection}"
        for where, grant in self.grants:
            yield f"{where}: {grant}"
        for where, way in self.ways:
            yield f"{where}: {way}"
        if self.shadow is not None:
            seen = f"{self.shadow.run} of {self.shadow.offered} frames"
            yield f"shadow: saw {seen}, {self.shadow.shed} were shed for want of slack"
        if self.pairing is not None:
            pairing = self.pairing
            skew = f", largest skew {pairing.skew.max_ns / 1e6:.1f} ms" if pairing.skew.samples else ""
            yield f"sets: {pairing.complete} complete, {pairing.incomplete} incomplete, {pairing.skewed} skewed{skew}"
        for seconds, what in self.events:
            yield f"{seconds:8.1f} s  {what}"


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        speed: recorded seconds in one real second; None where the source is live.
        limit: deliver so many frames and stop.
        keep_all: let no newer frame displace an older one.
        force: run what admission refuses.
        on_frame: called with every outcome, from the publishing thread.
        on_open: called with the run while it runs, before the first frame: for screens and endpoints.
        on_tick: called about every 5 ms.
    """

    speed: float | None = 1.0
    limit: int | None = None
    keep_all: bool = False
    force: bool = False
    on_frame: Callable[[FrameResult], None] = lambda _: None
    on_open: Callable[[Running], None] = lambda _: None
    on_tick: Callable[[int], None] = lambda _: None


@dataclass(slots=True)
class Running:
    """A run while it runs, for those who watch it: reading is safe from any thread, writing is the loop's."""

    plan: Plan
    admission: Admission
    condition: Condition
    publisher: Publisher
    crew: Crew
    loop: DeadlineLoop
    cameras: tuple[str, ...]
    grants: tuple[tuple[str, Grant], ...] = field(default_factory=tuple)


def run_plan(plan: Plan, source: FrameSource, *, sinks: Sequence[Sink] = (), options: Options | None = None) -> Report:
    """Deliver a source's frames to a plan's models, and publish what becomes of each.

    Args:
        plan: models and settings.
        source: where frames come from; stays the caller's.
        sinks: who is told; closed at the end, aborted on any failure.
        options: how to run.

    Raises:
        AdmissionError: the plan does not fit this machine and was not forced.
        EngineError, PreflightError: an engine does not open.
        SourceError: a camera failed; what came before it and from the others was published.
        OutputError: a sink could not write.
    """
    options = options or Options()
    condition = Condition()
    publisher = Publisher(sinks, options.on_frame)
    try:
        report = _run(plan, source, publisher=publisher, condition=condition, options=options)
        publisher.finish()
    except BaseException:
        publisher.abort()
        raise
    return report


def _run(plan: Plan, source: FrameSource, *, publisher: Publisher, condition: Condition, options: Options) -> Report:
    with _opened(plan, source, publisher=publisher, condition=condition, options=options) as (running, delivery):
        if not running.admission.fits and not options.force:
            raise AdmissionError(running.admission.refusal())
        options.on_open(running)
        began_ns = time.perf_counter_ns()
        with threads_switching_quickly():
            running.loop.run()
        if delivery.failed:
            raise delivery.failed[0]
        pairing = running.loop.pairing
        events = [event for event in condition.events if event.at_ns >= began_ns]
        return Report(
            admission=running.admission,
            tally=publisher.tally,
            grants=running.grants,
            restarts=running.crew.restarts,
            shadow=running.loop.slack.tally if plan.shadows else None,
            pairing=pairing,
            events=tuple(((event.at_ns - began_ns) / 1e9, event.what) for event in events),
            shadows=frozenset(model.name for model in plan.shadows),
            ways=_ways(running.crew),
        )


@contextmanager
def _opened(
    plan: Plan, source: FrameSource, *, publisher: Publisher, condition: Condition, options: Options
) -> Iterator[tuple[Running, Delivery]]:
    """Every part, open; engines warm; the collector still, if the plan wants it."""
    slots = _slots_for(plan, source)
    sizes_px = {(camera.width_px, camera.height_px) for camera in source.cameras}
    largest_first = tuple(sorted(sizes_px, key=lambda size: (size[0] * size[1], size), reverse=True))
    delivery = Delivery(source, slots, Pace(options.speed), limit=options.limit, patient=options.keep_all)
    loops: list[DeadlineLoop] = []
    crew = Crew(plan, slots, condition, pictures_px=largest_first, on_lost=lambda job, why: loops[-1].lost(job, why))
    try:
        crew.open()
        grants = _granted(plan, crew)
        parts = Parts(plan, slots, delivery, crew, condition, publisher)
        periods = periods_ns(plan, source.cameras, speed=options.speed or 1.0)
        costs = frame_costs(source, periods, slots, is_live=options.speed is None)
        rehearsal = rehearsed(parts, source.cameras, costs, on_loop=loops.append)
        admission = admit(plan, crew, costs, rehearsal, cores=_cores(plan))
        loops.append(
            DeadlineLoop(parts, pairer=_pairer(plan, source), keep_all=options.keep_all, on_tick=options.on_tick)
        )
        cameras = tuple(camera.camera_id for camera in source.cameras)
        running = Running(plan, admission, condition, publisher, crew, loops[-1], cameras, grants)
        yield running, delivery
    finally:
        delivery.stop()
        crew.close()
        slots.close()
        wake_the_collector()


def _cores(plan: Plan) -> float:
    """How many cores loop and engines may use: those they are bound to, less where a control group grants less."""
    cpu = read_machine().cpu
    return min(len(plan.settings.cpus) or cpu.cores, cpu.quota_cores or cpu.cores)


def _granted(plan: Plan, crew: Crew) -> tuple[tuple[str, Grant], ...]:
    """Ask for the loop's own process, and collect what the engines were given."""
    grants = [("loop", grant) for grant in ask(plan.wish)]
    if not plan.settings.collect_garbage:
        grants.append(("loop", still_the_collector()))
    for lane in crew.all_lanes:
        grants += [(lane.name, grant) for grant in (lane.ready.grants if lane.ready else ())]
    return tuple(grants)


def _ways(crew: Crew) -> tuple[tuple[str, str], ...]:
    """Which way frames take, as the engine processes told when they were open."""
    return tuple((lane.name, way) for lane in crew.all_lanes if lane.ready for way in lane.ready.ways)


def _slots_for(plan: Plan, source: FrameSource) -> Slots:
    """Room for a frame that waits, one that is awaited and one in work, of each camera, and some more."""
    largest = max(camera.width_px * camera.height_px * 3 for camera in source.cameras)
    count = 3 * len(source.cameras) + plan.settings.lanes + len(plan.shadows) + _SPARE_SLOTS
    return Slots(count, largest)


def _pairer(plan: Plan, source: FrameSource) -> Pairer | None:
    settings = plan.settings
    if settings.pair_window_ms == 0 or len(source.cameras) < 2:
        return None
    names = [camera.camera_id for camera in source.cameras]
    return Pairer(
        names, window_ns=int(settings.pair_window_ms * 1e6), tolerance_ns=int(settings.pair_tolerance_ms * 1e6)
    )
