"""Whether other programs took processor time while something was timed."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
IDLE_COLUMNS = (3, 4)  # idle, iowait; the others are work, time stolen by a hypervisor among it
# guest and guest_nice are counted in user and nice already. Source: Linux, Documentation/filesystems/proc.rst.
COUNTED_COLUMNS = 8
LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Clocks of the processors this process may use, read at one instant.

    Attributes:
        busy_s: seconds they worked since boot, all together; None where the system does not tell.
        own_s: seconds of it that this process used.
        at_s: when, on a steady clock.
        cpus: how many they are.
    """

    busy_s: float | None
    own_s: float
    at_s: float
    cpus: int


def read_cpu_times(stat: Path = STAT) -> CpuTimes:
    """The clocks now."""
    allowed = os.sched_getaffinity(0)
    return CpuTimes(_busy_s(stat, allowed), time.process_time(), time.perf_counter(), len(allowed))


def share_of_others(spans: Sequence[tuple[CpuTimes, CpuTimes]]) -> float | None:
    """Share of the processors' time that other programs used, 0..1, over spans between two readings each.

    None where the system does not tell, or the spans are too short for its clock, which ticks every 10 ms.
    """
    available_s = sum((last.at_s - first.at_s) * first.cpus for first, last in spans)
    if available_s < LEAST_S:
        return None
    others_s = 0.0
    for first, last in spans:
        if first.busy_s is None or last.busy_s is None:
            return None
        others_s += (last.busy_s - first.busy_s) - (last.own_s - first.own_s)
    return min(1.0, max(0.0, others_s / available_s))


def _busy_s(stat: Path, allowed: Collection[int]) -> float | None:
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = {f"cpu{number}" for number in allowed}
    rows = [line.split() for line in lines if line.split(" ", 1)[0] in wanted]
    if len(rows) != len(wanted):
        return None
    ticks = [[int(field) for field in row[1 : COUNTED_COLUMNS + 1]] for row in rows]
    busy = sum(count for row in ticks for column, count in enumerate(row) if column not in IDLE_COLUMNS)
    return busy / os.sysconf("SC_CLK_TCK")
