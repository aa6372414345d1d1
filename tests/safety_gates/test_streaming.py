"""Which result is in use at which instant, played by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_profiles.profile import load_profile
from perception.results import Detections
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.gates.gate import Unmeasured
from safety_gates.gates.streaming import StreamingGate, frames_before, newest_finished
from safety_gates.own_truth import own_truth
from safety_gates.result_log import FrameKey
from safety_gates.trial import Trial
from tests.safety_gates.builders import QUIET, package, spec, steady_drive

MS = 1_000_000


def _frames(*instants_ms, cameras=("front",)):
    order = [(at, camera) for at in instants_ms for camera in cameras]
    return [FrameKey(camera, i, str(i), 64, 64, at * MS) for i, (at, camera) in enumerate(order)]


def _newest(frames, *durations_ms):
    return newest_finished(frames, np.array(durations_ms) * MS).tolist()


@pytest.mark.parametrize(
    ("duration_ms", "newest"),
    [
        (0, [0, 1, 2, 3, 4]),  # done at the instant itself
        (9, [-1, 0, 1, 2, 3]),  # one frame old
        (10, [-1, 0, 1, 2, 3]),  # done exactly when the next is asked for
        (11, [-1, -1, 0, 1, 2]),  # just too late: two frames old
        (25, [-1, -1, -1, 0, 0]),  # frame 1 gave way to frame 2, which is done at 50
    ],
)
def test_a_slow_engine_answers_with_older_frames(duration_ms, newest):
    assert _newest(_frames(0, 10, 20, 30, 40), duration_ms) == newest


def test_an_unread_frame_gives_way_to_its_cameras_next():
    assert _newest(_frames(0, 10, 20, 30, 40, 50, 60), 35) == [-1, -1, -1, -1, 0, 0, 0]
    assert _newest(_frames(0, 10, 20, 30, 40, 50, 60, 70), 35)[-1] == 3


def test_one_stall_delays_the_frames_behind_it():
    assert _newest(_frames(0, 10, 20, 30, 40, 50), 5, 25, 5) == [-1, 0, 0, 0, 3, 4]


def test_two_cameras_share_the_engine_and_each_sees_its_own_results():
    frames = _frames(0, 10, 20, cameras=("left", "right"))
    assert _newest(frames, 4) == [-1, -1, 0, 1, 2, 3]
    assert _newest(frames, 8) == [-1, -1, 0, -1, 0, 1]


def test_without_frames_nothing_is_in_use():
    assert _newest([], 5) == []


def test_a_prompt_engine_answers_with_its_cameras_frame_before():
    assert frames_before(_frames(0, 10, 20, cameras=("left", "right"))).tolist() == [-1, -1, 0, 1, 2, 3]


def _seen(*boxes):
    corners = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4)
    return Detections(corners, np.array([score for _, score in boxes], np.float32), np.zeros(len(boxes), np.int64))


def test_what_later_frames_do_not_show_is_neither_right_nor_wrong():
    stays, moved, blink = (0, 0, 10, 10), (1, 0, 11, 10), (30, 30, 40, 40)
    results = [_seen((stays, 0.9), (blink, 0.9)), _seen((moved, 0.9)), _seen((moved, 0.9), (blink, 0.9)), _seen()]
    first, second, *last = own_truth(results, spec())
    assert [(each.box_px, each.ignore) for each in first.objects] == [(stays, False), (blink, True)]
    assert [(each.box_px, each.ignore) for each in second.objects] == [(moved, True)]
    assert last == [None, None]


@pytest.mark.parametrize(("rate_hz", "judged"), [(10.0, False), (19.9, False), (20.1, True), (30.0, True)])
def test_a_recording_of_far_fewer_frames_than_the_vehicles_cameras_give_is_not_judged(tmp_path, rate_hz, judged):
    recording, _ = steady_drive(tmp_path / "drive", frames=40, rate_hz=rate_hz)
    ours = replace(package(tmp_path / "package"), profile=load_profile("x86_cpu"))  # 30 frames a second
    found = StreamingGate().measure(Trial(Case(ours, recording), Shelf(tmp_path / "evidence"), QUIET))
    assert isinstance(found, Unmeasured) is not judged
    if isinstance(found, Unmeasured):
        assert "the profile's cameras have 30: its frames are older than any engine makes them" in found.why


def test_a_slow_recording_among_those_at_the_vehicles_rate_is_left_out(tmp_path):
    slow, _ = steady_drive(tmp_path / "slow", frames=10, rate_hz=10.0)
    fit, _ = steady_drive(tmp_path / "fit", frames=40, rate_hz=30.0)
    ours = replace(package(tmp_path / "package"), profile=load_profile("x86_cpu"))
    trial = Trial(Case(ours, slow, timing=(slow, fit)), Shelf(tmp_path / "evidence"), QUIET)
    found = StreamingGate().measure(trial)
    assert found.evidence.conditions.settings["recordings"] == [2]
    assert 35 <= found.evidence.samples <= 40
