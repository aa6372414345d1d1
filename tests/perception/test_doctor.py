"""`tollgate doctor` on recorded machines and on this one, as a person and as a program reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hw_profiles.profile import load_profile, profile_names
from perception.cli import main
from tests.hw_profiles import recorded
from tests.hw_profiles.recorded import lay_out


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def nx(tmp_path: Path) -> str:
    return str(lay_out(tmp_path / "nx", recorded.ORIN_NX_16GB))


@pytest.fixture
def nano(tmp_path: Path) -> str:
    return str(lay_out(tmp_path / "nano", recorded.ORIN_NANO_8GB))


def test_a_person_reads_what_the_machine_is(nano: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", nano]) == 0
    screen = capsys.readouterr().out
    for line in (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "p3767-0005, tegra234, JetPack 6.2, Jetson Linux 36.4.3",
        "Cortex-A78AE, aarch64, 6 cores",
        "960 of 1344 MHz, governor schedutil",
        "7.4 GiB, 3.7 GiB of it free",
        "Orin, compute capability 8.7, at most 918 MHz",
        "25W (others: 15W, MAXN_SUPER)",
        "TensorRT 10.3.0, PyCUDA 2025.1",
        "64 °C, 9.3 W, slowed down 3 times since boot",
    ):
        assert line in screen


def test_the_nearest_profiles_come_first(nx: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--root", nx])
    screen = capsys.readouterr().out
    settings, hardware = screen.index("✗ jetson_orin_nx_16gb_25w"), screen.index("✗ jetson_agx_orin_64gb_maxn")
    assert settings < hardware


def test_a_satisfied_profile_comes_before_all_others(nano: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--root", nano])
    screen = capsys.readouterr().out
    assert screen.index("✓ jetson_orin_nano_8gb_25w") < screen.index("✗")


def test_every_reason_stands_beside_its_remedy(nx: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--root", nx])
    screen = capsys.readouterr().out
    assert "power mode: 40W, needs 25W → run: sudo nvpmodel -m 3" in screen
    assert "PyCUDA: none, needs any release → run: pip install pycuda" in screen


def test_every_shipped_profile_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    screen = capsys.readouterr().out
    assert all(name in screen for name in profile_names())


def test_one_profile_that_is_satisfied_gives_exit_code_0(nano: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", nano, "--profile", "jetson_orin_nano_8gb_25w"]) == 0
    screen = capsys.readouterr().out
    assert "2 of 1280×720 at 30 Hz" in screen
    assert "x86_cpu" not in screen


def test_one_profile_that_is_not_satisfied_gives_exit_code_1(nx: str) -> None:
    assert main(["doctor", "--root", nx, "--profile", "jetson_orin_nx_16gb_25w"]) == 1


def test_a_profile_of_ones_own_is_judged(tmp_path: Path, nano: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(load_profile("jetson_orin_nano_8gb_25w").to_yaml().replace("25W", "15W"))
    assert main(["doctor", "--root", nano, "--profile", str(path)]) == 1


def test_an_unknown_profile_gives_exit_code_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--profile", "x87"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tollgate doctor: profile 'x87' is not known; expected one of arm_cpu")
    assert error.count("\n") == 1


def test_a_program_reads_one_json_document(nx: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", nx, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["machine"]["jetson"]["power_mode"] == "40W"
    assert document["now"]["available_bytes"] > 0
    assert document["profiles"]["jetson_orin_nx_16gb_25w"]["satisfied"] is False
    assert document["profiles"]["jetson_orin_nx_16gb_25w"]["reasons"][0] == {
        "what": "power mode",
        "got": "40W",
        "expected": "25W",
        "remedy": "run: sudo nvpmodel -m 3",
    }
    assert "This machine" in captured.err


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**recorded.RASPBERRY_PI_5, "proc/device-tree/model": "Board [red]9[/red]"}
    main(["doctor", "--root", str(lay_out(tmp_path, files))])
    assert "Board [red]9[/red]" in capsys.readouterr().out


def test_a_cpu_without_int8_instructions_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel Core i5-4570\nflags\t\t: lm avx2\n"}
    main(["doctor", "--root", str(lay_out(tmp_path, files))])
    assert "no instruction for it" in capsys.readouterr().out
