from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

import numpy as np
import pytest

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.drive import DriveSource
from perception.sources.prefetch import Prefetched
from perception.sources.source import Camera
from perception.sources.video import VideoSource
from tests.perception.sources.recordings import index_of, overwrite, packet_span, write_drive, write_video


class Gauge:
    """A recording that tells how far it was decoded and whether its files were given back."""

    def __init__(self, count: int, *, breaks_at: int | None = None) -> None:
        self.cameras = (Camera("front", 8, 8, 10.0, count),)
        self.decoded = self.open_files = 0
        self.closed = False
        self._count, self._breaks_at = count, breaks_at

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        self.open_files += 1
        try:
            for index in range(self._count):
                if index == self._breaks_at:
                    raise SourceError(f"front.mp4: frame {index} is damaged")
                self.decoded += 1
                yield Frame(np.zeros((8, 8, 3), np.uint8), camera_id, index, index * 100, str(index))
        finally:
            self.open_files -= 1

    def frames(self) -> Generator[Frame]:
        return self.camera_frames("front")

    def close(self) -> None:
        self.closed = True


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode ")]


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within two seconds."""
    until = time.monotonic() + 2
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    return condition()


def test_frames_are_decoded_ahead_of_the_reader_but_not_further_than_asked():
    gauge = Gauge(100)
    frames = Prefetched(gauge, frames_ahead=3).frames()
    next(frames)
    assert eventually(lambda: gauge.decoded == 5)  # one is read, three wait, one is in the thread's hand
    time.sleep(0.02)
    assert gauge.decoded == 5
    frames.close()


def test_the_same_frames_come_in_the_same_order(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30)
    assert [index_of(frame.pixels) for frame in Prefetched(VideoSource(path)).frames()] == list(range(30))
    assert decoding_threads() == []


def test_a_failure_arrives_after_the_frames_before_it():
    taken = []
    with pytest.raises(SourceError, match="frame 7 is damaged"):
        taken.extend(frame.frame_id for frame in iter(Prefetched(Gauge(10, breaks_at=7)).frames()))
    taken = []
    frames = Prefetched(Gauge(10, breaks_at=7)).frames()
    with pytest.raises(SourceError, match="frame 7 is damaged"):
        while True:
            taken.append(next(frames).frame_id)
    assert taken == list(range(7))
    assert decoding_threads() == []


def test_a_damaged_video_gives_the_frames_before_the_damage(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    start, size = packet_span(path, 30)
    overwrite(path, start, bytes(size))
    plain = VideoSource(path).frames()
    ahead = Prefetched(VideoSource(path)).frames()
    for frames in (plain, ahead):
        taken = []
        with pytest.raises(SourceError, match="cannot be decoded from frame"):
            while True:
                taken.append(next(frames).frame_id)
        assert taken == list(range(len(taken)))
        assert 25 <= len(taken) <= 30


def test_a_reader_that_stops_early_leaves_no_thread_and_no_open_file():
    gauge = Gauge(100)
    for frame in Prefetched(gauge).frames():
        if frame.frame_id == 2:
            break
    del frame
    assert eventually(lambda: decoding_threads() == [])
    assert gauge.open_files == 0


def test_a_reader_that_fails_leaves_no_thread(tmp_path):
    source = Prefetched(DriveSource(write_drive(tmp_path, {"front": range(0, 900, 30), "rear": range(1, 901, 30)})))

    def work() -> None:
        for frame in source.frames():
            if frame.frame_id == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    source.close()
    assert decoding_threads() == []


def test_closing_the_source_ends_every_thread_and_closes_the_recording():
    gauge = Gauge(100)
    source = Prefetched(gauge)
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert decoding_threads() == []
    assert gauge.closed
    assert gauge.open_files == 0
    with pytest.raises(RuntimeError, match="closed while its frames were being read"):
        next(frames)


def test_each_camera_is_decoded_by_a_thread_of_its_own(tmp_path):
    source = Prefetched(DriveSource(write_drive(tmp_path, {"front": range(0, 900, 30), "rear": range(1, 901, 30)})))
    frames = source.frames()
    next(frames)
    assert {thread.name for thread in decoding_threads()} == {"decode front", "decode rear"}
    assert [frame.camera_id for frame in frames][:3] == ["rear", "front", "rear"]
    assert decoding_threads() == []


def test_two_readers_of_one_source_do_not_disturb_each_other(tmp_path):
    source = Prefetched(VideoSource(write_video(tmp_path / "a.mp4", 20)))
    pairs = zip(source.frames(), source.frames(), strict=True)
    assert all(np.array_equal(first.pixels, second.pixels) for first, second in pairs)


def test_looking_no_frame_ahead_is_refused():
    with pytest.raises(ValueError, match="got 0, expected at least 1"):
        Prefetched(Gauge(1), frames_ahead=0)
