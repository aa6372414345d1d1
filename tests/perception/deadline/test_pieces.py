"""The parts of the deadline loop that need no process."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.profile import Profile, RuntimeSettings, load_profile
from perception.deadline.condition import Condition, Level
from perception.deadline.jobs import Arrival, Job, Waiting
from perception.deadline.ladder import Ladder, LadderLimits
from perception.deadline.need import MOST_UTILISATION, Demand, bounded, utilisation
from perception.deadline.plan import Criticality, ModelPlan, Settings, Step, load_plan
from perception.deadline.realtime import RealtimeWish, ask, spinning
from perception.deadline.slots import SeenSlots, Slots
from perception.deadline.worker import _warmed, receive, send
from perception.errors import SpecError
from perception.frame import Frame
from perception.pipeline import open_pipeline
from perception.results import Detections
from perception.runtime import WARM_UP_FRAMES
from perception.sync import Pairer
from tests.perception.builders import frames_of, null_package

MS = 1_000_000
S = 1_000 * MS


def job_of(model: ModelPlan, camera: str, captured_ms: int) -> Job:
    frame = replace(frames_of(camera, 1)[0], captured_ns=captured_ms * MS)
    return Job(model, Arrival(frame, None, captured_ms * MS, captured_ms * MS, frozenset()))


def model_of(name: str, deadline_ms: int, priority: int = 0) -> ModelPlan:
    return ModelPlan(name, (), deadline_ms * MS, priority=priority)


def test_the_frame_that_is_due_first_goes_first_whoever_came_first() -> None:
    waiting, slow, quick = Waiting(), model_of("slow", 100), model_of("quick", 20)
    for model, camera, captured_ms in ((slow, "front", 0), (quick, "front", 50), (quick, "rear", 40)):
        assert waiting.put(job_of(model, camera, captured_ms)) is None
    order = [(job.model.name, job.camera_id) for job in iter(waiting.take, None)]
    assert order == [("quick", "rear"), ("quick", "front"), ("slow", "front")]
    assert waiting.take() is None


def test_at_the_same_instant_the_model_of_higher_priority_goes_first() -> None:
    waiting = Waiting()
    waiting.put(job_of(model_of("signs", 50, priority=1), "front", 0))
    waiting.put(job_of(model_of("people", 50, priority=9), "front", 0))
    assert [job.model.name for job in iter(waiting.take, None)] == ["people", "signs"]


def test_a_newer_frame_displaces_the_waiting_one_of_its_model_and_camera_only() -> None:
    waiting, model = Waiting(), model_of("people", 50)
    first, other, newer = (job_of(model, camera, at) for camera, at in (("front", 0), ("rear", 0), ("front", 30)))
    assert [waiting.put(job) for job in (first, other, newer)] == [None, None, first]
    assert len(waiting) == 2


def test_under_overload_the_camera_that_is_always_second_gets_its_turn_too() -> None:
    waiting, model, served = Waiting(), model_of("people", 50), []
    for at in range(0, 1000, 10):
        waiting.put(job_of(model, "first", at))
        waiting.put(job_of(model, "second", at + 1))
        if at % 20 == 0:  # one of four frames can be served
            job = waiting.take()
            waiting.started(job)
            served.append(job.camera_id)
    assert served.count("first") == served.count("second") == 25


def test_where_all_are_kept_none_is_displaced_and_they_come_in_order() -> None:
    waiting, model = Waiting(keep_all=True), model_of("people", 50)
    jobs = [job_of(model, "front", at) for at in (0, 30, 60)]
    assert [waiting.put(job) for job in jobs] == [None, None, None]
    assert list(iter(waiting.take, None)) == jobs


LIMITS = LadderLimits(window_ns=S, down_share=0.05, calm_ns=2 * S, longest_calm_ns=8 * S)


def test_a_job_that_could_not_be_started_waits_again_before_newer_ones() -> None:
    waiting, model = Waiting(keep_all=True), model_of("people", 50)
    for at in (0, 30):
        waiting.put(job_of(model, "front", at))
    first = waiting.take()
    waiting.give_back(first)
    assert waiting.take() is first


@pytest.mark.parametrize("size", [0, 65_000, 3_000_000])
def test_a_message_arrives_whole_however_long_it_is(size: int) -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        sender = threading.Thread(target=send, args=(mine, (size, b"x" * size)))
        sender.start()
        assert receive(theirs) == (size, b"x" * size)
        sender.join()


@pytest.mark.parametrize("count", [0, 3])
def test_detections_travel_as_they_are(count: int) -> None:
    boxes_px = np.arange(4 * count, dtype=np.float32).reshape(count, 4)
    sent = Detections(boxes_px, np.linspace(1, 0, count, dtype=np.float32), np.arange(count, dtype=np.int32))
    got = pickle.loads(pickle.dumps(sent))
    for name in ("boxes_px", "scores", "class_ids"):
        before, after = getattr(sent, name), getattr(got, name)
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert np.array_equal(after, before)


@pytest.mark.parametrize("part", [0, 3, 20])
def test_a_message_that_ends_early_is_the_end(part: int) -> None:
    mine, theirs = socket.socketpair()
    with theirs:
        with mine:
            mine.sendall((100).to_bytes(4, sys.byteorder)[:part] + b"x" * max(0, part - 4))
        with pytest.raises(EOFError):
            receive(theirs)


def test_an_engine_may_spin_only_where_another_core_gives_it_work() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        alone = spinning()
    finally:
        os.sched_setaffinity(0, before)
    assert (alone.granted, str(alone)) == (
        False,
        "waiting spinning: refused (one core only; give it two or more in cpus)",
    )


def pass_time(ladder: Ladder, start_ns: int, seconds: float, *, missed: bool) -> tuple[int, list[str]]:
    """100 frames a second, all missed or none; returns the time it is then and what the ladder said."""
    said, now_ns = [], start_ns
    for _ in range(int(seconds * 100)):
        now_ns += 10 * MS
        ladder.note(now_ns, missed=missed)
        if (moved := ladder.move(now_ns)) is not None:
            said.append(moved)
    return now_ns, said


def test_under_overload_one_step_is_given_up_a_window_and_taken_back_in_reverse_after_calm() -> None:
    ladder = Ladder((Step.DROP_SHADOW, Step.HALVE_RATES), LIMITS)
    now_ns, said = pass_time(ladder, 0, 2.5, missed=True)
    assert ladder.given_up == {Step.DROP_SHADOW, Step.HALVE_RATES}
    assert ["drop_shadow" in said[0], "halve_rates" in said[1]] == [True, True]
    now_ns, said = pass_time(ladder, now_ns, 1.5, missed=False)
    assert (said, len(ladder.given_up)) == ([], 2)
    _, said = pass_time(ladder, now_ns, 4, missed=False)
    assert ladder.given_up == frozenset()
    assert [line.split(" (")[0] for line in said] == ["took back: halve_rates", "took back: drop_shadow"]


def test_a_relapse_doubles_the_calm_that_is_asked_for_so_that_nothing_swings() -> None:
    ladder = Ladder((Step.HALVE_RATES,), LIMITS)
    now_ns, _ = pass_time(ladder, 0, 1.5, missed=True)
    taken_back_after = []
    for _ in range(4):
        began_ns = now_ns
        while ladder.given_up:
            now_ns, _ = pass_time(ladder, now_ns, 0.1, missed=False)
        taken_back_after.append((now_ns - began_ns) / S)
        now_ns, _ = pass_time(ladder, now_ns, 1.5, missed=True)
    assert taken_back_after == sorted(taken_back_after)
    assert taken_back_after[-1] > 2 * taken_back_after[0]


def test_few_misses_give_up_nothing() -> None:
    ladder, now_ns = Ladder((Step.HALVE_RATES,), LIMITS), 0
    for index in range(1000):
        now_ns += 10 * MS
        ladder.note(now_ns, missed=index % 25 == 0)
        assert ladder.move(now_ns) is None


def demand(service_ms: int, period_ms: int = 100, deadline_ms: int = 100, camera: str = "front") -> Demand:
    return Demand("people", camera, period_ms * MS, service_ms * MS, deadline_ms * MS)


def test_one_task_alone_answers_within_its_service() -> None:
    (alone,) = bounded([demand(30)], lanes=1)
    assert (alone.response_ns, alone.is_met) == (30 * MS, True)


def test_four_equal_cameras_may_wait_for_the_three_others() -> None:
    four = bounded([demand(20, camera=name) for name in "abcd"], lanes=1)
    assert [each.response_ns for each in four] == [80 * MS] * 4
    assert utilisation(four, lanes=1) == pytest.approx(0.8)


def test_a_later_due_task_that_is_running_blocks_once() -> None:
    urgent, long = bounded([demand(10, deadline_ms=30), demand(50, period_ms=200, deadline_ms=200)], lanes=1)
    assert urgent.response_ns == 60 * MS
    assert not urgent.is_met
    assert long.response_ns == (50 + 2 * 10) * MS


def test_more_engines_divide_what_a_frame_waits_for() -> None:
    four = bounded([demand(20, camera=name) for name in "abcd"], lanes=2)
    assert [each.response_ns for each in four] == [50 * MS] * 4


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(20, 200)), min_size=1, max_size=5))
def test_no_simulated_schedule_is_slower_than_its_bound(tasks: list[tuple[int, int]]) -> None:
    demands = bounded([demand(service, period, period) for service, period in tasks], lanes=1)
    if utilisation(demands, lanes=1) > MOST_UTILISATION or not all(each.is_met for each in demands):
        return
    worst = simulated([(each.service_ns // MS, each.period_ns // MS) for each in demands])
    assert [mine <= each.response_ns // MS for mine, each in zip(worst, demands, strict=True)] == [True] * len(worst)


def simulated(tasks: list[tuple[int, int]]) -> list[int]:
    """Worst response in milliseconds of each (service, period = deadline), all released at once, non-preemptive EDF."""
    releases = sorted(
        (at, at + period, index) for index, (_, period) in enumerate(tasks) for at in range(0, 1000, period)
    )
    worst, now, ready = [0] * len(tasks), 0, []
    while releases or ready:
        now = now if ready else max(now, releases[0][0])
        while releases and releases[0][0] <= now:
            at, due, index = releases.pop(0)
            ready.append((due, at, index))
        due, at, index = min(ready)
        ready.remove((due, at, index))
        now += tasks[index][0]
        worst[index] = max(worst[index], now - at)
    return worst


def test_frames_of_four_cameras_are_numbered_together_and_their_skew_is_told() -> None:
    pairer = Pairer("abcd", window_ns=20 * MS, tolerance_ns=5 * MS)
    placed = [
        pairer.place(camera, (start + skew) * MS)
        for start in (0, 100)
        for camera, skew in zip("abcd", (0, 3, -2, 6), strict=True)
    ]
    assert [number for number, _ in placed] == [0] * 4 + [1] * 4
    assert [skew_ns // MS for _, skew_ns in placed[:4]] == [0, 3, -2, 6]
    tally = pairer.close()
    assert (tally.complete, tally.incomplete, tally.skewed) == (2, 0, 2)
    assert tally.skew.max_ns == 8 * MS


def test_a_camera_that_is_missing_makes_the_set_incomplete_and_delays_nobody() -> None:
    pairer = Pairer("ab", window_ns=20 * MS, tolerance_ns=5 * MS)
    assert [pairer.place("a", at * 100 * MS)[0] for at in range(6)] == list(range(6))
    tally = pairer.close()
    assert (tally.complete, tally.incomplete) == (0, 6)


def test_a_frame_is_written_once_and_freed_by_its_last_holder() -> None:
    slots = Slots(2, 300)
    seen = SeenSlots(os.dup(slots.file), slots.slot_bytes)
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    slot = slots.put(pixels)
    assert slot is not None
    assert np.array_equal(seen.pixels(slot, 10, 10), pixels)
    slots.hold(slot)
    slots.release(slot)
    assert (slots.free, slots.put(pixels) is not None, slots.put(pixels)) == (1, True, None)
    slots.release(slot)
    assert slots.free == 1
    slots.close()


def test_a_picture_larger_than_announced_has_no_place() -> None:
    slots = Slots(1, 300)
    assert slots.put(np.zeros((100, 100, 3), np.uint8)) is None
    slots.close()


def test_every_wish_is_reported_granted_or_refused_and_a_refusal_stops_nothing() -> None:
    before = os.sched_getaffinity(0)
    grants = {grant.setting: grant for grant in ask(RealtimeWish(cpus=(4095,)))}
    assert not grants["affinity"].granted
    assert "name CPUs this process may use" in str(grants["affinity"])
    assert os.sched_getaffinity(0) == before
    (granted,) = ask(RealtimeWish(cpus=tuple(before)))
    assert (granted.granted, "granted" in str(granted)) == (True, True)


def test_the_worst_reason_is_the_state_and_what_is_over_is_noted() -> None:
    condition = Condition()
    condition.report("camera front", Level.DEGRADED, "blurred")
    condition.report("engine 0", Level.FAULT, "hung")
    assert (condition.level, condition.reasons[0]) == (Level.FAULT, "engine 0: hung")
    condition.well("engine 0")
    condition.well("engine 0")
    assert condition.level is Level.DEGRADED
    assert [event.what for event in condition.events][-1] == "engine 0: well again"
    assert condition.events_total == 3


PLAN = """
format: tollgate-plan/1
models:
  - {name: people, package: a, cameras: [front], deadline_ms: 50, priority: 2, on_miss: reuse, fallback: b}
  - {name: signs, package: b, period_ms: 200, criticality: normal}
settings: {lanes: 2, pair_window_ms: 25}
"""


def test_a_plan_is_read_with_its_packages(tmp_path: Path) -> None:
    for name in ("a", "b"):
        null_package(tmp_path / name)
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = load_plan(tmp_path / "plan.yaml")
    people, signs = plan.models
    assert (people.deadline_ns, people.fallback, len(people.packages)) == (50 * MS, 1, 2)
    assert people.wants("front")
    assert not people.wants("rear")
    assert (signs.period_ns, signs.criticality, signs.wants("rear")) == (200 * MS, Criticality.NORMAL, True)
    assert plan.settings.lanes == 2


RUNTIME = """
  lanes: {value: 2, unit: lanes, source: "two clusters of cores"}
  pair_window: {value: 20, unit: ms, source: "cameras are triggered together"}
  ladder: [cameras_off]
  collect_garbage: true
  spin: false
  source: "our robot"
"""


def test_a_profile_says_how_the_loop_runs_and_a_plan_goes_before_it() -> None:
    profile = Profile.from_yaml(load_profile("x86_cpu").to_yaml() + "runtime:" + RUNTIME, where="robot.yaml")
    assert Profile.from_yaml(profile.to_yaml(), where="again") == profile
    settings = Settings.of(profile, lanes=1)
    assert (settings.lanes, settings.pair_window_ms, settings.ladder) == (1, 20, (Step.CAMERAS_OFF,))
    assert (settings.collect_garbage, settings.spin) == (True, False)
    assert Settings.of(profile, spin=True).spin
    assert Settings.of(profile).lanes == 2
    assert Settings.of(load_profile("x86_cpu")) == Settings()


def test_an_engine_that_waits_keeps_its_core_busy_unless_its_profile_says_that_it_sleeps(tmp_path: Path) -> None:
    spent_ns = {}
    for spin in (None, True, False):
        runtime = RuntimeSettings(spin=spin, source="a test")
        package = null_package(tmp_path / str(spin), service_ms=200, runtime=runtime)
        with open_pipeline(package) as pipeline:
            feeds = pipeline.prepare(Frame(np.zeros((24, 32, 3), np.uint8), "front", 0, 0, ""))
            began_ns = time.thread_time_ns()
            pipeline.engine.infer(feeds)
            spent_ns[spin] = time.thread_time_ns() - began_ns
    assert spent_ns[False] < 5 * MS < min(spent_ns[None], spent_ns[True])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("name: signs", "name: people"), "people twice"),
        (("on_miss: reuse", "on_miss: guess"), "on_miss"),
        (("lanes: 2", "lanes: 0"), "lanes"),
        (("criticality: normal", "criticality: normal, colour: red"), "colour"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace(*change))
    with pytest.raises(SpecError, match=complaint):
        load_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize("lends", [True, False])
def test_an_engine_is_warmed_up_on_pictures_of_every_size_and_timed_on_the_largest_as_it_will_be_fed(lends):
    steps: list[tuple[int, ...]] = []
    timed_at: set[int] = set()
    slots = Slots(2, 24 * 32 * 3)
    seen = SeenSlots(os.dup(slots.file), slots.slot_bytes)

    class Steps:
        def step(self, frame):
            steps.append(frame.pixels.shape[:2])
            if len(steps) > 2 * WARM_UP_FRAMES:
                timed_at.add(frame.pixels.ctypes.data)
            return SimpleNamespace(timings=SimpleNamespace(total_ns=10**8))

    Steps.lends = lends
    spent_ns, _ = _warmed(Steps(), ((32, 24), (16, 12)), seen)
    assert spent_ns == (10**8,) * 3
    assert steps == [(12, 16)] * WARM_UP_FRAMES + [(24, 32)] * (WARM_UP_FRAMES + 3)
    assert (timed_at == {seen.memory.ctypes.data}) is lends
    slots.close()
