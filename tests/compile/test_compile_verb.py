from __future__ import annotations

import json
from pathlib import Path

import pytest

from hw_profiles.machine import read_machine
from perception.cli import EXIT_FAILED, EXIT_MISUSE, EXIT_PASSED, main
from perception.package import open_package
from tests.compile.builders import write_drive, write_segmenter

PROFILE = "x86_cpu" if read_machine().cpu.arch == "x86_64" else "arm_cpu"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A whole command line; the folder it runs in is empty but for the model and a drive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_segmenter(tmp_path, outlier=5000.0)
    write_drive(tmp_path / "monday", seed=1, count=24)
    return ["compile", "segmenter.onnx", "--profile", PROFILE, "--calibration", "monday", "--timing-s", "0.01"]


def test_the_closing_table_shows_every_candidate_and_the_reason(words, tmp_path, capsys):
    assert main([*words, "--frames", "16", "--quiet"]) == EXIT_PASSED
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("fp32", "int8-minmax", "int8-percentile", "agreement", "p50 ms"))
    assert open_package(tmp_path / f"segmenter-{PROFILE}").manifest.name == f"segmenter-{PROFILE}"


def test_people_are_told_what_naive_int8_loses_and_why_the_choice_fell(words, capsys):
    assert main([*words, "--frames", "16"]) == EXIT_PASSED
    shown = " ".join(capsys.readouterr().out.split())
    assert "plain MinMax INT8 loses" in shown
    assert "ships" in shown
    assert "parity with float on" in shown


def test_json_carries_the_decision_and_the_package(words, tmp_path, capsys):
    code = main(
        [*words, "--frames", "16", "--json", "--precision", "fp32", "--output", "out", "--reference-output", "ref"]
    )
    document = json.loads(capsys.readouterr().out)
    assert code == EXIT_PASSED
    assert document["decision"]["chosen"] == "fp32"
    assert document["package"]["sha256"] == open_package(tmp_path / "out").sha256
    assert document["reference"]["sha256"] == open_package(tmp_path / "ref").sha256


def test_int8_demanded_and_not_good_enough_is_a_failed_verdict(words, tmp_path, capsys):
    code = main([*words, "--frames", "16", "--precision", "int8", "--max-drop", "0", "--output", "out"])
    assert code == EXIT_FAILED
    assert "nothing ships" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--labels", "monday"], "labels: got no recording they belong to"),
        (["--max-drop", "2"], "max_drop: got 2.0, expected a share"),
        (["--frames", "4"], "4 calibration frames asked for, expected at least 16"),
        (["--calibration", "tuesday"], "tuesday: does not exist"),
        (["--profile", "abacus"], "profile 'abacus' is not known"),
    ],
)
def test_misuse_is_one_line_and_exit_code_two(words, tmp_path, capsys, more, message):
    assert main([*words, *more]) == EXIT_MISUSE
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert "Traceback" not in error
    assert not (tmp_path / f"segmenter-{PROFILE}").exists()


def test_recordings_may_be_named_one_option_each(words, tmp_path):
    write_drive(tmp_path / "tuesday", seed=2, count=24)
    assert (
        main([*words, "--calibration", "tuesday", "--precision", "int8", "--max-drop", "0.9", "--output", "out"]) == 0
    )
    frames = open_package(tmp_path / "out").document("calibration.json")["frames"]
    assert {frame["recording"] for frame in frames} == {0, 1}
