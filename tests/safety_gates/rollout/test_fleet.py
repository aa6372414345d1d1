"""A hundred real agents, real TUF metadata, a real server: one rollout to the end, one that goes back by itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from perception.agent.health import HEALTH, DriveReport, write_report
from perception.agent.telemetry import Reporter, vehicle_signer
from perception.agent.wanted import Vehicle
from perception.cohort import assignment
from perception.errors import UpdateError
from perception.telemetry_spool import Spool
from safety_gates.rollout.decision import judge_stage
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.fleet_file import fleet_line, read_fleet
from safety_gates.rollout.ingest import Scope, ingest
from safety_gates.rollout.publication import published_release, publisher
from safety_gates.rollout.rollout import Beginning, judged, open_rollout, publish, start
from tests.perception.agent.fleet import Road, Works, served
from tests.perception.fleet import NOW_NS, new_key
from tests.perception.test_telemetry_spool import keeping
from tests.safety_gates.rollout.field import DAY_NS, STAGES

FLEET = 100
SHORT = "\n".join(line for line in STAGES.splitlines() if "drift" not in line and "disagreement" not in line)
SHORT = SHORT.replace("controls: 3", "controls: 1")  # a salt may hold out few of a hundred


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """A folder in memory where there is one: a hundred vehicles flush every step."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("fleet")
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


class Street:
    """The fleet's owner, the server, and a hundred vehicles that run the first of three releases."""

    def __init__(self, folder, url, works, releases):
        self.releases = releases
        self.folder, self.works, self.key = folder, works, new_key()
        first = Road(folder / "made", works, url)
        first.commit()
        self.roads = {f"car-{number}": self._copy(first, f"car-{number}", url) for number in range(FLEET)}
        lines = [fleet_line(name, vehicle_signer(road.state).public_key) for name, road in self.roads.items()]
        (folder / "fleet.jsonl").write_text("".join(lines))

    def _copy(self, first, name, url):
        """Another vehicle: the same slots, a key of its own."""
        forgotten = shutil.ignore_patterns("vehicle.*", "spool", "health")
        shutil.copytree(first.state, self.folder / name, symlinks=True, ignore=forgotten)
        road = Road(self.folder / name, self.works, url)
        road.vehicle = Vehicle(name, road.vehicle.profile)
        return road

    def begin(self, name, candidate, control, *, at_ns):
        """A rollout, published."""
        releases = [published_release(self.works.repository, each) for each in (candidate, control)]
        rollout = start(self.folder / name, Beginning(name, SHORT, *releases), self.key, now_ns=at_ns)
        publish(rollout, publisher(self.works.repository, self.works.keyring))
        return rollout

    def update(self):
        """Every agent asks once."""
        return [road.update().outcome for road in self.roads.values()]

    def running(self):
        """Which release runs in how many vehicles."""
        names = [road.release for road in self.roads.values()]
        return {name: names.count(name) for name in set(names)}

    def drive(self, rollout, server, from_ns, *, misses):
        """Two drives of every vehicle with what it runs; its agent signs, spools and uploads the records."""
        for number, (name, road) in enumerate(self.roads.items()):
            times = misses if assignment(rollout.plan, name).role == "candidate" else 1
            for turn in (1, 2):
                at_ns = from_ns + turn * DAY_NS // 4
                report = DriveReport(
                    package_sha256=road.runs,
                    started_ns=at_ns,
                    duration_s=600.0,
                    frames=18_000,
                    late=(20 + number % 7 + turn) * times,
                    ended="clean",
                )
                write_report(road.state / HEALTH / f"{at_ns}.json", report)
            road.update()
            assert Reporter(road.state, road.vehicle).upload(server.address).left == 0

    def look(self, name, server, *, now_ns):
        """Ingest what the server got, and carry out what a look says."""
        rollout = open_rollout(self.folder / name)
        scope = Scope(rollout.plan, rollout.log.entries[0].at_ns, now_ns)
        counts = ingest(rollout.log.folder, server.folder, read_fleet(self.folder / "fleet.jsonl"), scope)
        found = judge_stage(rollout.file, rollout.stage, vehicle_table(rollout, now_ns), at=rollout.next_look(now_ns))
        moved = judged(rollout, found, dict(counts), self.key, now_ns=now_ns)
        publish(moved, publisher(self.works.repository, self.works.keyring))
        return moved


@pytest.fixture(scope="module")
def street(memory):
    works = Works.founded(memory / "works")
    releases = [works.publish(f"number {n}", service_ms=0.1 * n, offer=n == 0).name for n in range(3)]
    with served(works.repository) as url:
        yield Street(memory, url, works, releases)


def test_a_hundred_agents_go_through_one_full_rollout_and_one_automatic_rollback(street, memory):
    with keeping(memory / "received") as server:
        day, (first, second, third) = NOW_NS, street.releases
        rollout, exposed = street.begin("good", second, first, at_ns=day), []
        while not rollout.ended:
            street.update()
            exposed.append(street.running().get(second, 0))
            street.drive(rollout, server, day, misses=1)
            day += DAY_NS
            rollout = street.look("good", server, now_ns=day)
        assert [entry.action for entry in rollout.log.entries] == ["start", "advance", "advance", "complete"]
        held_out = sum(assignment(rollout.plan, name).role == "holdout" for name in street.roads)
        assert exposed[0] == 0 < exposed[1] < exposed[2] == FLEET - held_out
        assert street.running() == {first: held_out, second: FLEET - held_out}

        rollout = street.begin("bad", third, second, at_ns=day)
        while not rollout.ended:
            street.update()
            street.drive(rollout, server, day, misses=3)
            day += DAY_NS
            rollout = street.look("bad", server, now_ns=day)
        assert [entry.action for entry in rollout.log.entries] == ["start", "advance", "rollback"]
        assert "deadline_misses" in rollout.log.last.reason
        assert 0 < street.running()[third] < FLEET / 2
        street.update()
        assert street.running() == {second: FLEET}


def test_while_every_server_is_down_a_vehicle_keeps_what_it_runs_and_its_records_wait(street, memory):
    road = next(iter(street.roads.values()))
    before, spool = road.release, Spool(road.state / "spool", road.vehicle.vehicle_id)
    road.origin = type(road.origin)("http://127.0.0.1:9", street.works.root)
    for day in range(7):
        report = DriveReport(package_sha256=road.runs, started_ns=NOW_NS + 99 * DAY_NS + day, frames=9, ended="clean")
        write_report(road.state / HEALTH / f"week-{day}.json", report)
        with pytest.raises(UpdateError):
            road.update()
    reporter = Reporter(road.state, road.vehicle)
    assert reporter.upload("http://127.0.0.1:9").left == len(spool.pending()) >= 7
    assert road.release == before
    with keeping(memory / "a week later") as server:
        assert reporter.upload(server.address).left == 0
