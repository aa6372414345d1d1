"""The deadline loop with real engine processes: overload, crashes that kill, hangs, fallbacks, shadows, endpoints."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

from perception.deadline.condition import Level
from perception.deadline.endpoint import served
from perception.deadline.lane import LaneState
from perception.deadline.plan import Criticality, MissPolicy, ModelPlan, Plan, Settings, plan_of
from perception.deadline.run import Options, Report, Running, run_plan
from perception.errors import AdmissionError, OutputError, SourceError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import FrameResult, Status
from perception.record import read_run_log
from perception.sinks.run_log import RunLogWriter
from tests.perception.builders import ListSource, null_package
from tests.perception.sinks.outcomes import HEADER

MS = 1_000_000


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> EnginePackage:
    return null_package(tmp_path_factory.mktemp("quick"), service_ms=1)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> EnginePackage:
    return null_package(tmp_path_factory.mktemp("slow"), service_ms=20)


def noisy(camera: str, count: int, *, period_ms: int = 20) -> list[Frame]:
    """Frames of a camera that is well: no two are alike."""
    chance = np.random.default_rng(1)
    return [
        Frame(chance.integers(30, 220, (24, 32, 3), np.uint8), camera, index, index * period_ms * MS, str(index))
        for index in range(count)
    ]


def plan_with(package: EnginePackage, *, deadline_ms: float = 1000, **more: object) -> Plan:
    settings = Settings(**more.pop("settings", {}))
    return Plan((ModelPlan("null", (package,), int(deadline_ms * MS), **more),), settings)


def run_of(plan: Plan, frames: list[Frame], **options: object) -> tuple[Report, list[FrameResult]]:
    """Forced, because a busy machine may refuse what these tests need: admission has tests of its own."""
    outcomes: list[FrameResult] = []
    report = run_plan(plan, ListSource(frames), options=Options(force=True, on_frame=outcomes.append, **options))
    return report, outcomes


def disturbed(at_s: float, disturb: Callable[[Running], None]) -> dict[str, object]:
    """Options of a run that something happens to, so long after it began."""

    def on_open(running: Running) -> None:
        threading.Timer(at_s, disturb, (running,)).start()

    return {"on_open": on_open}


def test_a_loop_that_keeps_up_publishes_every_frame_in_time_with_all_its_instants(quick: EnginePackage) -> None:
    report, outcomes = run_of(plan_with(quick), noisy("front", 12, period_ms=100))
    assert [outcome.frame.frame_id for outcome in outcomes] == list(range(12))
    assert {outcome.status for outcome in outcomes} == {Status.ON_TIME}
    for outcome in outcomes:
        instants = outcome.instants
        assert instants.captured_ns <= instants.arrived_ns <= instants.started_ns <= instants.finished_ns
        assert outcome.age_ns == instants.age_ns >= outcome.timings.total_ns > 1 * MS
    assert (report.restarts, report.events) == (0, ())


def test_an_engine_that_spins_answers_as_any_other_and_says_that_it_does(quick: EnginePackage) -> None:
    report, outcomes = run_of(plan_with(quick, settings={"spin": True}), noisy("front", 12, period_ms=50))
    assert {outcome.status for outcome in outcomes} == {Status.ON_TIME}
    told = [str(grant) for where, grant in report.grants if where == "engine 0"]
    assert any(grant.startswith("waiting spinning: ") for grant in told)


def test_a_callback_that_fails_ends_the_run_with_its_failure(quick: EnginePackage) -> None:
    def fail(_: FrameResult) -> None:
        raise LookupError("nobody listens")

    frames = noisy("front", 500)
    source = ListSource(frames)
    source.frames = lambda: (delivered.append(frame.frame_id) or frame for frame in frames)
    delivered: list[int] = []
    with pytest.raises(LookupError, match="nobody listens"):
        run_plan(plan_with(quick), source, options=Options(force=True, on_frame=fail))
    assert len(delivered) < len(frames)


def test_overload_loses_frames_but_no_count_and_ages_stay_bounded(slow: EnginePackage) -> None:
    _, outcomes = run_of(plan_with(slow), noisy("front", 100, period_ms=10))
    done = [outcome for outcome in outcomes if outcome.result is not None]
    assert len(outcomes) == 100
    assert {outcome.status for outcome in outcomes} == {Status.ON_TIME, Status.SKIPPED}
    assert len(done) >= 30
    assert np.median([outcome.age_ns for outcome in done]) <= (10 + 2 * 20) * MS
    skipped = next(outcome for outcome in outcomes if outcome.status is Status.SKIPPED)
    assert skipped.causes == ("displaced by a newer frame",)


def test_a_frame_that_cannot_make_its_deadline_is_not_started(slow: EnginePackage) -> None:
    _, outcomes = run_of(plan_with(slow, deadline_ms=15), noisy("front", 10, period_ms=50))
    assert {outcome.status for outcome in outcomes} == {Status.SKIPPED}
    assert {outcome.causes for outcome in outcomes} == {("could not make its deadline any more",)}
    assert all(outcome.instants.started_ns == 0 for outcome in outcomes)


def test_what_missed_can_be_answered_with_the_last_result_and_its_age(slow: EnginePackage) -> None:
    plan = plan_with(slow, on_miss=MissPolicy.REUSE)
    _, outcomes = run_of(plan, noisy("front", 60, period_ms=10))
    stale = [outcome for outcome in outcomes if outcome.status is Status.STALE]
    assert len(stale) >= 10
    assert all(outcome.result is not None for outcome in stale)
    assert all(outcome.age_ns > outcome.instants.age_ns for outcome in stale)


def test_a_plan_that_does_not_fit_is_refused_with_what_would_help_and_nothing_is_written(
    slow: EnginePackage, tmp_path: Path
) -> None:
    log = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    with pytest.raises(AdmissionError, match=r"utilisation .*what would help: .*--force"):
        run_plan(plan_with(slow), ListSource(noisy("front", 5)), sinks=[log], options=Options(speed=10))
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_killed_is_replaced_and_the_run_goes_on(quick: EnginePackage) -> None:
    def kill(running: Running) -> None:
        os.kill(running.crew.lanes[0].pid, signal.SIGSEGV)

    report, outcomes = run_of(plan_with(quick), noisy("front", 150), **disturbed(0.5, kill))
    assert len(outcomes) == 150
    assert report.restarts == 1
    assert any("SIGSEGV" in what and "starting again" in what for _, what in report.events)
    assert any("engine 0: well again" in what for _, what in report.events)
    assert outcomes[-1].status is Status.ON_TIME


def test_an_engine_that_hangs_is_killed_within_its_stated_time_and_its_frame_is_a_fault(quick: EnginePackage) -> None:
    stopped_ns: list[int] = []

    def hang(running: Running) -> None:
        stopped_ns.append(time.perf_counter_ns())
        os.kill(running.crew.lanes[0].pid, signal.SIGSTOP)

    plan = plan_with(quick, settings={"hang_after_ms": 300})
    report, outcomes = run_of(plan, noisy("front", 200), **disturbed(0.5, hang))
    (fault,) = [outcome for outcome in outcomes if outcome.status is Status.FAULT]
    assert "hung" in fault.causes[0]
    assert fault.instants.finished_ns - stopped_ns[0] < (300 + 20 + 500) * MS
    assert (len(outcomes), report.restarts) == (200, 1)
    assert outcomes[-1].status is Status.ON_TIME


def test_an_engine_that_keeps_crashing_gives_way_to_its_fallback_and_says_so(
    quick: EnginePackage, slow: EnginePackage
) -> None:
    plan = Plan((ModelPlan("null", (slow, quick), 1000 * MS, fallback=1),), Settings(restarts=1))

    def keep_killing(running: Running) -> None:
        killed: set[int] = set()
        while len(killed) < 2:
            lane = running.crew.lanes[0]
            if lane.state is LaneState.BUSY and lane.pid not in killed:
                killed.add(lane.pid)
                os.kill(lane.pid, signal.SIGKILL)
            time.sleep(0.002)

    report, outcomes = run_of(plan, noisy("front", 120, period_ms=40), **disturbed(0.3, keep_killing))
    assert any("replaced by its fallback null after 2 faults" in what for _, what in report.events)
    assert outcomes[-1].status is Status.DEGRADED
    assert outcomes[-1].causes == ("fallback engine",)
    assert sum(outcome.status is Status.FAULT for outcome in outcomes) == 2


def test_a_run_whose_engine_never_opens_again_ends_and_says_fault_of_every_frame(quick: EnginePackage) -> None:
    over = threading.Event()

    def keep_killing(running: Running) -> None:
        while not over.wait(0.001):
            if (pid := running.crew.lanes[0].pid) is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    _, outcomes = run_of(plan_with(quick, deadline_ms=100), noisy("front", 60), **disturbed(0.4, keep_killing))
    over.set()
    assert len(outcomes) == 60
    assert outcomes[-1].status is Status.FAULT
    assert outcomes[-1].causes == ("no engine was open in time",)


def test_where_every_frame_is_wanted_none_is_displaced_however_late(slow: EnginePackage) -> None:
    _, outcomes = run_of(plan_with(slow, deadline_ms=50), noisy("front", 30, period_ms=5), keep_all=True)
    assert {outcome.status for outcome in outcomes} <= {Status.ON_TIME, Status.LATE}
    assert [outcome.frame.frame_id for outcome in outcomes] == list(range(30))
    assert outcomes[-1].status is Status.LATE


def test_a_picture_that_shows_nothing_is_a_fault_and_never_started(quick: EnginePackage) -> None:
    frames = noisy("front", 9)
    frames[4] = Frame(np.zeros_like(frames[4].pixels), "front", 4, frames[4].captured_ns, "4")
    report, outcomes = run_of(plan_with(quick), frames)
    assert [outcome.status is Status.FAULT for outcome in outcomes].index(True) == 4
    assert (outcomes[4].result, outcomes[4].causes, outcomes[4].instants.started_ns) == (None, ("black",), 0)
    assert [what for _, what in report.events] == ["camera front: black", "camera front: well again"]


def test_a_shadow_sees_frames_in_slack_and_is_never_counted_as_a_miss(quick: EnginePackage, tmp_path: Path) -> None:
    plan = plan_of(quick, shadow=null_package(tmp_path / "new", service_ms=2))
    report, outcomes = run_of(plan, noisy("front", 15, period_ms=200))
    seen = [outcome for outcome in outcomes if outcome.model == "shadow.null"]
    assert report.shadow.offered == 15
    assert len(seen) == report.shadow.run >= 1
    assert report.shadow.run + report.shadow.shed == 15
    assert sum(outcome.model == "null" for outcome in outcomes) == 15


def test_a_shadow_gets_nothing_where_there_is_no_slack(quick: EnginePackage, tmp_path: Path) -> None:
    plan = plan_of(quick, shadow=null_package(tmp_path / "new", service_ms=60))
    report, _ = run_of(plan, noisy("front", 40))
    assert report.shadow.run == 0
    assert report.shadow.shed == 40


def test_models_of_several_periods_share_the_engines(quick: EnginePackage) -> None:
    models = (
        ModelPlan("each", (quick,), 1000 * MS),
        ModelPlan("seldom", (quick,), 1000 * MS, period_ns=100 * MS, criticality=Criticality.NORMAL),
        ModelPlan("rear", (quick,), 1000 * MS, cameras=("rear",)),
    )
    frames = sorted([*noisy("front", 50), *noisy("rear", 50)], key=lambda frame: frame.captured_ns)
    _, outcomes = run_of(Plan(models, Settings(pair_window_ms=5)), frames)
    counts = {name: sum(outcome.model == name for outcome in outcomes) for name in ("each", "seldom", "rear")}
    assert (counts["each"], counts["rear"]) == (100, 50)
    assert 18 <= counts["seldom"] <= 22
    assert max(outcome.set_id for outcome in outcomes) == 49


def test_health_and_metrics_are_served_while_it_runs(quick: EnginePackage) -> None:
    answers: dict[str, bytes] = {}

    def ask(running: Running) -> None:
        with served(running, 0) as port:
            for path in ("/health", "/metrics"):
                answers[path] = urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            running.condition.report("engine 0", Level.FAULT, "as a test says")
            with pytest.raises(HTTPError, match="503"):
                urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            running.condition.well("engine 0")

    run_of(plan_with(quick), noisy("front", 80), **disturbed(0.5, ask))
    assert json.loads(answers["/health"])["state"] == "READY"
    assert b'tollgate_frames_total{camera="front",model="null",status="ON_TIME"}' in answers["/metrics"]
    assert b"tollgate_health 0.0" in answers["/metrics"]


class BreakingSource(ListSource):
    """Fails after its frames."""

    def frames(self) -> Iterator[Frame]:
        yield from super().frames()
        raise SourceError("front: cable pulled")


def test_a_camera_that_fails_is_reported_after_everything_before_it(quick: EnginePackage, tmp_path: Path) -> None:
    log = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    with pytest.raises(SourceError, match="cable pulled"):
        run_plan(plan_with(quick), BreakingSource(noisy("front", 10)), sinks=[log], options=Options(force=True))
    kept = read_run_log(tmp_path / "run.incomplete.jsonl")
    assert (len(kept.frames), kept.summary.complete) == (10, False)


class LeapingClock(ListSource):
    """A live camera whose clock leaps ahead by 5 s after half of its frames."""

    def frames(self) -> Iterator[Frame]:
        for index, frame in enumerate(super().frames()):
            time.sleep(0.03)
            leap_ns = 5_000 * MS if index >= 15 else 0
            yield Frame(frame.pixels, frame.camera_id, index, time.perf_counter_ns() - 2 * MS + leap_ns, frame.name)


def test_a_live_camera_whose_clock_leaps_is_flagged_once_and_ages_stay_true(quick: EnginePackage) -> None:
    outcomes: list[FrameResult] = []
    options = Options(speed=None, force=True, on_frame=outcomes.append)
    run_plan(plan_with(quick), LeapingClock(noisy("front", 30)), options=options)
    assert [outcome.frame.frame_id for outcome in outcomes if "clock jump" in outcome.causes] == [15]
    assert all(0 <= outcome.age_ns < 2_500 * MS for outcome in outcomes)


def played(package: EnginePackage, *, period_ms: int, speed: float) -> tuple[Report, set[str]]:
    """Ten frames of a camera that announces its rate, and every cause that was told of them."""
    source = ListSource(noisy("front", 10, period_ms=period_ms))
    source.cameras = tuple(replace(camera, rate_hz=1000 / period_ms) for camera in source.cameras)
    causes: list[str] = []
    options = Options(speed=speed, force=True, on_frame=lambda outcome: causes.extend(outcome.causes))
    return run_plan(plan_with(package), source, options=options), set(causes)


def test_a_recording_that_plays_slowly_is_no_camera_with_gaps(quick: EnginePackage) -> None:
    report, _ = played(quick, period_ms=100, speed=0.25)
    assert not [what for _, what in report.events if "gap" in what]


def test_the_clock_of_a_recording_that_plays_fast_does_not_leap(quick: EnginePackage) -> None:
    _, causes = played(quick, period_ms=200, speed=8)
    assert "clock jump" not in causes


class FullDisk:
    """A sink that cannot write for a while."""

    def __init__(self, failures: int) -> None:
        self.failures, self.written, self.ending = failures, [], ""

    def write(self, outcome: FrameResult) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise OutputError("disk full")
        self.written.append(outcome.frame.frame_id)

    def close(self) -> None:
        self.ending = "closed"

    def abort(self) -> None:
        self.ending = "aborted"


def test_a_disk_that_is_full_for_a_moment_loses_nothing_and_delays_no_engine(quick: EnginePackage) -> None:
    sink = FullDisk(failures=3)
    report = run_plan(plan_with(quick), ListSource(noisy("front", 40)), sinks=[sink], options=Options(force=True))
    assert (sink.written, sink.ending) == (list(range(40)), "closed")
    assert report.tally.count(*Status) == 40


def test_nothing_is_left_running_after_an_interrupt(quick: EnginePackage) -> None:
    pids: list[int] = []

    def remember(running: Running) -> None:
        pids.append(running.crew.lanes[0].pid)

    def interrupt(_: FrameResult) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run_plan(
            plan_with(quick),
            ListSource(noisy("front", 50)),
            options=Options(force=True, on_frame=interrupt, on_open=remember),
        )
    assert not Path(f"/proc/{pids[0]}").exists()
    assert set(threading.enumerate()) <= before
