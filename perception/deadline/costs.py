"""What frames cost this process beside their engines, measured before the first of them counts.

A frame is read (decoded, converted), looked at, copied into shared memory, and booked by the loop from its arrival to
its publication. All of it is measured as CPU time on this source and this machine, so that others at work at that
moment do not matter; only how fast a camera can be read at most is measured by the clock. Cameras that run cannot be
read ahead: what this process spends on them while nothing else happens is what they cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.camera_health import CameraHealth
from perception.deadline.condition import Condition
from perception.deadline.crew import Crew
from perception.deadline.deliver import ALL_CAMERAS, Delivery, Pace, lanes_of
from perception.deadline.loop import DeadlineLoop, Parts
from perception.deadline.publish import Publisher
from perception.deadline.realtime import threads_switching_quickly
from perception.deadline.slots import Slots
from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.source import Camera, FrameSource

_READING_NS, _LONGEST_READ_NS, _REHEARSAL_NS, _LIVE_S = 500_000_000, 3_000_000_000, 300_000_000, 0.3
_FEWEST_READ, _MOST_READ, _LOOKED_AT = 16, 64, 12
_FEWEST_REHEARSED, _MOST_REHEARSED = 8, 64
_PICTURES = 4
"""At least so many different ones in turn: a picture seen again too soon is called frozen, a part of one torn."""

SizePx: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FrameCost:
    """What one frame of a camera costs before the loop hears of it, in nanoseconds.

    Attributes:
        period_ns: between two of its frames.
        reading_ns: CPU time of reading it, over all threads.
        apart_ns: from one frame to the next where nobody waits for anything but this camera; 0 where it is live.
        looking_ns: CPU time of looking at it and copying it into shared memory.
    """

    camera: str
    period_ns: int
    reading_ns: int = 0
    apart_ns: int = 0
    looking_ns: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the loop adds to one frame of one model, in nanoseconds.

    Attributes:
        booking_ns: CPU time of the loop's process, over all its threads.
        turn_ns: of that, what no other frame's can overlap with: never more than passed from one frame to the next.
        handing_over_ns: from the loop to an engine's process and back, beside the engine's own work.
    """

    booking_ns: int = 0
    turn_ns: int = 0
    handing_over_ns: int = 0

    @classmethod
    def of(cls, spent_ns: int, passed_ns: int, jobs: int, *, handing_over_ns: int = 0) -> Rehearsal:
        """What so many jobs came to: CPU time spent, and time passed by the clock."""
        booking_ns = max(0, spent_ns // jobs)
        return cls(booking_ns, min(booking_ns, passed_ns // jobs), handing_over_ns)


def frame_costs(
    source: FrameSource, periods_ns: Mapping[str, int], slots: Slots, *, is_live: bool
) -> tuple[FrameCost, ...]:
    """Read the first frames of every camera, one camera after another; what was read comes again in the run.

    Args:
        source: open, and not being read.
        periods_ns: camera → time between two of its frames, as they will be delivered.
        slots: shared memory, free.
        is_live: the cameras run, and cannot be read ahead.
    """
    sizes_px = {(camera.width_px, camera.height_px) for camera in source.cameras}
    looking_ns = {size_px: _looking_ns(size_px, slots) for size_px in sizes_px}
    reading = _live_costs(periods_ns) if is_live else _reading_costs(source)
    return tuple(
        FrameCost(
            camera.camera_id,
            periods_ns[camera.camera_id],
            *reading[camera.camera_id],
            looking_ns[camera.width_px, camera.height_px],
        )
        for camera in source.cameras
    )


def rehearsed(
    parts: Parts, cameras: tuple[Camera, ...], costs: tuple[FrameCost, ...], *, on_loop: Callable[[DeadlineLoop], None]
) -> Rehearsal:
    """Send pictures of noise through the loop and its engines, every one of them, to nobody.

    Args:
        parts: open; its delivery, publisher and condition are not touched.
        cameras: of the source.
        costs: theirs; looking at a picture is paid here too, and taken off.
        on_loop: told of the loop that does it, for engines that fail meanwhile.
    """
    with _own_times(parts.crew) as warm_ns:
        slowest_ns = max(1.0, *warm_ns.values())
        count = int(_REHEARSAL_NS * parts.plan.settings.lanes / slowest_ns)
        count = min(_MOST_REHEARSED, max(_FEWEST_REHEARSED, count))
        delivery = Delivery(_Noise(cameras), parts.slots, Pace(None), limit=count, patient=True)
        publisher = Publisher([], lambda _: None)
        plan = replace(parts.plan, models=parts.plan.production)
        own = replace(parts, plan=plan, delivery=delivery, condition=Condition(), publisher=publisher)
        loop = DeadlineLoop(own, pairer=None, keep_all=True, on_tick=lambda _: None)
        on_loop(loop)
        began_ns, clock_ns = time.process_time_ns(), time.perf_counter_ns()
        with threads_switching_quickly():
            loop.run()
        publisher.finish()
        spent_ns, passed_ns = time.process_time_ns() - began_ns, time.perf_counter_ns() - clock_ns
        spent_ns -= int(passed_ns * sum(cost.reading_ns / cost.period_ns for cost in costs if cost.apart_ns == 0))
        spent_ns -= sum(cost.looking_ns for cost in costs) * count // len(costs)
        jobs = max(1, sum(stream.total for stream in publisher.tally.streams.values()))
        return Rehearsal.of(spent_ns, passed_ns, jobs, handing_over_ns=_beyond_ns(parts.crew, warm_ns))


@contextmanager
def _own_times(crew: Crew) -> Iterator[dict[int, float]]:
    """Lend the crew without the times of its engines, and give these back; the medians of production are told."""
    kept = {key: tuple(times.recent_ns) for key, times in crew.times.items()}
    for times in crew.times.values():
        times.recent_ns.clear()
    yield {engine: median(recent) for (is_shadow, engine), recent in kept.items() if recent and not is_shadow}
    for key, recent in kept.items():
        crew.times[key].recent_ns.clear()
        crew.times[key].recent_ns.extend(recent)


def _beyond_ns(crew: Crew, warm_ns: Mapping[int, float]) -> int:
    """How much longer the engines' work took from here than in their own processes; of the worst engine."""
    seen_ns = {engine: crew.times[False, engine].recent_ns for engine in warm_ns}
    return int(max((median(times) - warm_ns[engine] for engine, times in seen_ns.items() if times), default=0))


def _reading_costs(source: FrameSource) -> dict[str, tuple[int, int]]:
    """CPU time of a frame and the time from frame to frame, by camera."""
    lanes = lanes_of(source)
    found = {name: _read(frames, _READING_NS // len(lanes)) for name, frames in lanes.items()}
    if ALL_CAMERAS not in found:
        return found
    reading_ns, apart_ns = found[ALL_CAMERAS]
    return {camera.camera_id: (reading_ns, apart_ns * len(source.cameras)) for camera in source.cameras}


def _read(frames: Iterator[Frame], within_ns: int) -> tuple[int, int]:
    """Means over the frames after the first, which opens the file: as many as a CPU time allows, and some at least.

    Read ahead as they are, a few of them may have been paid before the clock began: fewer would tell too little.
    """
    until_ns, count = time.perf_counter_ns() + _LONGEST_READ_NS, -1
    began = ended = (0, 0)
    try:
        for _ in frames:
            count += 1
            ended = time.process_time_ns(), time.perf_counter_ns()
            began = began if count else ended
            enough = count >= _FEWEST_READ and ended[0] - began[0] > within_ns
            if enough or count == _MOST_READ or ended[1] > until_ns:
                break
    except SourceError:
        pass  # the run meets it again, and tells
    finally:
        if (close := getattr(frames, "close", None)) is not None:
            close()
    return ((ended[0] - began[0]) // count, (ended[1] - began[1]) // count) if count > 0 else (0, 0)


def _live_costs(periods_ns: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What this process spends while its cameras run, shared out alike among their frames."""
    began_ns, clock_ns = time.process_time_ns(), time.perf_counter_ns()
    time.sleep(_LIVE_S)
    share = (time.process_time_ns() - began_ns) / (time.perf_counter_ns() - clock_ns)
    return {name: (int(share / len(periods_ns) * period_ns), 0) for name, period_ns in periods_ns.items()}


def _looking_ns(size_px: SizePx, slots: Slots) -> int:
    """Median CPU time of this thread."""
    health, pictures, spent_ns = CameraHealth(size_px=size_px), _noise(size_px), []
    for index in range(_LOOKED_AT):
        frame = Frame(pictures[index % _PICTURES], "", index, index, "")
        began_ns = time.thread_time_ns()
        health.observe(frame)
        slot = slots.put(frame.pixels)
        spent_ns.append(time.thread_time_ns() - began_ns)
        if slot is not None:
            slots.release(slot)
    return int(median(spent_ns))


def _noise(size_px: SizePx) -> list[NDArray[np.uint8]]:
    chance = np.random.default_rng(0)
    return [chance.integers(30, 220, (size_px[1], size_px[0], 3), np.uint8) for _ in range(_PICTURES)]


class _Noise:
    """Cameras that show noise, as fast as anybody takes it."""

    def __init__(self, cameras: tuple[Camera, ...]) -> None:
        self.cameras = cameras
        self._pictures = {
            size_px: _noise(size_px) for size_px in {(camera.width_px, camera.height_px) for camera in cameras}
        }
        self._of = {camera.camera_id: self._pictures[camera.width_px, camera.height_px] for camera in cameras}

    def camera_frames(self, camera_id: str) -> Iterator[Frame]:
        """See `Recording.camera_frames`. Without end."""
        pictures, number = self._of[camera_id], 0
        while True:
            yield Frame(pictures[number % _PICTURES], camera_id, number, time.perf_counter_ns(), "")
            number += 1

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return self.camera_frames(self.cameras[0].camera_id)

    def close(self) -> None:
        """Nothing to give back."""
