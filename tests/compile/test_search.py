from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from compile import search
from compile.compiler import CompileOutcome, compile_model
from tests.compile.builders import write_drive, write_segmenter
from tests.compile.steady_clock import steady_clock
from tests.compile.test_compiler import PROFILE, QUICK

ROOT = Path(__file__).resolve().parents[2]
HARD = 5000.0  # an outlier channel, so that layers are given back to float


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("recordings") / "monday", seed=1, count=32)


def compiled(folder: Path, calibration: Path, **options: object) -> CompileOutcome:
    folder.mkdir(exist_ok=True)
    with steady_clock():
        return compile_model(
            write_segmenter(folder, outlier=HARD),
            profile=PROFILE,
            calibration=[calibration],
            output=folder / "package",
            options=replace(QUICK, **{"max_drop": 0.04, "precision": "int8", **options}),
        )


def tried(outcome: CompileOutcome) -> dict[str, tuple[float, float]]:
    return {point["name"]: (point["agreement"], point["drift"]) for point in outcome.search["points"]}


def test_the_search_gives_layers_back_and_marks_the_front(tmp_path, monday):
    search = compiled(tmp_path, monday).search
    points = {point["name"]: point for point in search["points"]}
    given_back = [point for name, point in points.items() if name.endswith(" float")]
    assert given_back
    assert all(0 < point["float_macs_share"] < 1 for point in given_back)
    front = [point for point in points.values() if point["on_front"]]
    ordered = sorted(front, key=lambda point: point["time_ratio"])
    assert [point["drift"] for point in ordered] == sorted((point["drift"] for point in front), reverse=True)
    assert min(given_back, key=lambda point: point["drift"])["graded"]


def test_what_is_graded_was_seen_neither_by_calibration_nor_by_the_search(tmp_path, monday):
    outcome = compiled(tmp_path, monday, max_drop=0.5, min_agreement=0.5)
    report = outcome.package.document("compile.json")
    calibrated = {frame["frame"] for frame in outcome.package.document("calibration.json")["frames"]}
    assert report["search"]["frames"] == 4
    assert report["evaluation"]["frames"] == 4
    assert max(calibrated) < 24  # of 32 frames the last eight search and grade


def test_every_layer_is_reported_with_its_effect_and_time(tmp_path, monday):
    layers = compiled(tmp_path, monday).package.document("compile.json")["layers"]
    assert [layer["node"] for layer in layers] == ["first", "second", "third"]
    assert {layer["precision"] for layer in layers} == {"int8", "float"}
    assert all(layer["why"] for layer in layers if layer["precision"] == "float")
    assert all(layer["macs"] > 0 and layer["time_us_float"] > 0 for layer in layers)
    assert max(layer["task_effect"] for layer in layers) > 0.04


def test_the_same_search_again_makes_nothing_and_answers_the_same(tmp_path, monday):
    first = compiled(tmp_path / "one", monday, cache=tmp_path / "cache")
    again = compiled(tmp_path / "two", monday, cache=tmp_path / "cache")
    assert first.search["answers"]["made"] > 10
    assert again.search["answers"]["made"] == 0
    assert tried(again) == tried(first)
    assert again.decision.document() == first.decision.document()
    assert again.package.engine_bytes == first.package.engine_bytes


def test_other_frames_or_another_model_are_another_search(tmp_path, monday):
    compiled(tmp_path / "one", monday, cache=tmp_path / "cache")
    tuesday = write_drive(tmp_path / "tuesday", seed=2, count=32)
    assert compiled(tmp_path / "two", tuesday, cache=tmp_path / "cache").search["answers"]["made"] > 0


PROGRAM = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.compile.test_search import compiled
compiled(Path(sys.argv[1]), Path(sys.argv[2]), cache=Path(sys.argv[3]))
"""


@pytest.mark.parametrize("answers", [1, 4, 9])
def test_a_killed_search_goes_on_and_ends_in_the_same_answer(tmp_path, monday, answers):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "killed"), str(monday), str(cache)]
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None and len(list(cache.glob("??/[0-9a-f]*"))) < answers:  # whole ones: others hide
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "package").exists()
    resumed = compiled(tmp_path / "resumed", monday, cache=cache)
    assert resumed.search["answers"]["recalled"] >= answers
    again = compiled(tmp_path / "again", monday, cache=cache)
    assert again.search["answers"]["made"] == 0
    assert again.decision.document() == resumed.decision.document()
    apart = compiled(tmp_path / "apart", monday)
    assert tried(apart) == tried(resumed)
    assert apart.package.engine_bytes == again.package.engine_bytes == resumed.package.engine_bytes


def test_a_time_limit_ends_the_search_with_what_was_found(tmp_path, monday):
    outcome = compiled(tmp_path, monday, time_limit_s=1e-6, precision="auto")
    assert list(tried(outcome)) == ["fp32", "int8-minmax"]
    assert any("time limit" in note for note in outcome.search["notes"])
    assert outcome.package is not None


def test_that_time_is_out_is_told_once():
    contest = SimpleNamespace(is_out_of_time=True, notes=[])
    assert all(search._is_told_to_stop(contest) for _ in range(2))
    assert contest.notes == [search.OUT_OF_TIME]


def test_a_budget_nobody_keeps_ships_nothing_and_says_how_far_the_fastest_is(tmp_path, monday):
    outcome = compiled(tmp_path, monday, budget_ms=1e-6, precision="auto")
    assert outcome.package is None
    assert outcome.decision.why.startswith("nothing ships: no engine within the limits keeps the budget of 1e-06 ms")


def test_a_roomy_budget_ships_the_most_accurate_engine(tmp_path, monday):
    outcome = compiled(tmp_path, monday, budget_ms=1e6, precision="auto")
    assert outcome.decision.chosen.name == "fp32"
    assert "keeps the budget of 1e+06 ms as it is" in outcome.decision.why
