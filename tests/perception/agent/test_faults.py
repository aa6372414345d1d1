"""A real agent process dies, or its disk fills up, at every single file operation: it costs nothing but time.

After each death the vehicle runs one whole release, the one before or the one after; and the next pass, undisturbed,
brings it where it would have come, with nothing left lying about.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.agent.agent import Outcome
from perception.agent.journal import read_journal
from perception.errors import OutputError, TollgateError
from perception.package import open_package
from tests.disk import room_for
from tests.perception.agent.faults import NEEDS_ROOM, disk_full, in_child, kill
from tests.perception.agent.fleet import Road


@pytest.fixture
def second(works):
    """A newer release that is offered."""
    return works.publish("second", service_ms=0.1)


def _again(road: Road, ready: Path) -> None:
    """The vehicle as it was before the pass."""
    shutil.rmtree(road.state)
    shutil.copytree(ready, road.state, symlinks=True)


def _sweep(road: Road, ready: Path, outcomes: set[Outcome], ends: str) -> int:
    """Kill one pass at each of its changes; each time the next pass must end as an undisturbed one does."""
    shutil.copytree(road.state, ready, symlinks=True)
    before = road.runs
    changes = in_child(road.state, road.update, at=None, act=kill)
    after, expected = road.runs, _names(road.state)
    for at in _instants(changes):
        _again(road, ready)
        in_child(road.state, road.update, at=at, act=kill)
        assert road_runs_one_of(road, before, after), changes[at - 1]
        report = road.update()
        assert report.outcome in outcomes, (changes[at - 1], report)
        assert (road.runs, road.release) == (after, ends), changes[at - 1]
        assert _names(road.state) == expected, changes[at - 1]
    return len(changes)


def _instants(changes: list[str]) -> Iterator[int]:
    """Every change, but of the many alike among the downloads every third."""
    for at, change in enumerate(changes, start=1):
        if "/downloads/" not in change or at % 3 == 0:
            yield at


def road_runs_one_of(road: Road, before: str, after: str) -> bool:
    """What the link leads to, right after the death, before anybody tidied up; every byte is compared."""
    return open_package((road.state / "active").resolve()).sha256 in (before, after)


def _names(state: Path) -> set[str]:
    """Everything under the vehicle's folder, but what every pass fetches or tidies anew, and the numbers of records."""
    names = (path.relative_to(state) for path in state.rglob("*"))
    return {str(name) for name in names if name.parts[0] not in ("downloads", "health") and not name.stem.isdigit()}


def test_killed_at_every_step_of_an_installation(road, second, tmp_path):
    assert _sweep(road, tmp_path / "ready", {Outcome.SWITCHED, Outcome.ON_TRIAL}, second.name) > 60


def test_killed_at_every_step_of_a_commit(road, second, tmp_path):
    road.update()
    road.drive()
    assert _sweep(road, tmp_path / "ready", {Outcome.COMMITTED, Outcome.UP_TO_DATE}, second.name) > 3


def test_killed_at_every_step_of_falling_back(road, second, tmp_path):
    road.update()
    road.drive(late=10)
    assert _sweep(road, tmp_path / "ready", {Outcome.FELL_BACK, Outcome.REFUSED}, road.first.name) > 3


def test_killed_at_every_step_of_a_published_rollback(road, works, second, tmp_path):
    road.commit()
    works.offer(road.first)
    assert _sweep(road, tmp_path / "ready", {Outcome.SWITCHED, Outcome.UP_TO_DATE}, road.first.name) > 3


def test_a_disk_that_fills_up_at_every_step_of_an_installation(road, second, tmp_path):
    ready = tmp_path / "ready"
    shutil.copytree(road.state, ready, symlinks=True)
    changes = in_child(road.state, road.update, at=None, act=disk_full, only=NEEDS_ROOM)
    assert len(changes) > 30
    for at in _instants(changes):
        _again(road, ready)
        before = road.runs
        in_child(road.state, lambda: _refused_for_room(road), at=at, act=disk_full, only=NEEDS_ROOM)
        assert road_runs_one_of(road, before, second.package_sha256), changes[at - 1]
        assert road.update().outcome in (Outcome.SWITCHED, Outcome.ON_TRIAL), changes[at - 1]
        assert road.release == second.name, changes[at - 1]


def _refused_for_room(road: Road) -> None:
    """The pass ends in one sentence about the disk; what it could not write must not matter."""
    try:
        road.update()
    except OutputError as error:
        assert "No space left on device" in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize("room_bytes", [0, 100, 1000, 3000])
def test_a_quota_reached_while_files_are_written(road, second, room_bytes):
    before = road.runs
    with room_for(room_bytes), pytest.raises(TollgateError):
        road.update()
    assert road.runs == before
    assert road.update().outcome is Outcome.SWITCHED


def test_the_process_itself_killed_from_outside_at_any_time(road, second, tmp_path):
    """The agent as users start it, its smoke run in a child, shot after ever longer times."""
    (tmp_path / "root.json").write_bytes(road.origin.root)
    command = [sys.executable, "-m", "perception.cli", "agent", str(road.state), "--repository", road.origin.url]
    command += ["--root", str(tmp_path / "root.json"), "--profile", "x86_cpu", "--vehicle-id", "V1", "--once"]
    ready, deaths = tmp_path / "ready", 0
    shutil.copytree(road.state, ready, symlinks=True)
    for number in range(4):
        _again(road, ready)
        before = road.runs
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(0.3 + 0.2 * number)
        os.killpg(agent.pid, signal.SIGKILL)
        deaths += agent.wait() == -signal.SIGKILL
        assert road_runs_one_of(road, before, second.package_sha256)
        road.update()
        assert road.release == second.name
    assert deaths
    assert read_journal(road.state).trial is not None
