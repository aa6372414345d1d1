"""Frames that come when they are due, whatever the engine does; on a clock that only the engine lets pass."""

from __future__ import annotations

import numpy as np
import pytest

from hw_profiles.profile import load_profile
from perception import pipeline as pipelines
from perception.engines import null
from perception.frame import Frame
from perception.pipeline import open_pipeline
from safety_gates import forecast, open_loop
from safety_gates.forecast import Forecast
from safety_gates.open_loop import Pace, play
from tests.mutation.bench import FakeClock
from tests.safety_gates.builders import null_package

PERIOD_NS = 10_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = FakeClock()
    for module in (open_loop, pipelines, null):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def played(tmp_path):
    """Which of so many frames an engine of so many periods takes, and how long each waited, in periods."""

    def play_them(frames, *, periods, cameras=1):
        service_ms = periods * PERIOD_NS / 1e6
        slow = null_package(tmp_path / "package", service_ms=service_ms, profile=load_profile("x86_cpu"))
        pictures = [Frame(np.zeros((8, 8, 3), np.uint8), "front", number, number, "") for number in range(frames)]
        with open_pipeline(slow) as pipeline:
            taken = play(pipeline, pictures, Pace(PERIOD_NS, cameras))
        return {number: row.waited_ns / PERIOD_NS for number, row in enumerate(taken) if row is not None}

    return play_them


def test_an_engine_that_keeps_pace_takes_every_frame_at_once(played):
    waited = played(20, periods=0.5)
    assert list(waited) == list(range(20))
    assert max(waited.values()) < 0.02


def test_a_slow_engine_takes_the_newest_frame_and_skips_those_it_overtook(played):
    waited = played(11, periods=2.5)
    assert list(waited) == [0, 2, 5, 7, 10]
    assert waited[2] == pytest.approx(0.5, abs=0.05)


def test_an_engine_that_is_a_little_slow_falls_behind_until_it_skips(played):
    waited = played(12, periods=1.2)
    skipped = set(range(12)) - set(waited)
    assert skipped
    assert max(waited.values()) < 1.05


def test_cameras_take_turns_and_none_is_starved(played):
    taken = list(played(40, periods=0.8, cameras=2))
    of_cameras = [sum(number % 2 == camera for number in taken) for camera in (0, 1)]
    assert len(taken) < 40
    assert min(of_cameras) > 0.4 * len(taken)


def test_the_time_left_is_learnt_from_what_was_measured(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(forecast.time, "monotonic", lambda: now_s[0])
    left = Forecast(["results", "re-used", "robustness"], {"robustness": 20})
    assert left.left() == ""
    now_s[0] = 10.0
    left.done("results", measured=True)
    assert left.left() == ", at most about 4 min to go"
    left.done("re-used", measured=False)
    assert left.left() == ", at most about 3 min to go"
    left.done("robustness", measured=True)
    assert left.left() == ""
