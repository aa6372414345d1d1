"""A hundred real agents, real TUF metadata, a real server: one rollout to the end, three that go back by themselves."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from perception.agent.companion import ShadowReport
from perception.agent.health import HEALTH, DriveReport, write_report
from perception.agent.telemetry import Reporter, vehicle_signer
from perception.agent.wanted import Vehicle
from perception.cohort import assignment
from perception.distributions import InputCounts, OutputCounts
from perception.errors import UpdateError
from perception.package import open_package
from perception.results import Detections
from perception.telemetry_record import Counted, Reference
from perception.telemetry_spool import Spool
from safety_gates.rollout.decision import judge_stage
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.fleet_file import fleet_line, read_fleet
from safety_gates.rollout.ingest import Scope, ingest
from safety_gates.rollout.moving import judged
from safety_gates.rollout.publication import published_release, publisher
from safety_gates.rollout.rollout import Beginning, open_rollout, publish, start
from safety_gates.rollout.stages import load_stages
from safety_gates.rollout.uploads import UploadFolder
from tests.perception.agent.fleet import Road, Works, served
from tests.perception.fleet import NOW_NS, new_key
from tests.perception.test_telemetry_spool import keeping
from tests.safety_gates.rollout.field import DAY_NS, STAGES

FLEET = 100
CRITERIA = load_stages(None)[1].partition("criteria:")[2]  # as they are shipped; a canary wants more than a hundred
SHORT = STAGES.partition("criteria:")[0].replace("controls: 3", "controls: 1") + f"criteria:{CRITERIA}"


@dataclass(frozen=True)
class Manner:
    """How those drive that have the candidate: late so many times as often, finding less, agreeing in shadow."""

    misses: int = 1
    blinder: bool = False
    agreed: float = 0.97


class Scenes:
    """What each vehicle sees and says, counted as a drive is, and what releases were published with."""

    def __init__(self, names):
        self._random = np.random.default_rng(3)
        self.reference = self._counted(self._random.uniform(60, 180, 400), finds=4.0)
        self._usual = {name: self._own(finds=4.0) for name in names}
        self._blinder = {name: self._own(finds=1.0) for name in names}

    def drive(self, name, *, blinder):
        """Another drive of a vehicle: what its scenes are like, drawn anew."""
        scenes = (self._blinder if blinder else self._usual)[name]
        return {"input": self._drawn(scenes.input), "output": self._drawn(scenes.output)}

    def _own(self, *, finds):
        """One vehicle's streets are brighter than another's."""
        return self._counted(self._random.normal(self._random.uniform(90, 150), 20, 150), finds=finds)

    def _counted(self, levels, *, finds):
        pictures, said = InputCounts(), OutputCounts()
        for level in levels:
            noise = self._random.normal(level, 30, (24, 32, 3))
            pictures.add(np.clip(noise, 0, 255).astype(np.uint8))
            count = self._random.poisson(finds)
            scores = np.sort(self._random.beta(6, 2, count))[::-1].astype(np.float32)
            boxes, classes = np.zeros((count, 4), np.float32), self._random.integers(0, 4, count).astype(np.int32)
            said.add(Detections(boxes, scores, classes))
        return Reference(input=pictures.counted(), output=said.counted())

    def _drawn(self, counted):
        parts = {
            name: tuple(self._random.multinomial(4 * sum(bins), np.array(bins) / sum(bins)).tolist())
            for name, bins in counted.parts.items()
        }
        return Counted(frames=4 * counted.frames, parts=parts)


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

    def __init__(self, folder, url, works, releases, scenes):
        self.releases, self.scenes = releases, scenes
        self.folder, self.works, self.key = folder, works, new_key()
        first = Road(folder / "made", works, url)
        first.commit()
        self.roads = {f"car-{number}": self._copy(first, f"car-{number}", url) for number in range(FLEET)}
        self.day = NOW_NS
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

    def drive(self, rollout, server, from_ns, manner):
        """Two drives of every vehicle with what it runs; its agent signs, spools and uploads the records."""
        for number, (name, road) in enumerate(self.roads.items()):
            given = assignment(rollout.plan, name)
            shadowing = (
                given.shadow and (road.state / "shadow").exists()
            )  # whoever changed releases has it a pass later
            mine = manner if given.role == "candidate" else Manner()
            for turn in (1, 2):
                at_ns = from_ns + turn * DAY_NS // 4
                report = DriveReport(
                    package_sha256=road.runs,
                    started_ns=at_ns,
                    duration_s=600.0,
                    frames=18_000,
                    late=(20 + number % 7 + turn) * mine.misses,
                    ended="clean",
                    shadow=self._shadow(road, manner) if shadowing else None,
                    **self.scenes.drive(name, blinder=mine.blinder),
                )
                write_report(road.state / HEALTH / f"{at_ns}.json", report)
            road.update()
            assert Reporter(road.state, road.vehicle).upload(server.address).left == 0

    @staticmethod
    def _shadow(road, manner):
        """What `run --shadow` leaves of the package in the vehicle's other slot."""
        package = open_package(road.state / "shadow")
        return ShadowReport(
            package_sha256=package.sha256, compared=5000, agreed=round(5000 * manner.agreed), shed=12_000
        )

    def roll(self, name, candidate, control, server, manner):
        """One rollout to its end, a look a day; returns it and how many vehicles had the candidate each day."""
        rollout, exposed = self.begin(name, candidate, control, at_ns=self.day), []
        while not rollout.ended:
            self.update()
            exposed.append(self.running().get(candidate, 0))
            self.drive(rollout, server, self.day, manner)
            self.day += DAY_NS
            rollout = self.look(name, server, now_ns=self.day)
            assert len(exposed) < 8, rollout.log.last.reason
        return rollout, exposed

    def look(self, name, server, *, now_ns):
        """Ingest what the server got, and carry out what a look says."""
        rollout = open_rollout(self.folder / name)
        scope = Scope(rollout.plan, rollout.log.entries[0].at_ns, now_ns)
        counts = ingest(rollout.log.folder, UploadFolder(server.folder), read_fleet(self.folder / "fleet.jsonl"), scope)
        found = judge_stage(rollout.file, rollout.stage, vehicle_table(rollout, now_ns), at=rollout.next_look(now_ns))
        moved = judged(rollout, found, dict(counts), self.key, now_ns=now_ns)
        publish(moved, publisher(self.works.repository, self.works.keyring))
        return moved


@pytest.fixture(scope="module")
def street(memory):
    works = Works.founded(memory / "works")
    scenes = Scenes([f"car-{number}" for number in range(FLEET)])
    releases = [
        works.publish(f"number {n}", service_ms=0.1 * n, offer=n == 0, reference=scenes.reference).name
        for n in range(3)
    ]
    with served(works.repository) as url:
        yield Street(memory, url, works, releases, scenes)


def actions(rollout):
    return [entry.action for entry in rollout.log.entries]


def test_a_hundred_agents_go_through_one_full_rollout_and_three_automatic_rollbacks(street, memory):
    """By the shipped criteria, on what real agents reported: drift and shadow agreement are among it."""
    with keeping(memory / "received") as server:
        first, second, third = street.releases
        rollout, exposed = street.roll("good", second, first, server, Manner())
        assert actions(rollout) == ["start", "advance", "advance", "complete"]
        shown = {finding["quantity"] for finding in rollout.log.entries[1].judgement["findings"]}
        assert shown == {criterion.quantity for criterion in load_stages(None)[0].criteria}
        held_out = sum(assignment(rollout.plan, name).role == "holdout" for name in street.roads)
        assert exposed[0] == 0 < exposed[1] < exposed[2] == FLEET - held_out
        assert street.running() == {first: held_out, second: FLEET - held_out}

        for name, manner, quantity, stages in (
            ("slow", Manner(misses=3), "deadline_misses", ["start", "advance", "rollback"]),
            ("blind", Manner(blinder=True), "output_drift", ["start", "advance", "rollback"]),
            ("contrary", Manner(agreed=0.7), "shadow_disagreement", ["start", "rollback"]),
        ):
            rollout, exposed = street.roll(name, third, second, server, manner)
            assert actions(rollout) == stages, rollout.log.last.reason
            assert quantity in rollout.log.last.reason
            assert exposed[-1] < FLEET / 2
            assert (exposed[-1] > 0) is (quantity != "shadow_disagreement")
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
