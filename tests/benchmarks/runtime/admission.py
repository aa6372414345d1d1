"""What admission control says of recorded cameras at growing speed, and what comes of it: reading is what they cost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from perception.deadline.plan import Plan, plan_of
from perception.deadline.run import Options, Report, run_plan
from perception.sources.table import open_source
from tests.benchmarks.results import row
from tests.benchmarks.runtime.material import null_package
from tests.perception.builders import drive_of_cameras

CAMERAS, RATE_HZ, RECORDED_S = 6, 30, 10
ASKED = (0.5, 0.8, 1.25, 2.0, 4.0)
"""Shares of the bottleneck, as admission reckons them."""


def predicted_and_measured(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Six cameras of 720p H.264 before an engine of 1 ms, so fast that they should take a share of what there is."""
    plan = plan_of(null_package(folder / "null", service_ms=1))
    drive = drive_of_cameras(folder / "drive", CAMERAS)
    at_once = _run(plan, drive, speed=1, seconds=0.5).admission.utilisation
    rows = []
    for asked in ASKED:
        report = _run(plan, drive, speed=asked / at_once, seconds=minutes * 60 / len(ASKED))
        admission, streams = report.admission, report.tally.streams.values()
        frames, missed = sum(s.total for s in streams), sum(s.missed for s in streams)
        where = f"{CAMERAS} cameras of 1280×720 H.264 at {asked / at_once:.2f} times their speed, null engine of 1 ms"
        verdict = "fits" if admission.fits else "refused"
        rows += [
            _row(f"predicted use of {admission.bottleneck}, {verdict}; {where}", admission.utilisation, 1, None),
            _row(f"frames missed; {where}", missed / frames, frames, 0.001 if admission.fits else None),
        ]
    return rows


def _run(plan: Plan, drive: Path, *, speed: float, seconds: float) -> Report:
    """As much of the drive as plays within a time."""
    frames = int(CAMERAS * RATE_HZ * min(RECORDED_S, max(1.0, seconds * speed)))
    with closing(open_source(drive)) as source:
        return run_plan(plan, source, options=Options(speed=speed, force=True, limit=frames))


def _row(name: str, value: float, samples: int, limit: float | None) -> dict[str, Any]:
    return row(name, value, limit=limit, unit="ratio", better="lower", samples=samples, command="make bench-runtime")
