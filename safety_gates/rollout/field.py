"""What the field says: one row a vehicle, asked from the store of ingested records.

A vehicle's group follows from the draw and not from what it reports: records of a vehicle that drove another release
than the plan gave it say nothing about either. Records count in the stage in which the drive began, on the vehicle's
clock. Expected figures are those of all drives on the control release that began in the same quarter of a day; where
there was none, misses and drift are compared with nothing and left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import numpy as np

from perception.errors import RolloutError
from safety_gates.rollout.decision_log import Entry
from safety_gates.rollout.ingest import FLEET, RECORDS, TELEMETRY, literal
from safety_gates.rollout.quantities import COLUMNS, LENT_DRIFT, LENT_MISSES, VehicleTable
from safety_gates.rollout.rollout import HOUR_NS, Rollout

HOURS_ALIKE = 6

# What control had in the same quarter of a day.
_ALIKE = f"""
CREATE TEMP TABLE alike AS
SELECT started_ns // $alike AS hour, (sum(misses) + {LENT_MISSES}) / nullif(sum(frames), 0) AS misses,
       avg(input_drift) + {LENT_DRIFT} AS input_drift,
       avg(output_drift) + {LENT_DRIFT} AS output_drift
FROM records WHERE release = $control AND started_ns >= $began AND started_ns < $now GROUP BY 1
"""
# Drives of the stage and of the time before it, with the group the draw gave the vehicle.
_DRIVES = """
CREATE TEMP VIEW drives AS
SELECT r.vehicle, f.shadow AS place, r.started_ns >= $since AS now,
       f.holdout >= $holdout AND CASE WHEN $share > 0 THEN f.share < $share ELSE f.shadow < $shadow END AS drawn,
       r.release = CASE WHEN drawn AND $share > 0 AND now THEN $candidate ELSE $control END AS on_plan,
       1 AS drives, (NOT r.clean)::INTEGER AS crashed, (r.faults > 0)::INTEGER AS faulty,
       r.frames, r.misses * (a.misses IS NOT NULL)::INTEGER AS misses, r.frames * a.misses AS misses_expected,
       r.input_drift * (a.input_drift IS NOT NULL)::INTEGER AS input_drift,
       CASE WHEN r.input_drift IS NOT NULL THEN a.input_drift END AS input_expected,
       r.output_drift * (a.output_drift IS NOT NULL)::INTEGER AS output_drift,
       CASE WHEN r.output_drift IS NOT NULL THEN a.output_drift END AS output_expected,
       r.compared - r.agreed AS disagreed, r.compared
FROM records r JOIN fleet f ON f.number = r.vehicle LEFT JOIN alike a ON a.hour = r.started_ns // $alike
WHERE (r.started_ns >= $since AND r.started_ns < $now) OR (r.started_ns >= $began AND r.started_ns < $before)
"""
_SUMMED = tuple(name for name in COLUMNS if name != "silent")
_SUMS = ", ".join(
    f"coalesce(sum({name}) FILTER ({when} AND on_plan), 0)::DOUBLE AS {prefix}_{name}"
    for prefix, when in (("now", "now"), ("before", "NOT now"))
    for name in _SUMMED
)
# One row a vehicle, in an order that knows nothing of who was drawn for the candidate.
_VEHICLES = f"""
SELECT any_value(drawn) AS drawn, {_SUMS}, 0.0 AS before_silent,
       (count(*) FILTER (NOT now AND on_plan) > 0 AND count(*) FILTER (now) = 0)::INTEGER::DOUBLE AS now_silent
FROM drives GROUP BY vehicle ORDER BY any_value(place)
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Which records a look reads: instants on the vehicles' clocks.

    Attributes:
        began_ns: when the rollout began; from then until `before_ns` no vehicle had the candidate.
        since_ns, now_ns: the stage.
    """

    began_ns: int
    before_ns: int
    since_ns: int
    now_ns: int


def window_of(rollout: Rollout, now_ns: int) -> Window:
    """The current stage, and the time before the first stage with candidates."""
    entries = rollout.log.entries
    first = next((entry.stage_since_ns for entry in entries if _has_candidates(entry)), now_ns)
    since_ns = rollout.log.last.stage_since_ns
    return Window(entries[0].at_ns, min(first, since_ns), since_ns, now_ns)


def vehicle_table(rollout: Rollout, now_ns: int) -> VehicleTable:
    """Every vehicle that reported in the stage or before it.

    Raises:
        RolloutError: nothing was ingested yet, or the store is damaged.
    """
    store = rollout.log.folder / TELEMETRY
    records = sorted(store.glob(f"[0-9]*/{RECORDS}"))
    if not (store / FLEET).exists() or not records:
        raise RolloutError(f"{store}: holds no records; add some with: tollgate rollout ingest")
    try:
        with duckdb.connect() as database:
            for name, paths in (("fleet", [store / FLEET]), ("records", records)):
                files = ", ".join(map(literal, paths))
                database.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}])")
            found = _ask(database, rollout, window_of(rollout, now_ns))
    except duckdb.Error as error:
        raise RolloutError(f"{store}: cannot be read ({str(error).splitlines()[0]}); restore it from a copy") from error
    columns = {name: np.asarray(np.ma.filled(values, 0.0)) for name, values in found.items()}
    return VehicleTable(
        columns["drawn"].astype(bool),
        {name: columns[f"now_{name}"].astype(float) for name in COLUMNS},
        {name: columns[f"before_{name}"].astype(float) for name in COLUMNS},
    )


def _ask(
    database: duckdb.DuckDBPyConnection, rollout: Rollout, window: Window
) -> dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]]:
    plan, stage = rollout.plan, rollout.stage
    values = {
        "alike": HOURS_ALIKE * HOUR_NS,
        "began": window.began_ns,
        "before": window.before_ns,
        "since": window.since_ns,
        "now": window.now_ns,
        "control": plan.control.sha256,
        "candidate": plan.candidate.sha256,
        "holdout": plan.holdout,
        "share": stage.share,
        "shadow": stage.shadow,
    }
    for name, value in values.items():
        database.execute(f"SET VARIABLE {name} = ?", [value])
    for statement in (_ALIKE, _DRIVES):
        database.execute(_with_variables(statement))
    found: dict[str, np.ndarray[tuple[int], np.dtype[np.generic]]] = database.execute(_VEHICLES).fetchnumpy()
    return found


def _with_variables(statement: str) -> str:
    """A view cannot take parameters; it can read the connection's variables."""
    return re.sub(r"\$(\w+)", r"getvariable('\1')", statement)


def _has_candidates(entry: Entry) -> bool:
    return entry.plan.current.share > 0
