from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from perception.engines.null import NullEngine
from perception.errors import EngineError, SourceError
from perception.frame import Frame
from perception.pipeline import FrameResult, Pipeline, Status
from perception.results import Detections
from perception.runtime import Delivery, Mailbox, replay, run
from tests.perception.builders import SPEC_OF_NULL, ListSource, frames_of, null_engine_file


class KeepingSink:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.outcomes: list[FrameResult] = []
        self.ending = ""

    def write(self, outcome: FrameResult) -> None:
        self.outcomes.append(outcome)

    def close(self) -> None:
        self.ending = "closed"

    def abort(self) -> None:
        self.ending = "aborted"


class BreakingSource(ListSource):
    """Fails after its frames."""

    def frames(self) -> Iterator[Frame]:
        yield from super().frames()
        raise SourceError("front.mp4: frame 3 is damaged")


def pipeline_of(service_ms: float = 0.0, deadline_ms: float = 1000.0) -> Pipeline:
    engine = NullEngine.from_bytes(null_engine_file(service_ms=service_ms), threads=1)
    return Pipeline(SPEC_OF_NULL, engine, deadline_ns=int(deadline_ms * 1e6))


def test_replay_takes_every_frame_in_order_of_the_source() -> None:
    frames = frames_of("front", 5)
    sink = KeepingSink()
    tally = replay(pipeline_of(), ListSource(frames), sinks=[sink], on_frame=lambda _: None)
    assert [outcome.frame.frame_id for outcome in sink.outcomes] == [0, 1, 2, 3, 4]
    assert tally.frames == {("front", "ON_TIME"): 5}
    assert sink.ending == "closed"


def test_pipelines_beside_each_other_share_the_frames_and_keep_their_order() -> None:
    sink = KeepingSink()
    uneven = [pipeline_of(service_ms) for service_ms in (100.0, 0.0, 1.0)]
    replay(uneven[0], ListSource(frames_of("front", 11)), sinks=[sink], on_frame=lambda _: None, beside=uneven[1:])
    assert [outcome.frame.frame_id for outcome in sink.outcomes] == list(range(11))
    slow = [outcome.timings.infer_ns >= 100_000_000 for outcome in sink.outcomes]
    assert 1 <= sum(slow) < len(slow) / 3  # who is free takes the next: the slow one gets less than its turn


def test_a_source_that_breaks_loses_no_frame_that_was_in_work() -> None:
    sink, pair = KeepingSink(), (pipeline_of(), pipeline_of())
    with pytest.raises(SourceError, match="frame 3 is damaged"):
        replay(pair[0], BreakingSource(frames_of("front", 3)), sinks=[sink], on_frame=lambda _: None, beside=pair[1:])
    assert [outcome.frame.frame_id for outcome in sink.outcomes] == [0, 1, 2]
    assert sink.ending == "aborted"


def test_replay_stops_at_its_limit() -> None:
    tally = replay(pipeline_of(), ListSource(frames_of("front", 5)), sinks=[], on_frame=lambda _: None, limit=2)
    assert sum(tally.frames.values()) == 2


@pytest.mark.parametrize(("deadline_ms", "status"), [(0.0, Status.LATE), (1000.0, Status.ON_TIME)])
def test_a_frame_is_late_when_it_took_longer_than_the_deadline(deadline_ms: float, status: Status) -> None:
    outcome = pipeline_of(service_ms=1.0, deadline_ms=deadline_ms).step(frames_of("front", 1)[0])
    assert outcome.status is status
    assert outcome.timings.infer_ns >= 1_000_000


def test_waiting_counts_towards_the_deadline() -> None:
    outcome = pipeline_of(deadline_ms=5.0).step(frames_of("front", 1)[0], due_ns=0)
    assert outcome.status is Status.LATE
    assert outcome.timings.total_ns > outcome.timings.waited_ns > 0


def test_a_source_that_breaks_aborts_the_sinks_and_is_reported() -> None:
    sink = KeepingSink()
    with pytest.raises(SourceError, match="frame 3 is damaged"):
        replay(pipeline_of(), BreakingSource(frames_of("front", 3)), sinks=[sink], on_frame=lambda _: None)
    assert (len(sink.outcomes), sink.ending) == (3, "aborted")


def test_an_interrupt_aborts_the_sinks() -> None:
    sink = KeepingSink()

    def interrupt(_: FrameResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(pipeline_of(), ListSource(frames_of("front", 3)), sinks=[sink], on_frame=interrupt)
    assert sink.ending == "aborted"


def test_an_open_loop_run_that_keeps_up_skips_nothing() -> None:
    sink = KeepingSink()
    frames = frames_of("front", 10, period_ns=20_000_000)
    tally = run(pipeline_of(), ListSource(frames), sinks=[sink], on_frame=lambda _: None)
    assert tally.count(Status.SKIPPED) == 0
    assert [outcome.frame.frame_id for outcome in sink.outcomes] == list(range(10))


def test_an_overloaded_run_loses_frames_but_no_count() -> None:
    frames = frames_of("front", 40, period_ns=5_000_000)
    sink = KeepingSink()
    tally = run(pipeline_of(service_ms=20.0), ListSource(frames), sinks=[sink], on_frame=lambda _: None)
    done = [outcome.frame.frame_id for outcome in sink.outcomes if outcome.status is not Status.SKIPPED]
    assert sum(tally.frames.values()) == 40
    assert tally.count(Status.SKIPPED) >= 20
    assert done == sorted(done)
    assert done[-1] == 39
    assert all(outcome.result is None for outcome in sink.outcomes if outcome.status is Status.SKIPPED)


def test_every_camera_gets_its_turn_under_overload() -> None:
    frames = sorted(
        [*frames_of("left", 20, period_ns=5_000_000), *frames_of("right", 20, period_ns=5_000_000, offset_ns=1)],
        key=lambda frame: frame.captured_ns,
    )
    tally = run(pipeline_of(service_ms=10.0), ListSource(frames), sinks=[], on_frame=lambda _: None)
    done = {camera: 20 - tally.frames[camera, "SKIPPED"] for camera in ("left", "right")}
    assert abs(done["left"] - done["right"]) <= 2


def test_a_run_hands_on_what_broke_the_source_after_the_frames_before_it() -> None:
    sink = KeepingSink()
    source = BreakingSource(frames_of("front", 3, period_ns=30_000_000))
    with pytest.raises(SourceError, match="frame 3 is damaged"):
        run(pipeline_of(), source, sinks=[sink], on_frame=lambda _: None)
    assert (len(sink.outcomes), sink.ending) == (3, "aborted")
    assert not [thread for thread in threading.enumerate() if thread.name == "deliver"]


def test_a_newer_frame_displaces_the_unread_one_of_its_own_camera_only() -> None:
    mailbox = Mailbox()
    first, second = frames_of("front", 2)
    (other,) = frames_of("rear", 1)
    for frame in (first, other, second):
        mailbox.put(Delivery(frame, 0))
    mailbox.finish()
    taken = []
    while (delivery := mailbox.take()) is not None:
        taken.append((delivery.frame.camera_id, delivery.frame.frame_id, delivery.displaced))
    assert taken == [("front", 0, True), ("front", 1, False), ("rear", 0, False)]


def test_numbers_that_are_none_are_an_engine_fault_and_never_a_detection() -> None:
    engine = NullEngine.from_bytes(null_engine_file(), threads=1)
    engine.infer({"images": np.zeros((1, 3, 64, 64), np.float32)})["output"].fill(np.nan)
    with pytest.raises(EngineError, match="output"):
        Pipeline(SPEC_OF_NULL, engine, deadline_ns=1).step(frames_of("front", 1)[0])


def test_an_engine_that_finds_nothing_gives_an_empty_result() -> None:
    result = pipeline_of().step(frames_of("front", 1)[0]).result
    assert isinstance(result, Detections)
    assert len(result) == 0
