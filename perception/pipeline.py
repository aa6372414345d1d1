"""One frame through one engine: pixels to tensor, network, tensors to result, each stage timed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from hw_profiles.machine import read_machine
from hw_profiles.preflight import check
from hw_profiles.profile import Profile
from perception.engines.engine import Engine, Tensors, Wait
from perception.engines.frames import FrameWay, TakesFrames
from perception.engines.host_way import HostWay
from perception.engines.lending import Pixels
from perception.engines.table import open_engine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.package import EnginePackage
from perception.results import Result

WAITS: dict[bool | None, Wait] = {True: "spin", False: "blocking", None: "auto"}
"""What a profile or a plan says of spinning → how an engine's calls wait."""


class Status(str, Enum):
    """What became of a frame.

    ON_TIME, LATE: its own result, within the deadline or after it. SKIPPED: never started, no result. STALE: the
    result of an earlier frame is given again, with its age. DEGRADED: in time, but from a smaller engine or of a camera
    that is not well. FAULT: the engine failed, or the picture is not fit to be looked at.
    """

    ON_TIME = "ON_TIME"
    LATE = "LATE"
    SKIPPED = "SKIPPED"
    STALE = "STALE"
    DEGRADED = "DEGRADED"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Instants:
    """When things happened to a frame, in nanoseconds of the runtime's own steady clock; all 0 where nobody kept time.

    Attributes:
        captured_ns: the sensor took it; `Frame.captured_ns` is the same instant on the recording's clock.
        arrived_ns: it reached the runtime.
        started_ns: work on it began.
        finished_ns: its result was published.
    """

    captured_ns: int = 0
    arrived_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0

    @property
    def age_ns(self) -> int:
        """From capture to publication."""
        return self.finished_ns - self.captured_ns


@dataclass(frozen=True, slots=True)
class Timings:
    """Nanoseconds spent on one frame.

    Attributes:
        waited_ns: from the instant the frame was due until work on it began; 0 in lock-step replay.
        preprocess_ns: pixels → input tensor; where the engine takes frames itself, pixels → its memory.
        infer_ns: the engine alone; where it takes frames itself, all that it does for one.
        decode_ns: output tensors → result.
    """

    waited_ns: int
    preprocess_ns: int
    infer_ns: int
    decode_ns: int

    @property
    def total_ns(self) -> int:
        """From due to usable result."""
        return self.waited_ns + self.preprocess_ns + self.infer_ns + self.decode_ns


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What is published for one frame: the result with its identity, its cost and whether it came in time.

    Attributes:
        frame: the picture it belongs to.
        result: None where there is none: skipped, or a fault. Where the status is STALE, an earlier frame's.
        timings: what it cost.
        status: ON_TIME where `timings.total_ns` is at most `deadline_ns`.
        deadline_ns: the budget it was judged by.
        model: which of several models; empty where there is one.
        instants: when things happened to it.
        age_ns: from the capture of the frame the result belongs to until publication; 0 in lock-step.
        causes: why the status is what it is, where that is not plain: what the camera or the engine suffers from.
        set_id: number of the set of frames, one a camera, that were captured together; None where nothing is paired.
        skew_ns: its capture after the set's first.
    """

    frame: Frame
    result: Result | None
    timings: Timings
    status: Status
    deadline_ns: int
    model: str = ""
    instants: Instants = Instants()
    age_ns: int = 0
    causes: tuple[str, ...] = ()
    set_id: int | None = None
    skew_ns: int = 0


class Pipeline:
    """Runs frames through an engine as its ModelSpec says. One thread at a time; the engine stays the caller's."""

    def __init__(
        self, spec: ModelSpec, engine: Engine, *, deadline_ns: int, score_threshold: float | None = None
    ) -> None:
        """Check that spec and engine agree and allocate every buffer.

        Args:
            spec: how to feed and read the engine.
            engine: an open engine.
            deadline_ns: budget from due to usable result.
            score_threshold: report detections from this score on; None takes the spec's.

        Raises:
            SpecError: the spec contradicts the engine.
        """
        spec.check_against(engine.inputs, engine.outputs, where=spec.name)
        self.spec = spec
        self.engine = engine
        self._deadline_ns = deadline_ns
        threshold = spec.decoding.score_threshold if score_threshold is None else score_threshold
        self._host_way = HostWay(engine, spec, score_threshold=threshold)
        self._way: FrameWay = self._host_way
        if isinstance(engine, TakesFrames):
            self._way = engine.open_frames(spec, score_threshold=threshold)

    def step(self, frame: Frame, *, due_ns: int | None = None) -> FrameResult:
        """Take one frame all the way.

        Args:
            frame: the picture.
            due_ns: when it was due, on `time.perf_counter_ns`; None means now (lock-step).

        Raises:
            EngineError: the engine failed, or gave numbers that are none.
        """
        started_ns = time.perf_counter_ns()
        self._way.bring(frame.pixels)
        prepared_ns = time.perf_counter_ns()
        self._way.infer()
        inferred_ns = time.perf_counter_ns()
        result = self._way.result()
        decoded_ns = time.perf_counter_ns()
        waited_ns = 0 if due_ns is None else max(0, started_ns - due_ns)
        timings = Timings(waited_ns, prepared_ns - started_ns, inferred_ns - prepared_ns, decoded_ns - inferred_ns)
        status = Status.ON_TIME if timings.total_ns <= self._deadline_ns else Status.LATE
        return FrameResult(frame, result, timings, status, self._deadline_ns)

    def prepare(self, frame: Frame) -> Tensors:
        """The input tensors of a frame, prepared on the CPU; they belong to the pipeline and hold until the next."""
        return self._host_way.prepare(frame.pixels)

    @property
    def way(self) -> str:
        """Which way frames take, in words; what an engine chooses by itself is known after the first frame."""
        return self._way.told

    @property
    def lends(self) -> bool:
        """Whether `lend` may ever give a buffer."""
        return self._way is not self._host_way

    def lend(self, shape: tuple[int, ...]) -> Pixels | None:
        """See `FrameWay.lend`."""
        return self._way.lend(shape)

    def adopt(self, memory: Pixels) -> None:
        """See `FrameWay.adopt`."""
        self._way.adopt(memory)

    def skip(self, frame: Frame, *, waited_ns: int) -> FrameResult:
        """Publish that a frame was never started."""
        return FrameResult(frame, None, Timings(waited_ns, 0, 0, 0), Status.SKIPPED, self._deadline_ns)


@contextmanager
def open_pipeline(
    package: EnginePackage,
    *,
    score_threshold: float | None = None,
    threads: int | None = None,
    wait: Wait | None = None,
) -> Iterator[Pipeline]:
    """Open a package's engine on this machine, after preflight.

    Args:
        package: a verified package.
        score_threshold: report detections from this score on; None takes the spec's.
        threads: CPU threads; None takes the profile's.
        wait: how a call waits; None takes the profile's.

    Raises:
        PreflightError: this machine may not run the package, with every reason.
        EngineError, SpecError: the engine does not open or contradicts the spec.
    """
    check(package.profile, read_machine(), package.manifest.engine.requires)
    granted = threads or threads_of(package.profile)
    engine = open_engine(
        package.manifest.engine.kind, package.engine_bytes, threads=granted, wait=wait or wait_of(package.profile)
    )
    deadline_ns = int(package.profile.deadline_ms * 1e6)
    try:
        yield Pipeline(package.spec, engine, deadline_ns=deadline_ns, score_threshold=score_threshold)
    finally:
        engine.close()


def wait_of(profile: Profile) -> Wait:
    """How calls wait by the profile's `runtime.spin`."""
    return WAITS[None if profile.runtime is None else profile.runtime.spin]


def threads_of(profile: Profile) -> int:
    """CPU threads a profile grants: its own number, else every core this process may use."""
    return profile.threads or len(os.sched_getaffinity(0))
