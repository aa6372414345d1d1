"""A look at the machine while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.telemetry import Telemetry, power_between, sample
from tests.hw_profiles import recorded
from tests.hw_profiles.recorded import Files, lay_out


@pytest.mark.parametrize(
    ("files", "power_w"),
    [
        (recorded.ORIN_NANO_8GB, 4.984 * 1.856),  # VDD_IN is the whole module: the other rails are parts of it
        (recorded.AGX_ORIN_64GB, 20 * 0.25 + 20 * 0.16 + 5 * 1.1),  # three rails add up to the module
        (recorded.AGX_THOR, 38.25),
        (recorded.ORIN_NX_16GB, None),
        (recorded.RASPBERRY_PI_5, None),
    ],
)
def test_power_is_read_where_the_board_measures_it(tmp_path: Path, files: Files, power_w: float | None) -> None:
    seen = sample(lay_out(tmp_path, files)).power_w
    assert seen == (None if power_w is None else pytest.approx(power_w))


def test_an_orin_nano_tells_clocks_heat_throttling_and_memory(tmp_path: Path) -> None:
    seen = sample(lay_out(tmp_path, recorded.ORIN_NANO_8GB))
    assert (seen.cpu_clock_mhz, seen.gpu_clock_mhz) == (960.0, 306.0)
    assert seen.temperature_c == pytest.approx(64.031)
    assert seen.throttle_events == 3
    assert seen.rss_bytes is not None
    assert seen.available_bytes == 7_802_040 // 2 * 1024


def test_an_x86_server_tells_heat_throttling_and_energy_of_its_packages(tmp_path: Path) -> None:
    seen = sample(lay_out(tmp_path, recorded.X86_SERVER))
    assert seen.temperature_c == pytest.approx(47.0)
    assert seen.throttle_events == 3
    assert seen.energy_uj == 12_000_000  # two packages; the core part of the first is within it


def test_a_machine_that_tells_nothing_answers_none_everywhere(tmp_path: Path) -> None:
    seen = sample(tmp_path)
    assert {getattr(seen, name) for name in Telemetry.__slots__ if name != "at_ns"} == {None}


def test_this_machine_tells_its_memory_and_looks_follow_one_another() -> None:
    first, second = sample(), sample()
    assert first.rss_bytes is not None
    assert first.rss_bytes > 1 << 20
    assert first.available_bytes is not None
    assert second.at_ns > first.at_ns


@pytest.mark.parametrize(
    ("first_uj", "second_uj", "seconds", "power_w"),
    [
        (1_000_000, 31_000_000, 2.0, 15.0),
        (5, 5, 1.0, 0.0),
        (9_000_000, 1_000_000, 1.0, None),  # the counter wrapped around
        (None, 5, 1.0, None),
        (5, None, 1.0, None),
        (1, 2, 0.0, None),
        (1, 2, -1.0, None),
    ],
)
def test_mean_power_is_the_difference_of_two_energy_counters(
    tmp_path: Path, first_uj: int | None, second_uj: int | None, seconds: float, power_w: float | None
) -> None:
    first = replace(sample(tmp_path), energy_uj=first_uj)
    second = replace(first, energy_uj=second_uj, at_ns=first.at_ns + round(seconds * 1e9))
    assert power_between(first, second) == (None if power_w is None else pytest.approx(power_w))
