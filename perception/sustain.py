"""How much a machine can sustain: the highest frame rate, and the most cameras, with at most 0.1 % of misses.

Every trial is the deadline loop itself, open loop, over frames held in memory that come from all cameras at the same
instant, which is the hardest. A trial passes when at most `MISS_RATIO` of its frames missed; with fewer than 1000
frames that means none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from perception.deadline.plan import Plan
from perception.deadline.run import Options, run_plan
from perception.frame import Frame
from perception.sources.source import Camera, in_capture_order

MISS_RATIO = 0.001
MOST_CAMERAS = 32
RESOLUTION = 1.03
"""The rate is found to 3 %."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run.

    Attributes:
        frames: how many came, of all cameras.
        missed: how many of them were late or skipped.
    """

    cameras: int
    rate_hz: float
    frames: int
    missed: int

    @property
    def passed(self) -> bool:
        """Whether the machine sustained it."""
        return self.frames > 0 and self.missed <= MISS_RATIO * self.frames


class SteadySource:
    """Frames held in memory, in turn, from cameras that take them at the same instant."""

    def __init__(self, frames: Sequence[Frame], *, cameras: int, rate_hz: float, seconds: float) -> None:
        """Hold the frames.

        Args:
            frames: at least two different ones, all of one size.
            cameras: how many.
            rate_hz: of each.
            seconds: how long.
        """
        first, count = frames[0], max(1, round(seconds * rate_hz))
        self._frames, self._rate_hz = frames, rate_hz
        self.cameras = tuple(
            Camera(f"camera_{number}", first.width_px, first.height_px, rate_hz, count) for number in range(cameras)
        )

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([self.camera_frames(camera.camera_id) for camera in self.cameras])

    def camera_frames(self, camera_id: str) -> Iterator[Frame]:
        """See `Recording.camera_frames`."""
        for index in range(self.cameras[0].frame_count or 0):
            held = self._frames[index % len(self._frames)]
            yield Frame(held.pixels, camera_id, index, round(index * 1e9 / self._rate_hz), held.name)

    def close(self) -> None:
        """Nothing to give back."""


def highest_rate(
    plan: Plan, frames: Sequence[Frame], *, cameras: int, seconds: float, on_trial: Callable[[Trial], None]
) -> Trial | None:
    """The fastest rate that was sustained, to 3 %; None where not even 1 Hz was.

    Args:
        plan: what runs; frames are offered to all its models.
        frames: see `SteadySource`.
        cameras: how many at once.
        seconds: of each trial.
        on_trial: told of every trial.
    """
    below, above, best = 1.0, None, None
    rate_hz = 8.0
    while above is None or above / below > RESOLUTION:
        trial = attempt(plan, frames, cameras=cameras, rate_hz=rate_hz, seconds=seconds)
        on_trial(trial)
        if trial.passed:
            below, best = rate_hz, trial
        else:
            above = rate_hz
        if above is not None and above <= 1:
            return None
        rate_hz = below * 2 if above is None else (max(below, 1.0) * above) ** 0.5
    return best


def most_cameras(
    plan: Plan, frames: Sequence[Frame], *, rate_hz: float, seconds: float, on_trial: Callable[[Trial], None]
) -> Trial | None:
    """The trial with the most cameras, at most 32, that was sustained at a rate; None where not even one was."""
    best = None
    for cameras in range(1, MOST_CAMERAS + 1):
        trial = attempt(plan, frames, cameras=cameras, rate_hz=rate_hz, seconds=seconds)
        on_trial(trial)
        if not trial.passed:
            return best
        best = trial
    return best


def attempt(plan: Plan, frames: Sequence[Frame], *, cameras: int, rate_hz: float, seconds: float) -> Trial:
    """Run once and count."""
    source = SteadySource(frames, cameras=cameras, rate_hz=rate_hz, seconds=seconds)
    tally = run_plan(plan, source, options=Options(force=True)).tally
    streams = tally.streams.values()
    return Trial(cameras, rate_hz, sum(s.total for s in streams), sum(s.missed for s in streams))
