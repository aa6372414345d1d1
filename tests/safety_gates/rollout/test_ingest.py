"""Only records that can be believed count, once; the rest is counted and moves nothing."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pytest

from perception.cohort import assignment
from perception.errors import OutputError, RolloutError
from safety_gates.rollout.decision import json_of, judge_stage
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.fleet_file import fleet_line, read_fleet
from safety_gates.rollout.ingest import RECORDS, TELEMETRY, Scope, ingest, total_counts
from safety_gates.rollout.quantities import LENT_MISSES
from safety_gates.rollout.uploads import UploadFolder
from tests.disk import room_for
from tests.perception.fleet import CANDIDATE, NOW_NS
from tests.safety_gates.rollout.field import DAY_NS, begun

DRIFT = {"counts": [1], "divergence": 0.9}


@pytest.fixture
def rollout(advanced):
    return advanced


def taken(rollout, cars, *, now_ns=NOW_NS + 2 * DAY_NS):
    return dict(
        ingest(
            rollout.log.folder,
            UploadFolder(cars.uploads),
            read_fleet(cars.fleet_file),
            Scope(rollout.plan, NOW_NS, now_ns),
        )
    )


def figures(rollout, now_ns=NOW_NS + 2 * DAY_NS):
    """What a look says, as a log would keep it."""
    look = rollout.next_look(now_ns)
    return json_of(judge_stage(rollout.file, rollout.stage, vehicle_table(rollout, now_ns), at=look))


class TestGarbage:
    def test_ten_percent_garbage_is_counted_and_moves_no_figure(self, rollout, cars):
        cars.drive_before_and_with(rollout)
        clean = taken(rollout, cars)
        expected = figures(rollout)
        assert clean == {"accepted": 240}
        bad = [cars.garbage(rollout, number) for number in range(26)]
        (cars.uploads / "z.jsonl").write_bytes(b"".join(line for line, _ in bad))
        counts = taken(rollout, cars)
        assert counts == {reason: sum(kind == reason for _, kind in bad) for reason in {kind for _, kind in bad}}
        assert figures(rollout) == expected
        assert total_counts(rollout.log.folder)["accepted"] == 240

    def test_the_same_garbage_before_the_good_records_moves_nothing_either(self, rollout, cars):
        (cars.uploads / "a.jsonl").write_bytes(b"".join(cars.garbage(rollout, n)[0] for n in range(6)))
        taken(rollout, cars)
        cars.drive_before_and_with(rollout)
        taken(rollout, cars)
        assert figures(rollout)["evidence"]["drives"] == 3 * self.candidates(rollout, cars)

    def candidates(self, rollout, cars):
        return sum(assignment(rollout.plan, name).role == "candidate" for name in cars.signers)

    def test_records_off_the_plan_say_nothing(self, rollout, cars):
        cars.drive_before_and_with(rollout)
        taken(rollout, cars)
        expected = figures(rollout)
        control = next(name for name in cars.signers if assignment(rollout.plan, name).role == "control")
        line = cars.line(rollout, control, NOW_NS + DAY_NS + 10**12, late=18_000, release=CANDIDATE, ended="crash")
        (cars.uploads / "off.jsonl").write_bytes(line)
        assert taken(rollout, cars) == {"accepted": 1}
        assert figures(rollout) == expected

    def test_a_clock_slightly_ahead_is_forgiven(self, rollout, cars):
        now_ns = NOW_NS + 2 * DAY_NS
        ahead = [cars.line(rollout, "car-1", now_ns + minutes * 60 * 10**9, duration_s=0.0) for minutes in (9, 11)]
        (cars.uploads / "a.jsonl").write_bytes(b"".join(ahead))
        assert taken(rollout, cars) == {"accepted": 1, "skewed": 1}


class TestIdempotence:
    def test_a_file_that_was_read_is_not_read_again_and_a_copy_counts_as_duplicates(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=2)
        assert taken(rollout, cars) == {"accepted": 80}
        assert taken(rollout, cars) == {}
        (file,) = cars.uploads.iterdir()
        (cars.uploads / "copy.jsonl").write_bytes(file.read_bytes() + file.read_bytes())
        assert taken(rollout, cars) == {"duplicate": 160}
        assert figures(rollout)["evidence"]["control_drives"] + figures(rollout)["evidence"]["drives"] == 80

    def test_one_file_a_record_parquet_and_json_lines_give_the_same(self, rollout, cars, tmp_path, key):
        lines = [cars.line(rollout, name, NOW_NS + DAY_NS + 10**9) for name in cars.signers]
        (cars.uploads / "car-1").mkdir()
        for number, line in enumerate(lines[:10]):
            (cars.uploads / "car-1" / f"{number:020d}.json").write_bytes(line)
        (cars.uploads / "b.ndjson").write_bytes(b"".join(lines[10:20]))
        with duckdb.connect() as database:
            database.execute("CREATE TABLE t (line VARCHAR)")
            database.executemany("INSERT INTO t VALUES (?)", [[line.decode()] for line in lines[20:]])
            database.execute(f"COPY t TO '{cars.uploads / 'c.parquet'}' (FORMAT parquet)")
        assert taken(rollout, cars) == {"accepted": 40}

    def test_a_file_that_is_no_parquet_counts_as_one_malformed_record(self, rollout, cars):
        (cars.uploads / "a.parquet").write_bytes(b"PAR1 garbage")
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        assert taken(rollout, cars) == {"malformed": 1, "accepted": 40}

    def test_a_parquet_column_of_numbers_holds_no_records(self, rollout, cars):
        with duckdb.connect() as database:
            path = cars.uploads / "a.parquet"
            database.execute(f"COPY (SELECT 10_000_000_000_000 AS line FROM range(3)) TO '{path}' (FORMAT parquet)")
        assert taken(rollout, cars) == {"malformed": 3}

    def test_nothing_new_adds_no_batch(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        taken(rollout, cars)
        taken(rollout, cars)
        assert [path.name for path in (rollout.log.folder / TELEMETRY).glob("[0-9]*")] == ["000001"]

    def test_a_record_that_comes_late_still_counts_in_its_stage(self, rollout, cars):
        late = cars.line(rollout, "car-3", NOW_NS + DAY_NS + 10**9)
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        taken(rollout, cars)
        (cars.uploads / "late.jsonl").write_bytes(late)
        assert taken(rollout, cars, now_ns=NOW_NS + 9 * DAY_NS) == {"accepted": 1}


class TestFaults:
    def test_on_a_full_disk_nothing_is_added_and_the_next_ingest_adds_all(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=3)
        for room in (0, 2_000, 20_000, 60_000):
            with room_for(room), pytest.raises(OutputError, match="free space"):
                taken(rollout, cars)
            assert not list((rollout.log.folder / TELEMETRY).glob("[0-9]*"))
        assert taken(rollout, cars) == {"accepted": 120}

    def test_two_ingests_at_once_add_every_record_once(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=3)

        def attempt(_):
            try:
                return taken(rollout, cars)
            except RolloutError as refused:
                return str(refused)

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(attempt, range(4)))
        assert sum(each.get("accepted", 0) for each in results if isinstance(each, dict)) == 120
        assert all("somebody else is ingesting" in each for each in results if isinstance(each, str))

    def test_without_records_a_look_says_what_to_do(self, rollout):
        with pytest.raises(RolloutError, match="add some with: tollgate rollout ingest"):
            vehicle_table(rollout, NOW_NS)

    def test_a_damaged_store_is_told(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        taken(rollout, cars)
        (rollout.log.folder / TELEMETRY / "000001" / RECORDS).write_bytes(b"PAR1")
        with pytest.raises(RolloutError, match="cannot be read"):
            vehicle_table(rollout, NOW_NS + 2 * DAY_NS)

    def test_a_source_that_is_no_folder_is_refused(self, rollout, cars, tmp_path):
        with pytest.raises(RolloutError, match="is no folder"):
            ingest(
                rollout.log.folder,
                UploadFolder(tmp_path / "nothing"),
                read_fleet(cars.fleet_file),
                Scope(rollout.plan, 0, NOW_NS),
            )


class TestTable:
    def test_groups_follow_the_draw_and_expected_is_what_control_had_in_the_same_hours(self, rollout, cars):
        cars.drive_before_and_with(rollout)
        taken(rollout, cars)
        table = vehicle_table(rollout, NOW_NS + 2 * DAY_NS)
        assert int(table.candidate.sum()) == sum(
            assignment(rollout.plan, name).role == "candidate" for name in cars.signers
        )
        assert table.now["drives"].tolist() == [3.0] * 40
        assert table.before["drives"].tolist() == [3.0] * 40
        control = ~table.candidate
        lent = 3 * LENT_MISSES  # drives fall into three quarters of the day
        assert table.now["misses_expected"][control].sum() == pytest.approx(table.now["misses"][control].sum() + lent)
        assert table.before["misses_expected"].sum() == pytest.approx(table.before["misses"].sum() + lent)

    def test_misses_roll_back_where_control_has_none_at_all(self, rollout, cars):
        none = {"late": 0, "output_drift": None}
        cars.usual = dict.fromkeys(cars.usual, 0.0)
        cars.drive(rollout, from_ns=NOW_NS, drives=3, role="control", release=rollout.plan.control.model_dump(), **none)
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=3, late=1800)
        taken(rollout, cars)
        found = figures(rollout)
        assert found["outcome"] == "ROLLBACK"
        assert "deadline_misses: 32 × control" in found["reason"]

    def test_drives_in_hours_in_which_control_did_not_drive_are_compared_with_nothing(self, rollout, cars):
        cars.drive_before_and_with(rollout)
        taken(rollout, cars)
        before = figures(rollout)
        drawn = [name for name in cars.signers if assignment(rollout.plan, name).role == "candidate"]
        alone_ns = NOW_NS + 2 * DAY_NS + DAY_NS // 2
        lines = [cars.line(rollout, name, alone_ns, late=9000, input_drift=DRIFT, output_drift=DRIFT) for name in drawn]
        (cars.uploads / "night.jsonl").write_bytes(b"".join(lines))
        assert taken(rollout, cars, now_ns=NOW_NS + 3 * DAY_NS) == {"accepted": len(drawn)}
        after = figures(rollout, NOW_NS + 3 * DAY_NS)
        assert after["evidence"]["drives"] == before["evidence"]["drives"] + len(drawn)
        p_harm = [{each["quantity"]: each["p_harm"] for each in found["findings"]} for found in (before, after)]
        assert p_harm[0] == p_harm[1]

    def test_a_vehicle_that_fell_silent_is_in_the_table(self, rollout, cars):
        cars.drive_before_and_with(rollout)
        path = cars.uploads / f"{NOW_NS + DAY_NS}.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[6:]))
        taken(rollout, cars)
        table = vehicle_table(rollout, NOW_NS + 2 * DAY_NS)
        assert int(table.now["silent"].sum()) == 2
        assert np.all(table.now["drives"][table.now["silent"] > 0] == 0)

    def test_a_folder_may_have_any_name(self, tmp_path, key, cars):
        started = begun(tmp_path / "may [1]*?'", key)
        cars.drive(started, from_ns=NOW_NS, drives=2)
        assert taken(started, cars) == {"accepted": 80}
        assert vehicle_table(started, NOW_NS + 2 * DAY_NS).now["drives"].sum() == 80


class TestFleetFile:
    def test_a_key_that_two_vehicles_share_is_refused(self, tmp_path, key):
        path = tmp_path / "fleet.jsonl"
        path.write_text(fleet_line("car-1", key.public_key) + fleet_line("car-2", key.public_key))
        with pytest.raises(RolloutError, match=r"line 2: car-2 has the key of car-1"):
            read_fleet(path)

    @pytest.mark.parametrize("text", ["{}", "[]", "car-1", '{"vehicle_id": "a", "key_id": "b", "key": {}}'])
    def test_a_line_that_is_no_vehicle_is_named(self, tmp_path, key, text):
        path = tmp_path / "fleet.jsonl"
        path.write_text(fleet_line("car-1", key.public_key) + text + "\n")
        with pytest.raises(RolloutError, match="line 2: no vehicle"):
            read_fleet(path)

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(RolloutError, match="no readable fleet file"):
            read_fleet(tmp_path / os.devnull.strip("/") / "fleet.jsonl")
