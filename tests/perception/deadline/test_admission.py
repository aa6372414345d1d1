"""Admission reckons with the cores, and what it predicts of a real overload comes true."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perception.deadline.costs import FrameCost, Rehearsal
from perception.deadline.need import Demand, Need
from perception.deadline.plan import plan_of
from perception.deadline.run import Options, Report, run_plan
from perception.errors import AdmissionError
from perception.sources.drive import DriveSource
from perception.sources.prefetch import Prefetched
from tests.perception.builders import drive_of_cameras, null_package

MS = 1_000_000
CAMERAS = 4
SPEED = 20 * len(os.sched_getaffinity(0))
"""Far beyond what any core decodes."""


def run_of(folder: Path, **options: object) -> Report:
    """Cameras of 720p H.264 before an engine that costs nothing: all the work is in reading."""
    plan = plan_of(null_package(folder / "package", service_ms=0))
    source = Prefetched(DriveSource(drive_of_cameras(folder / "drive", CAMERAS)))
    try:
        return run_plan(plan, source, options=Options(speed=SPEED, **options))
    finally:
        source.close()


def test_what_cannot_be_read_so_fast_is_refused_with_what_would_help(tmp_path: Path) -> None:
    with pytest.raises(
        AdmissionError, match=r"does not fit this machine: .* utilisation .*; what would help: .*--force"
    ):
        run_of(tmp_path)


def test_what_is_predicted_of_an_overload_of_the_cores_comes_true(tmp_path: Path) -> None:
    """CPU time is compared, and misses from below: what else the machine is doing meanwhile changes neither."""
    began_ns: list[int] = []
    report = run_of(tmp_path, force=True, limit=480, on_open=lambda _: began_ns.append(time.process_time_ns()))
    spent_ns = time.process_time_ns() - began_ns[0]
    need = report.admission.need
    cores = f"{need.cores:g} core" + "s" * (need.cores > 1)
    share = need.shares()[cores]
    frames = sum(stream.total for stream in report.tally.streams.values())
    missed = sum(stream.missed for stream in report.tally.streams.values())
    assert any(each.startswith(f"{cores}: utilisation {share:.0%}") for each in report.admission.objections)
    assert share > 2
    assert missed / frames >= 1 - 1 / share - 0.1
    predicted_ns = sum(cost.reading_ns + cost.looking_ns for cost in need.frames) / CAMERAS
    assert 0.6 < spent_ns / frames / predicted_ns < 2


@pytest.mark.parametrize(
    ("spent_ms", "passed_ms", "turn_ms"),
    [(120, 30, 3), (30, 120, 3), (-5, 30, 0)],
    ids=["waiting threads burn", "engines take longer", "nothing left"],
)
def test_the_loop_is_taken_no_longer_than_the_clock_says(spent_ms: int, passed_ms: int, turn_ms: int) -> None:
    rehearsal = Rehearsal.of(spent_ms * MS, passed_ms * MS, 10)
    assert (rehearsal.booking_ns, rehearsal.turn_ns) == (max(0, spent_ms) * MS // 10, turn_ms * MS)


def needed(
    *, reading_ms: int = 0, apart_ms: int = 0, booking_ms: int = 0, turn_ms: int = 0, cpu_ms: int = 0, cores: float = 4
) -> Need:
    """Two cameras at 10 Hz and one model."""
    frames = tuple(FrameCost(name, 100 * MS, reading_ms * MS, apart_ms * MS) for name in ("left", "right"))
    demands = tuple(Demand("model", each.camera, 100 * MS, 1 * MS, 100 * MS, cpu_ns=cpu_ms * MS) for each in frames)
    return Need(demands, frames, booking_ms * MS, turn_ms * MS, lanes=1, cores=cores)


@pytest.mark.parametrize(
    ("need", "bottleneck"),
    [
        (needed(reading_ms=181), "4 cores"),
        (needed(reading_ms=100, cpu_ms=81), "4 cores"),
        (needed(cpu_ms=46, cores=1), "1 core"),
        (needed(booking_ms=181), "4 cores"),
        (needed(booking_ms=46, turn_ms=46), "the loop"),
        (needed(apart_ms=91), "reading left"),
    ],
)
def test_each_thing_that_can_be_used_up_is_named_just_past_its_limit(need: Need, bottleneck: str) -> None:
    shares = need.shares()
    assert max(shares, key=shares.__getitem__) == bottleneck
    assert shares[bottleneck] > 0.9
    assert not need.is_met


@pytest.mark.parametrize(
    "need",
    [
        needed(reading_ms=179),
        needed(reading_ms=100, cpu_ms=79),
        needed(cpu_ms=44, cores=1),
        needed(booking_ms=179, turn_ms=44),
        needed(apart_ms=89),
        needed(reading_ms=181).slower(0.75),
        needed(reading_ms=181).only(["left"]),
    ],
)
def test_what_stays_just_below_every_limit_is_met(need: Need) -> None:
    assert need.is_met
