"""An object store by its own protocol gives the same answer as a folder, or one line says why not."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid

import duckdb
import pytest
import requests

from perception.cli import main
from perception.errors import OutputError, RolloutError
from safety_gates.rollout.decision import json_of, judge_stage
from safety_gates.rollout.decision_log import FOLDER
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.fleet_file import Fleet, read_fleet
from safety_gates.rollout.ingest import RECORDS, TELEMETRY, Scope, ingest, total_counts
from safety_gates.rollout.rollout import open_rollout
from safety_gates.rollout.uploads import uploads_at
from tests.disk import room_for
from tests.perception.fleet import NOW_NS
from tests.safety_gates.rollout.field import DAY_NS
from tests.safety_gates.rollout.s3 import Server

PREFIX = "fleet/records"


@pytest.fixture(scope="module")
def server():
    with Server().running() as running:
        yield running


@pytest.fixture
def store(server, monkeypatch):
    """A bucket of its own, reached as the environment says."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"records-{uuid.uuid4().hex}"
    server.client.create_bucket(Bucket=bucket)
    server.asked.clear()
    yield f"s3://{bucket}/{PREFIX}"
    server.answers = server.page = None


@pytest.fixture
def rollout(advanced):
    return advanced


def put(server, store, folder):
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    server.put(folder, bucket, prefix)
    server.asked.clear()


def taken(rollout, cars, where, *, fleet=None):
    scope = Scope(rollout.plan, NOW_NS, NOW_NS + 2 * DAY_NS)
    return dict(ingest(rollout.log.folder, uploads_at(str(where)), fleet or read_fleet(cars.fleet_file), scope))


def twin(rollout, tmp_path):
    """The same rollout in another folder, which has read nothing yet."""
    shutil.copytree(rollout.log.folder / FOLDER, tmp_path / "twin" / FOLDER)
    return open_rollout(tmp_path / "twin")


def answer(rollout):
    """Every row that counts, and what a look makes of it."""
    records = [str(path) for path in sorted((rollout.log.folder / TELEMETRY).glob(f"[0-9]*/{RECORDS}"))]
    rows = duckdb.sql(f"SELECT * FROM read_parquet({records}) ORDER BY vehicle, sequence").fetchall()
    now_ns = NOW_NS + 2 * DAY_NS
    table = vehicle_table(rollout, now_ns)
    return rows, json_of(judge_stage(rollout.file, rollout.stage, table, at=rollout.next_look(now_ns)))


def nothing_of(rollout):
    return not list((rollout.log.folder / TELEMETRY).glob("[0-9]*"))


def in_every_form(rollout, cars):
    """Good records and a tenth of garbage, as JSON lines, Parquet and one file a record."""
    cars.drive_before_and_with(rollout)
    bad = [cars.garbage(rollout, number)[0] for number in range(26)]
    (cars.uploads / "z.jsonl").write_bytes(b"".join(bad[:10]))
    lines = [line for path in sorted(cars.uploads.glob("[0-9]*.jsonl")) for line in path.read_bytes().splitlines()]
    with duckdb.connect() as database:
        database.execute("CREATE TABLE t (line VARCHAR)")
        database.executemany("INSERT INTO t VALUES (?)", [[line.decode()] for line in lines[100:]])
        database.execute("INSERT INTO t VALUES (NULL), ('not a record')")
        database.execute(f"COPY t TO '{cars.uploads / 'y.parquet'}' (FORMAT parquet)")
    (cars.uploads / "a.parquet").write_bytes(b"PAR1 garbage")
    for path in cars.uploads.glob("[0-9]*.jsonl"):
        path.unlink()
    for number, line in enumerate([*lines[:110], *bad[10:]]):
        folder = cars.uploads / f"car-{number % 40}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:020d}.json").write_bytes(line)


class TestTheSameAsAFolder:
    def test_ten_percent_garbage_in_every_form_gives_the_same_counts_rows_and_figures(
        self, server, store, rollout, cars, tmp_path
    ):
        in_every_form(rollout, cars)
        put(server, store, cars.uploads)
        elsewhere = twin(rollout, tmp_path)
        counts = taken(rollout, cars, cars.uploads)
        assert counts["accepted"] == 240
        assert counts["duplicate"] == 10
        assert all(counts[reason] > 0 for reason in ("malformed", "forged", "skewed", "foreign", "replayed"))
        assert taken(elsewhere, cars, store) == counts
        assert answer(elsewhere) == answer(rollout)

    def test_what_was_read_is_not_read_again_and_what_was_written_anew_is(self, server, store, rollout, cars, tmp_path):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=2)
        (cars.uploads / "notes.txt").write_text("no records")
        (cars.uploads / ".half.jsonl").write_text("somebody is still writing it")
        put(server, store, cars.uploads)
        assert taken(rollout, cars, store) == {"accepted": 80}
        assert taken(rollout, cars, store + "/") == {}
        assert taken(twin(rollout, tmp_path), cars, cars.uploads) == {"accepted": 80}
        assert server.asked == {"list": 2, "GET": 1}
        (file,) = cars.uploads.glob("[0-9]*.jsonl")
        file.write_bytes(file.read_bytes() + cars.line(rollout, "car-1", NOW_NS + DAY_NS))
        put(server, store, cars.uploads)
        assert taken(rollout, cars, store) == {"duplicate": 80, "accepted": 1}

    def test_a_file_takes_one_request_and_so_does_a_page_of_names(self, server, store, rollout, cars, tmp_path):
        (tmp_path / "many").mkdir()
        for number in range(95):
            (tmp_path / "many" / f"{number:020d}.json").write_bytes(cars.garbage(rollout, 0)[0])
        put(server, store, tmp_path / "many")
        server.page = 10
        assert taken(rollout, cars, store) == {"malformed": 95}
        assert server.asked == {"list": 10, "GET": 95}

    def test_the_command_line_takes_a_stores_url(self, server, store, rollout, cars, capsys):
        words = ["rollout", "ingest", str(rollout.log.folder), "--fleet", str(cars.fleet_file)]
        assert main([*words, store]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"tollgate rollout: {store}: holds no ")
        assert said.count("\n") == 1
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        put(server, store, cars.uploads)
        assert main([*words, store, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["accepted"] + total_counts(rollout.log.folder)["skewed"] == 40


class TestFaults:
    def test_a_store_that_goes_away_in_the_middle_counts_nothing_and_the_next_ingest_counts_all(
        self, server, store, rollout, cars, tmp_path
    ):
        in_every_form(rollout, cars)
        put(server, store, cars.uploads)
        server.answers = 60
        with pytest.raises(RolloutError, match=r"s3://.*json: http://.*nothing was counted.*run it again") as refused:
            taken(rollout, cars, store)
        assert "\n" not in str(refused.value)
        assert nothing_of(rollout)
        assert server.asked["GET"] == 60
        server.answers = None
        elsewhere = twin(rollout, tmp_path)
        assert taken(rollout, cars, store) == taken(elsewhere, cars, cars.uploads)
        assert answer(elsewhere) == answer(rollout)

    def test_on_a_full_disk_nothing_is_added_and_the_next_ingest_adds_all(self, server, store, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=3)
        put(server, store, cars.uploads)
        for room in (0, 20_000, 60_000):
            with room_for(room), pytest.raises(OutputError, match="free space"):
                taken(rollout, cars, store)
            assert nothing_of(rollout)
        assert taken(rollout, cars, store) == {"accepted": 120}

    def test_copies_leave_nothing_behind(self, server, store, rollout, cars):
        in_every_form(rollout, cars)
        put(server, store, cars.uploads)
        taken(rollout, cars, store)
        left = {path.name for path in (rollout.log.folder / TELEMETRY).rglob("*")}
        assert left == {".lock", "fleet.parquet", "000001", "records.parquet", "files.json", "counts.json"}

    def test_a_file_that_grows_while_it_is_read_is_read_once_more(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        (file,) = cars.uploads.iterdir()
        late = cars.line(rollout, "car-3", NOW_NS + DAY_NS + 10**9)

        class Busy(Fleet):
            """A vehicle's record arrives when the last one of the file is looked at."""

            seen = 0

            def __getitem__(self, key_id):
                self.seen += 1
                if self.seen == 40:
                    path = file.with_suffix(".ndjson")
                    path.write_bytes(file.read_bytes() + late)
                    path.replace(file)
                return super().__getitem__(key_id)

        busy = Busy(read_fleet(cars.fleet_file)._lines)
        assert taken(rollout, cars, cars.uploads, fleet=busy) == {"accepted": 40}
        assert taken(rollout, cars, cars.uploads) == {"duplicate": 40, "accepted": 1}

    def test_a_file_that_vanishes_before_it_is_read_ends_the_ingest(self, rollout, cars):
        cars.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=1)
        (cars.uploads / "z.jsonl").write_bytes(cars.line(rollout, "car-3", NOW_NS + DAY_NS + 10**9))

        class Busy(Fleet):
            def __getitem__(self, key_id):
                (cars.uploads / "z.jsonl").unlink(missing_ok=True)
                return super().__getitem__(key_id)

        with pytest.raises(RolloutError, match=r"z\.jsonl: cannot be read .*nothing was counted"):
            taken(rollout, cars, cars.uploads, fleet=Busy(read_fleet(cars.fleet_file)._lines))
        assert nothing_of(rollout)
        assert taken(rollout, cars, cars.uploads) == {"accepted": 40}


class TestWrongAddresses:
    def refused(self, rollout, cars, where, match):
        with pytest.raises(RolloutError, match=match) as refused:
            taken(rollout, cars, where)
        assert "\n" not in str(refused.value)
        assert nothing_of(rollout)

    def test_a_bucket_that_is_not_there(self, store, rollout, cars):
        self.refused(
            rollout, cars, "s3://no-such-bucket/x", r"s3://no-such-bucket/x: .* NoSuchBucket: .*check the bucket"
        )

    def test_a_prefix_without_files(self, store, rollout, cars):
        self.refused(rollout, cars, f"{store}x", r"holds no \.json, .*check the bucket and the prefix")

    def test_credentials_that_the_store_does_not_know(self, server, store, rollout, cars):
        requests.post(f"{server.url}/moto-api/reset-auth", data="0", timeout=10)
        try:
            self.refused(rollout, cars, store, r"InvalidAccessKeyId: .*check .* credentials")
        finally:
            requests.post(f"{server.url}/moto-api/reset-auth", data="inf", timeout=10)

    def test_no_credentials_at_all(self, store, rollout, cars, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
        self.refused(rollout, cars, store, r"s3://.*: no credentials in the environment, none from this machine")

    def test_an_endpoint_where_nobody_answers(self, store, rollout, cars, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        self.refused(rollout, cars, store, r"http://127\.0\.0\.1:9/records-\w+: Connection refused; .*endpoint")

    @pytest.mark.parametrize("where", ["ftp://host/x", "http://host/x", "://x"])
    def test_another_protocol(self, rollout, cars, where):
        self.refused(rollout, cars, where, "expected a folder, or a store at s3://, gs://")

    def test_a_url_without_a_bucket(self, rollout, cars):
        self.refused(rollout, cars, "s3://", "s3://: .*Unable to recognise URL")

    def test_the_library_is_missing(self, rollout, cars, monkeypatch):
        monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
        self.refused(rollout, cars, "s3://bucket/x", r"obstore is not installed; run: pip install 'tollgate\[store\]'")
