"""From signed lines to a table that can be asked: what cannot be believed is counted and left out.

Read are JSON lines (`*.json`, `*.jsonl`, `*.ndjson`) and Parquet files with a column `line`, both of what
`perception.telemetry_record.sign_record` writes.

A record counts once its vehicle's signature verified, its instant can be, it belongs to this rollout, and its number
is new. Everything else is dropped and counted under one of `REASONS`. Each ingest adds one batch, whole or not at all;
files that were read before are not read again.

The store, inside the rollout's folder::

    telemetry/fleet.parquet              number, vehicle_id and the vehicle's three places in the draw
    telemetry/000001/records.parquet     what counts, one row a drive
    telemetry/000001/files.json          what was read
    telemetry/000001/counts.json         how many of what
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from perception.cohort import RolloutPlan, place
from perception.errors import OutputError, RolloutError, VerificationError
from perception.files import json_bytes, locked, sha256_of_bytes, staged_file, staged_folder
from perception.telemetry_record import MOST_RECORD_BYTES, DriveRecord, read_record
from safety_gates.rollout.fleet_file import Fleet
from safety_gates.rollout.uploads import PARQUET, Upload, Uploads, unreadable

TELEMETRY, FLEET, RECORDS, FILES, COUNTS = "telemetry", "fleet.parquet", "records.parquet", "files.json", "counts.json"
MOST_AHEAD_NS = 10 * 60 * 10**9
REASONS = {
    "accepted": "counted",
    "malformed": "no signed record, or one that contradicts itself",
    "forged": "not signed by the vehicle it names",
    "skewed": "from a clock that cannot be: the future, or before the rollout began",
    "foreign": "of another rollout, or of a release that is neither candidate nor control",
    "duplicate": "sent before, byte for byte",
    "replayed": "another record under a number that was used before",
}
COLUMNS = {
    "vehicle_id": "VARCHAR",
    "sequence": "BIGINT",
    "digest": "VARCHAR",
    "started_ns": "BIGINT",
    "release": "VARCHAR",
    "role": "VARCHAR",
    "clean": "BOOLEAN",
    "frames": "BIGINT",
    "misses": "BIGINT",
    "faults": "BIGINT",
    "compared": "BIGINT",
    "agreed": "BIGINT",
    "input_drift": "DOUBLE",
    "output_drift": "DOUBLE",
    "temperature_max_c": "DOUBLE",
    "latency": "VARCHAR",
    "slot_events": "VARCHAR",
    "versions": "VARCHAR",
}
PLACES = {"number": "INTEGER", "vehicle_id": "VARCHAR", "share": "DOUBLE", "shadow": "DOUBLE", "holdout": "DOUBLE"}
_KEPT = tuple(name for name in COLUMNS if name != "vehicle_id")


@dataclass(frozen=True, slots=True)
class Scope:
    """What records may belong to: a rollout, since when, and what time it is now."""

    plan: RolloutPlan
    began_ns: int
    now_ns: int


def ingest(folder: Path, source: Uploads, fleet: Fleet, scope: Scope) -> Counter[str]:
    """Add what is new in `source` to the rollout's store; returns how many of each of `REASONS`.

    Raises:
        RolloutError: `source` cannot be read, or somebody else is ingesting; nothing was added.
        OutputError: the disk is full; nothing was added.
    """
    store, counts = folder / TELEMETRY, Counter[str]()
    busy = RolloutError(f"{store}: somebody else is ingesting; wait for them and try again")
    with locked(store / ".lock", busy=busy):
        files = _unread(store, source)
        if not files:
            return counts
        with staged_folder(store / f"{_next_batch(store):06d}") as batch:
            write_fleet(store, batch, fleet, scope.plan)
            rows = batch / "rows.jsonl"
            with rows.open("w", encoding="utf-8") as out:
                lines = _lines_of(source.read(files, batch), counts)
                out.writelines(json.dumps(row) + "\n" for row in _believed(lines, fleet, scope, counts))
            _write_batch(store, batch, rows, counts)
            rows.unlink()
            (batch / FILES).write_bytes(json_bytes([_identity(file) for file in files]))
            (batch / COUNTS).write_bytes(json_bytes(dict(counts)))
    return counts


def total_counts(folder: Path) -> dict[str, int]:
    """What all ingests together counted."""
    counts: Counter[str] = Counter()
    for path in sorted((folder / TELEMETRY).glob(f"[0-9]*/{COUNTS}")):
        counts.update(json.loads(path.read_bytes()))
    return {reason: counts[reason] for reason in REASONS}


def write_fleet(store: Path, scratch: Path, fleet: Fleet, plan: RolloutPlan) -> None:
    """Write every vehicle with its places; a vehicle that is known keeps its number.

    Args:
        store: where `FLEET` stands.
        scratch: folder for what is thrown away.
        fleet: every vehicle of today.
        plan: whose draw.

    Raises:
        OutputError: the disk is full; the earlier table is untouched.
    """
    path = store / FLEET
    with _database(path) as database:
        known: dict[str, int] = {}
        if path.exists():
            known = dict(database.execute("SELECT vehicle_id, number FROM read_parquet(?)", [str(path)]).fetchall())
        new = [vehicle_id for vehicle_id in fleet.vehicle_ids() if vehicle_id not in known]
        if not new and path.exists():
            return
        everyone = {**known, **{vehicle_id: len(known) + index for index, vehicle_id in enumerate(new)}}
        lines = scratch / "places.jsonl"
        with lines.open("w", encoding="utf-8") as out:
            for vehicle_id, number in everyone.items():
                places = {draw: place(plan.salt, vehicle_id, draw) for draw in ("share", "shadow", "holdout")}
                out.write(json.dumps({"number": number, "vehicle_id": vehicle_id, **places}) + "\n")
        with staged_file(path) as staged:
            _copy(database, f"SELECT * FROM {_json_rows(lines, PLACES)} ORDER BY number", staged)
        lines.unlink()


def _believed(lines: Iterable[bytes], fleet: Fleet, scope: Scope, counts: Counter[str]) -> Iterator[dict[str, object]]:
    """Rows of records that verified and may belong to the rollout, with their turn; the others are counted."""
    for turn, line in enumerate(lines):
        row, reason = _judged(line, fleet, scope)
        if row is None:
            counts[reason] += 1
        else:
            yield {"turn": turn, **row}


def _judged(line: bytes, fleet: Fleet, scope: Scope) -> tuple[dict[str, object] | None, str]:
    try:
        record = read_record(line, fleet)
    except VerificationError:
        return None, "forged"
    except RolloutError:
        return None, "malformed"
    ended_ns = record.started_ns + int(record.duration_s * 1e9)
    if record.started_ns < scope.began_ns or ended_ns > scope.now_ns + MOST_AHEAD_NS:
        return None, "skewed"
    releases = (scope.plan.candidate.sha256, scope.plan.control.sha256)
    if record.rollout != scope.plan.rollout or record.release.sha256 not in releases:
        return None, "foreign"
    return _row(record, sha256_of_bytes(line.strip())), "accepted"


def _row(record: DriveRecord, digest: str) -> dict[str, object]:
    shadow = record.shadow
    return {
        "vehicle_id": record.vehicle_id,
        "sequence": record.sequence,
        "digest": digest,
        "started_ns": record.started_ns,
        "release": record.release.sha256,
        "role": record.role,
        "clean": record.ended == "clean",
        "frames": record.frames,
        "misses": record.misses,
        "faults": sum(record.faults.values()),
        "compared": shadow.compared if shadow else 0,
        "agreed": shadow.agreed if shadow else 0,
        "input_drift": record.input_drift.divergence if record.input_drift else None,
        "output_drift": record.output_drift.divergence if record.output_drift else None,
        "temperature_max_c": record.temperature_max_c,
        "latency": record.latency.model_dump_json(),
        "slot_events": json.dumps([event.model_dump() for event in record.slot_events]),
        "versions": json.dumps(record.versions),
    }


def _lines_of(paths: Iterable[Path], counts: Counter[str]) -> Iterator[bytes]:
    """Non-empty lines of all files; a file that is no Parquet although it says so counts as one malformed record."""
    for path in paths:
        if path.suffix != PARQUET:
            yield from _text_lines(path)
            continue
        try:
            yield from _parquet_lines(path)
        except duckdb.Error:
            counts["malformed"] += 1


def _text_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MOST_RECORD_BYTES + 2):
                if line.strip():
                    yield line
    except OSError as error:
        raise unreadable(path, error) from error


def _parquet_lines(path: Path) -> Iterator[bytes]:
    with duckdb.connect() as database:
        database.execute("SELECT line FROM read_parquet(?)", [str(path)])
        while rows := database.fetchmany(4096):
            for (line,) in rows:
                yield line.encode() if isinstance(line, str) else line if isinstance(line, bytes) else b""


# Of several records under one number the first counts: that of an earlier batch, else the first that was read.
_GOT = """
CREATE TABLE got AS
SELECT f.number AS vehicle, r.* FROM {rows} r JOIN fleet f USING (vehicle_id)
"""
_FIRST = """
CREATE TABLE firsts AS
SELECT vehicle, sequence, first(digest ORDER BY batch, turn) AS digest, first(turn ORDER BY batch, turn) AS turn
FROM (SELECT vehicle, sequence, digest, 0 AS batch, -1 AS turn FROM seen
      UNION ALL SELECT vehicle, sequence, digest, 1, turn FROM got)
GROUP BY vehicle, sequence
"""
_TOLD = """
SELECT CASE WHEN got.turn = firsts.turn THEN 'accepted' WHEN got.digest = firsts.digest THEN 'duplicate'
       ELSE 'replayed' END AS reason, count(*)
FROM got JOIN firsts USING (vehicle, sequence) GROUP BY reason
"""
_FRESH = """
SELECT vehicle, {columns} FROM got JOIN firsts USING (vehicle, sequence)
WHERE got.turn = firsts.turn ORDER BY started_ns, vehicle
"""


def _write_batch(store: Path, batch: Path, rows: Path, counts: Counter[str]) -> None:
    """Write rows whose number is new, and count the others."""
    earlier = [str(path) for path in store.glob(f"[0-9]*/{RECORDS}")]
    with _database(batch) as database:
        database.execute(f"CREATE VIEW fleet AS SELECT * FROM read_parquet({literal(store / FLEET)})")
        database.execute(_GOT.format(rows=_json_rows(rows, {"turn": "BIGINT", **COLUMNS})))
        database.execute("CREATE TABLE seen AS SELECT vehicle, sequence, digest FROM got LIMIT 0")
        if earlier:
            database.execute(
                "INSERT INTO seen SELECT vehicle, sequence, digest FROM read_parquet(?) "
                "WHERE vehicle IN (SELECT vehicle FROM got)",
                [earlier],
            )
        database.execute(_FIRST)
        counts.update(dict(database.execute(_TOLD).fetchall()))
        _copy(database, _FRESH.format(columns=", ".join(f"got.{name}" for name in _KEPT)), batch / RECORDS)


def _unread(store: Path, source: Uploads) -> tuple[Upload, ...]:
    """Files of the source that no batch has read as they are now.

    They are remembered as they were listed: one that grows while it is read is read once more, and not forgotten.
    """
    read = {tuple(entry) for earlier in store.glob(f"[0-9]*/{FILES}") for entry in json.loads(earlier.read_bytes())}
    return tuple(file for file in source.files() if _identity(file) not in read)


def _identity(file: Upload) -> tuple[str, int, int | str]:
    return file.name, file.bytes, file.version


def _next_batch(store: Path) -> int:
    return max((int(path.name) for path in store.glob("[0-9]*") if path.name.isdigit()), default=0) + 1


@contextmanager
def _database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory while the block runs; what the disk complains about is one sentence.

    Raises:
        OutputError: the disk is full.
    """
    try:
        with duckdb.connect() as database:
            yield database
    except duckdb.IOException as error:
        reason = str(error).splitlines()[0]
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose a writable folder") from error


def _copy(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    database.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet)")


def _json_rows(path: Path, columns: Mapping[str, str]) -> str:
    fields = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_json({literal(path)}, format='newline_delimited', columns={{{fields}}})"


def literal(path: Path) -> str:
    """A path inside a statement."""
    quote = "'"
    return quote + str(path).replace(quote, quote * 2) + quote
