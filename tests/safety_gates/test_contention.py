"""Time that other programs took is seen; one's own is not blamed on them."""

from __future__ import annotations

import os
import time

import pytest

from safety_gates.contention import CpuTimes, read_cpu_times, share_of_others


def _times(busy_s, own_s, at_s):
    return CpuTimes(busy_s, own_s, at_s, cpus=2)


@pytest.mark.parametrize(
    ("second", "share"),
    [
        (_times(105.0, 15.0, 10.0), 0.0),
        (_times(110.0, 15.0, 10.0), 0.25),
        (_times(120.0, 10.0, 10.0), 1.0),
        (_times(104.9, 15.0, 10.0), 0.0),
        (_times(None, 15.0, 10.0), None),
        (_times(105.0, 15.0, 0.49), None),
    ],
    ids=["own work alone", "half a core", "everything", "rounding of ticks", "not told", "too short to tell"],
)
def test_what_is_not_ones_own_is_the_others(second, share):
    spans = [(_times(100.0, 10.0, 0.0), second)]
    assert share_of_others(spans) == (None if share is None else pytest.approx(share))


def test_spans_are_taken_together():
    quiet, crowded = _times(105.0, 15.0, 10.0), _times(120.0, 10.0, 10.0)
    assert share_of_others([(_times(100.0, 10.0, 0.0), each) for each in (quiet, crowded)]) == pytest.approx(0.5)
    assert share_of_others([]) is None


def test_a_recorded_machine_is_read_column_by_column(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    rows = [
        f"cpu{number} {ticks} 0 {ticks} {50 * ticks} {9 * ticks} 0 0 {ticks} 0 0" for number in os.sched_getaffinity(0)
    ]
    (tmp_path / "stat").write_text("\n".join(["cpu  1 2 3 4", *rows, "cpu9999 5 5 5 5 5 5 5 5 5 5", "intr 12"]))
    assert read_cpu_times(tmp_path / "stat").busy_s == pytest.approx(3.0 * len(rows))


@pytest.mark.parametrize("content", ["", "cpu0 1 2"])
def test_a_machine_that_does_not_tell_is_unknown(tmp_path, content):
    (tmp_path / "stat").write_text(content)
    if len(os.sched_getaffinity(0)) > 1 or not content:
        assert read_cpu_times(tmp_path / "stat").busy_s is None
    assert read_cpu_times(tmp_path / "nowhere").busy_s is None


def test_this_machine_tells():
    first = read_cpu_times()
    time.sleep(0.05)
    last = read_cpu_times()
    assert last.at_s > first.at_s
    assert first.busy_s is None or last.busy_s >= first.busy_s
