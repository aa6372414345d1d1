from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli import VERBS, main
from perception.record import read_run_log
from tests.perception.builders import null_package


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six grey pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((48, 64, 3), 40 * index, np.uint8))
    return folder


def test_no_words_show_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert all(name in shown for name in VERBS)


def test_an_unknown_verb_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fly"])
    assert left.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "nothing"), str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("tollgate replay: ")
    assert "no engine package" in captured.err


def test_replay_reports_every_frame_as_json(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = null_package(tmp_path / "package")
    assert main(["replay", str(tmp_path / "package"), str(pictures), "--json", "--quiet"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["package"] == package.sha256
    assert sum(sum(statuses.values()) for statuses in answer["frames"].values()) == 6
    assert answer["latency_ms"]["total"]["samples"] == 6


@pytest.mark.parametrize(("allowed", "code"), [("0.5", 1), ("1", 0)])
def test_too_many_late_frames_fail_the_replay(tmp_path: Path, pictures: Path, allowed: str, code: int) -> None:
    null_package(tmp_path / "package", service_ms=40)
    words = ["replay", str(tmp_path / "package"), str(pictures), "--quiet", "--max-late", allowed]
    assert main(words) == code


def test_a_package_that_is_no_release_is_not_opened_where_one_is_required(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    null_package(tmp_path / "package")
    key = tmp_path / "key.pub"
    key.write_text("no key")
    assert main(["replay", str(tmp_path / "package"), str(pictures), "--require-release", str(key)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bench_prints_both_sides_with_their_samples(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    null_package(tmp_path / "package", service_ms=0.5)
    assert main(["bench", str(tmp_path / "package"), str(pictures), "--samples", "30", "--json", "--quiet"]) == 0
    sides = json.loads(capsys.readouterr().out)["latency"]
    assert {name: side["samples"] for name, side in sides.items()} == {"engine alone": 30, "whole pipeline": 30}
    assert all(side["p99_ms"] is None for side in sides.values())


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A folder of twelve pictures of a camera that is well: no two are alike."""
    chance = np.random.default_rng(5)
    folder = tmp_path / "drive"
    folder.mkdir()
    for index in range(12):
        cv2.imwrite(str(folder / f"{index:02}.png"), chance.integers(30, 220, (48, 64, 3), np.uint8))
    return folder


def test_run_at_the_cameras_pace_reports_predictions_beside_what_came_of_them(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = null_package(tmp_path / "package")
    words = ["run", str(tmp_path / "package"), str(drive), "--speed", "2", "--log", str(tmp_path / "run.jsonl")]
    assert main([*words, "--force", "--health-port", "0", "--json", "--quiet"]) == 0
    answer = json.loads(capsys.readouterr().out)
    camera = answer["models"]["null"]["cameras"]["drive"]
    assert sum(camera["frames"].values()) == 12
    assert answer["admission"]["demands"][0]["response_bound_ms"] > 0
    assert answer["packages"] == {"null": [package.sha256]}
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.header.options["packages"] == answer["packages"]
    assert [frame.frame_id for frame in log.frames] == list(range(12))


def test_run_refuses_what_does_not_fit_and_runs_it_when_forced(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    null_package(tmp_path / "package", service_ms=40)
    words = ["run", str(tmp_path / "package"), str(drive), "--quiet"]
    assert main(words) == 2
    assert "does not fit this machine" in capsys.readouterr().err
    assert main([*words, "--force", "--max-late", "0.1"]) == 1


def test_run_takes_a_plan_of_several_models(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    null_package(tmp_path / "package")
    models = "[{name: people, package: package}, {name: signs, package: package, deadline_ms: 90}]"
    (tmp_path / "plan.yaml").write_text(f"models: {models}\n")
    assert main(["run", str(tmp_path / "plan.yaml"), str(drive), "--force", "--json", "--quiet"]) == 0
    assert set(json.loads(capsys.readouterr().out)["models"]) == {"people", "signs"}


def test_bench_finds_what_is_sustained(tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A frame takes 25 ms, so one camera is sustained below 40 Hz and two at 30 Hz never are."""
    null_package(tmp_path / "package", service_ms=25)
    words = ["bench", str(tmp_path / "package"), str(drive), "--sustain", "--seconds", "0.5", "--json", "--quiet"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["most_cameras"] <= 1
    assert answer["highest_rate_hz"] is None or answer["highest_rate_hz"] < 48
    assert len(answer["trials"]) >= 2


def test_a_vehicle_without_the_factory_says_what_brings_the_verb(tmp_path: Path) -> None:
    """A fresh interpreter that cannot find the factory's packages: fewer verbs, a sentence, no traceback."""
    program = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "import perception.cli as cli\n"
        "cli.find_spec = lambda name: None if name in ('compile', 'safety_gates') else real(name)\n"
        "sys.exit(cli.main(['compile', 'model.onnx']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this installation has no compile" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_factory_without_duckdb_says_which_extra_brings_it() -> None:
    program = "import sys; sys.modules['duckdb'] = None; from perception.cli import main; sys.exit(main(['rollout']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "duckdb is not installed; run: pip install 'tollgate[rollout]'" in done.stderr.replace("\n", " ")
