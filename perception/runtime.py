"""Frames against deadlines: every frame in lock-step, or open loop at the camera's own pace.

`replay` waits for the model and loses nothing: it judges results. `run` never waits: each camera has a mailbox that
holds its newest frame, a frame that is replaced before it was started is SKIPPED, and latency counts from the instant
the frame was due, so a stall shows in every frame it delayed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from queue import SimpleQueue
from typing import Protocol

from perception.errors import SourceError
from perception.frame import Frame
from perception.latency import LatencyRecorder
from perception.pipeline import FrameResult, Pipeline, Status
from perception.results import Detections
from perception.sinks.sink import Sink
from perception.sources.source import FrameSource

WARM_UP_FRAMES = 3
_FRAMES_READY = 2
"""So many wait for the next pipeline that is free, so that none waits for a slower one before it."""


@dataclass(slots=True)
class Tally:
    """What happened so far: frames by camera and status, latencies by stage, objects found."""

    frames: Counter[tuple[str, str]] = field(default_factory=Counter)
    stages: dict[str, LatencyRecorder] = field(
        default_factory=lambda: {
            name: LatencyRecorder() for name in ("waited", "preprocess", "infer", "decode", "total")
        }
    )
    detections: int = 0

    def add(self, outcome: FrameResult) -> None:
        """Count one published frame."""
        self.frames[outcome.frame.camera_id, outcome.status.value] += 1
        if outcome.status is Status.SKIPPED:
            return
        timings = outcome.timings
        for name, recorder in self.stages.items():
            recorder.record(getattr(timings, f"{name}_ns"))
        if isinstance(outcome.result, Detections):
            self.detections += len(outcome.result)

    def count(self, status: Status) -> int:
        """Frames of one status over all cameras."""
        return sum(number for (_, name), number in self.frames.items() if name == status.value)

    def to_dict(self) -> dict[str, object]:
        """For `--json` and run logs."""
        cameras = sorted({camera for camera, _ in self.frames})
        return {
            "frames": {
                camera: {status.value: self.frames[camera, status.value] for status in Status} for camera in cameras
            },
            "latency_ms": {name: recorder.to_dict() for name, recorder in self.stages.items()},
            "detections": self.detections,
        }


OnFrame = Callable[[FrameResult], None]


class Steps(Protocol):
    """What a lock-step replay asks of a pipeline."""

    def step(self, frame: Frame) -> FrameResult:
        """Take one frame all the way."""


def replay(
    pipeline: Steps,
    source: FrameSource,
    *,
    sinks: Sequence[Sink],
    on_frame: OnFrame,
    limit: int | None = None,
    beside: Sequence[Steps] = (),
) -> Tally:
    """Take every frame through the pipeline, in order of capture, waiting for each.

    Args:
        pipeline: an open pipeline; warmed up on the first frame before anything counts.
        source: where frames come from.
        sinks: who is told; closed at the end, aborted on any failure.
        on_frame: called after each frame, for progress.
        limit: stop after so many frames; None takes all.
        beside: more pipelines of the same kind: the next frames are in work on them meanwhile. Two engines of one
            thread get more done than one of two threads, and leave no core idle while pictures are prepared.

    Raises:
        SourceError: a frame could not be read.
        EngineError: the engine failed.
        OutputError: a sink could not write.
    """
    tally = Tally()
    with _finished(sinks), closing(_stepped((pipeline, *beside), islice(source.frames(), limit))) as outcomes:
        for outcome in outcomes:
            _publish(outcome, tally, sinks, on_frame)
    return tally


def _stepped(pipelines: Sequence[Steps], frames: Iterator[Frame]) -> Generator[FrameResult]:
    """Outcomes in the order of the frames, of which as many are in work at once as there are pipelines.

    Which pipeline takes a frame depends on which is free; what comes out does not.
    """
    first = next(frames, None)
    if first is None:
        return
    for pipeline in pipelines:
        warm_up(pipeline, first)
    every = chain([first], frames)
    if len(pipelines) == 1:
        yield from map(pipelines[0].step, every)
        return
    free: SimpleQueue[Steps] = SimpleQueue()
    for pipeline in pipelines:
        free.put(pipeline)

    def step(frame: Frame) -> FrameResult:
        pipeline = free.get()
        try:
            return pipeline.step(frame)
        finally:
            free.put(pipeline)

    most = len(pipelines) + _FRAMES_READY
    working: deque[Future[FrameResult]] = deque()
    with ThreadPoolExecutor(len(pipelines), thread_name_prefix="replay") as pool:
        try:
            for frame in every:
                working.append(pool.submit(step, frame))
                if len(working) == most:
                    yield working.popleft().result()
        except SourceError:
            yield from (future.result() for future in working)
            raise
        yield from (future.result() for future in working)


def run(
    pipeline: Pipeline,
    source: FrameSource,
    *,
    sinks: Sequence[Sink],
    on_frame: OnFrame,
    speed: float = 1.0,
    limit: int | None = None,
) -> Tally:
    """Deliver frames as their cameras did and keep only the newest of each camera: open loop, nothing waits.

    Args:
        pipeline: an open pipeline; warmed up on the first frame before the clock starts.
        source: where frames come from.
        sinks: who is told; closed at the end, aborted on any failure.
        on_frame: called after each frame, skipped ones too.
        speed: recorded seconds that pass in one real second.
        limit: stop after so many frames were delivered; None takes all.

    Raises:
        SourceError: a frame could not be read.
        EngineError: the engine failed.
        OutputError: a sink could not write.
    """
    frames = islice(source.frames(), limit)
    first = next(frames, None)
    tally = Tally()
    with _finished(sinks):
        if first is None:
            return tally
        warm_up(pipeline, first)
        with _delivered(chain([first], frames), speed) as mailbox:
            while (delivery := mailbox.take()) is not None:
                outcome = _attend(pipeline, delivery)
                _publish(outcome, tally, sinks, on_frame)
    return tally


def warm_up(pipeline: Steps, frame: Frame) -> None:
    """Run a frame a few times uncounted: first calls allocate and plan."""
    for _ in range(WARM_UP_FRAMES):
        pipeline.step(frame)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A frame and the instant it was due, on `time.perf_counter_ns`; `displaced` when a newer one took its place."""

    frame: Frame
    due_ns: int
    displaced: bool = False


class Mailbox:
    """Holds the newest frame of each camera; a displaced frame is handed out too, marked: nobody loses count."""

    def __init__(self) -> None:
        self._waiting: dict[str, Delivery] = {}
        self._displaced: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._failure: BaseException | None = None

    def put(self, delivery: Delivery) -> None:
        """Deliver; an unread frame of the same camera is displaced, the newer one inherits its place in the queue."""
        with self._changed:
            older = self._waiting.get(delivery.frame.camera_id)
            if older is not None:
                self._displaced.append(replace(older, displaced=True))
            self._waiting[delivery.frame.camera_id] = delivery
            self._changed.notify()

    def finish(self, failure: BaseException | None = None) -> None:
        """No more deliveries; `failure` is raised to the taker after the last one."""
        with self._changed:
            self._finished, self._failure = True, failure
            self._changed.notify()

    def take(self) -> Delivery | None:
        """The next delivery, displaced ones first, then the camera that waits longest; None at the end.

        Raises:
            BaseException: the failure that ended the deliveries.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._displaced or self._waiting or self._finished)
            if self._displaced:
                return self._displaced.popleft()
            if self._waiting:
                return self._waiting.pop(next(iter(self._waiting)))
            if self._failure is not None:
                raise self._failure
            return None


@contextmanager
def _delivered(frames: Iterable[Frame], speed: float) -> Iterator[Mailbox]:
    """Deliver frames at their pace from a thread of its own while the block takes them."""
    mailbox, stopped = Mailbox(), threading.Event()
    feeder = threading.Thread(target=_deliver, args=(frames, mailbox, speed, stopped), name="deliver", daemon=True)
    feeder.start()
    try:
        yield mailbox
    finally:
        stopped.set()
        feeder.join()


def _deliver(frames: Iterable[Frame], mailbox: Mailbox, speed: float, stopped: threading.Event) -> None:
    first_captured_ns, started_ns = None, time.perf_counter_ns()
    try:
        for frame in frames:
            first_captured_ns = frame.captured_ns if first_captured_ns is None else first_captured_ns
            due_ns = started_ns + int((frame.captured_ns - first_captured_ns) / speed)
            if stopped.wait(max(0, due_ns - time.perf_counter_ns()) / 1e9):
                break
            mailbox.put(Delivery(frame, due_ns))
    except BaseException as failure:  # noqa: BLE001  (carried to the thread that takes)
        mailbox.finish(failure)
    else:
        mailbox.finish()


def _attend(pipeline: Pipeline, delivery: Delivery) -> FrameResult:
    if delivery.displaced:
        return pipeline.skip(delivery.frame, waited_ns=time.perf_counter_ns() - delivery.due_ns)
    return pipeline.step(delivery.frame, due_ns=delivery.due_ns)


def _publish(outcome: FrameResult, tally: Tally, sinks: Sequence[Sink], on_frame: OnFrame) -> None:
    tally.add(outcome)
    for sink in sinks:
        sink.write(outcome)
    on_frame(outcome)


@contextmanager
def _finished(sinks: Sequence[Sink]) -> Iterator[None]:
    """Close every sink when the block succeeds; abort every one that is still open when it fails or is interrupted."""
    try:
        yield
        for sink in sinks:
            sink.close()
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
