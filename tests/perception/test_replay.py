"""`tollgate replay` with the bundled detector on the bundled drive: equal logs, comparison, resumption, parts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import cv2
import pytest

from perception.cli import main
from perception.record import incomplete_path, line_of, line_without_timing, read_run_log
from perception.sources.table import open_source
from tests.perception.builders import detector_package

DRIVE = Path(__file__).resolve().parents[2] / "data" / "samples" / "drive"


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return detector_package(tmp_path_factory.mktemp("package") / "detector").folder


@pytest.fixture(scope="module")
def log(package, tmp_path_factory) -> Path:
    """A run log of the first twelve frames."""
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    assert replay(package, DRIVE, "--frames", 12, "--log", path) == 0
    return path


def replay(*words: object) -> int:
    return main(["replay", *map(str, words), "--quiet"])


def differ(log: Path, folder: Path) -> Path:
    """The log with one score, one class and one frame changed, and sealed again as if it had been recorded so."""
    header, *frames, _ = [json.loads(line) for line in log.read_bytes().splitlines()]
    frames[2]["result"]["scores"][0] = 0.5
    frames[4]["result"]["class_ids"][0] = 3
    del frames[6]
    return seal(folder / "other.jsonl", header, frames)


def seal(path: Path, header: dict[str, object], frames: list[dict[str, object]], *, complete: bool = True) -> Path:
    digest = sha256(b"".join(line_without_timing(frame) for frame in frames)).hexdigest()
    summary = {"summary": {"complete": complete, "frames": len(frames), "results_sha256": digest}}
    path.write_bytes(b"".join(map(line_of, (header, *frames, summary))))
    return path


def test_two_replays_write_the_same_log_byte_for_byte_on_one_thread_and_on_two(package, log, tmp_path):
    for threads in (1, 2):
        again = tmp_path / f"{threads}.jsonl"
        assert replay(package, DRIVE, "--frames", 12, "--threads", threads, "--log", again) == 0
        assert again.read_bytes() == log.read_bytes()
    assert read_run_log(log).header.clock == "simulated"
    assert {frame.timings.total_ns for frame in read_run_log(log).frames} == {0}


def test_two_lanes_write_the_same_log_and_can_be_resumed(package, log, tmp_path):
    again = tmp_path / "lanes.jsonl"
    assert replay(package, DRIVE, "--frames", 12, "--lanes", 2, "--threads", 1, "--log", again) == 0
    assert again.read_bytes() == log.read_bytes()
    header, *frames, _ = [json.loads(line) for line in log.read_bytes().splitlines()]
    seal(incomplete_path(tmp_path / "resumed.jsonl"), header, frames[:5], complete=False)
    words = ("--frames", 12, "--lanes", 2, "--log", tmp_path / "resumed.jsonl", "--resume")
    assert replay(package, DRIVE, *words) == 0
    assert (tmp_path / "resumed.jsonl").read_bytes() == log.read_bytes()


def test_a_measured_clock_is_logged_on_request(package, log, tmp_path):
    measured = tmp_path / "run.jsonl"
    assert replay(package, DRIVE, "--frames", 12, "--clock", "measured", "--log", measured) == 0
    assert all(frame.timings.infer_ns > 0 for frame in read_run_log(measured).frames)
    assert read_run_log(measured).summary == read_run_log(log).summary


def test_the_header_says_which_clock_each_camera_counts_on(log):
    header = read_run_log(log).header
    assert header.clocks == {"front": "the sensor's stamp", "front_right": "the sensor's stamp"}
    assert header.files["engine.onnx"] == header.engine_sha256


def test_the_same_results_compare_equal(package, log, tmp_path, capsys):
    assert main(["replay", str(package), str(DRIVE), "--frames", "12", "--compare", str(log), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["comparison"]
    assert (told["frames_compared"], told["frames_that_differ"], told["differences"]) == (12, 0, [])
    assert {"timing.status", "timing.infer_ns", "timing.finished_ns"} <= set(told["ignored"])


def test_what_differs_is_told_field_by_field_and_shown(package, log, tmp_path, capsys):
    other, pictures = differ(log, tmp_path), tmp_path / "pictures"
    words = ["--frames", "12", "--compare", str(other), "--differences", str(pictures), "--json"]
    assert main(["replay", str(package), str(DRIVE), *words]) == 1
    frames = read_run_log(log).frames
    told = json.loads(capsys.readouterr().out)["comparison"]
    found = [(each["camera_id"], each["frame_id"], each["field"], each["log"]) for each in told["differences"]]
    assert found == [
        (frames[2].camera_id, frames[2].frame_id, "result.scores[0]", 0.5),
        (frames[4].camera_id, frames[4].frame_id, "result.class_ids[0]", 3),
        (frames[6].camera_id, frames[6].frame_id, "frame", "missing"),
    ]
    assert told["frames_that_differ"] == 3
    shown = sorted(path.name for path in pictures.iterdir())
    assert shown == sorted(f"{frames[each].camera_id}_{frames[each].frame_id:06d}.jpg" for each in (2, 4, 6))
    assert cv2.imread(str(pictures / shown[0])).shape[1] == 2 * (1280 + 8)


def test_a_frame_that_only_the_log_has_is_a_difference(package, log, capsys):
    assert main(["replay", str(package), str(DRIVE), "--frames", "11", "--compare", str(log), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["comparison"]
    assert [(each["field"], each["now"]) for each in told["differences"]] == [("frame", "missing")]
    assert [each["field"] for each in told["conditions"]] == ["options.frames"]


def test_equal_runs_leave_no_folder_for_pictures(package, log, tmp_path):
    assert replay(package, DRIVE, "--frames", 12, "--compare", log, "--differences", tmp_path / "pictures") == 0
    assert not (tmp_path / "pictures").exists()


def test_another_recording_is_not_compared(package, log, capsys):
    assert replay(package, DRIVE / "front.mp4", "--frames", 2, "--compare", log) == 2
    assert "compare runs over one recording" in capsys.readouterr().err


def test_an_interrupted_replay_goes_on_and_gives_the_same_log(package, log, tmp_path):
    header, *frames, _ = [json.loads(line) for line in log.read_bytes().splitlines()]
    left = seal(tmp_path / "run.incomplete.jsonl", header, frames[:5], complete=False)
    target = tmp_path / "run.jsonl"
    words = ("--frames", 12, "--log", target, "--overlay", tmp_path / "overlay", "--resume")
    assert replay(package, DRIVE, *words) == 0
    assert target.read_bytes() == log.read_bytes()
    assert not left.exists()
    videos = [open_source(path) for path in sorted((tmp_path / "overlay").iterdir())]
    assert sum(1 for video in videos for _ in video.frames()) == 12


def test_results_that_the_log_holds_are_not_computed_again(package, log, tmp_path):
    header, *frames, _ = [json.loads(line) for line in log.read_bytes().splitlines()]
    frames[1]["result"]["scores"][0] = 0.125
    seal(tmp_path / "run.incomplete.jsonl", header, frames[:5], complete=False)
    assert replay(package, DRIVE, "--frames", 12, "--log", tmp_path / "run.jsonl", "--resume") == 0
    assert read_run_log(tmp_path / "run.jsonl").frames[1].result.scores[0] == 0.125


def test_nothing_to_resume_and_another_replays_log_are_refused(package, log, tmp_path, capsys):
    assert replay(package, DRIVE, "--log", tmp_path / "run.jsonl", "--resume") == 2
    assert "there is nothing to resume" in capsys.readouterr().err
    header, *frames, _ = [json.loads(line) for line in log.read_bytes().splitlines()]
    left = seal(tmp_path / "run.incomplete.jsonl", header, frames[:5], complete=False)
    before = left.read_bytes()
    assert replay(package, DRIVE, "--frames", 13, "--log", tmp_path / "run.jsonl", "--resume") == 2
    assert "is of another replay (options.frames: got 13, expected 12)" in capsys.readouterr().err
    assert left.read_bytes() == before


def test_an_interrupt_leaves_what_resume_needs(package, tmp_path):
    """A real Ctrl-C in the middle, then the rest."""
    target = tmp_path / "run.jsonl"
    words = ["--frames", "80", "--log", str(target), "--quiet"]
    command = [sys.executable, "-m", "perception.cli", "replay", str(package), str(DRIVE), *words]
    running = subprocess.Popen(command, cwd=DRIVE.parents[2])
    while not any(path.stat().st_size > 9000 for path in tmp_path.glob(".run.*")):
        time.sleep(0.02)
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["run.incomplete.jsonl"]
    held = len(read_run_log(tmp_path / "run.incomplete.jsonl").frames)
    assert 0 < held < 80
    assert replay(package, DRIVE, "--frames", 80, "--log", target, "--resume") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    assert len(read_run_log(target).frames) == 80


def test_a_part_of_a_recording_several_times_over(package, tmp_path):
    log = tmp_path / "run.jsonl"
    words = ("--camera", "front", "--start", 0.09, "--duration", 0.1, "--loop", 2, "--log", log)
    assert replay(package, DRIVE, *words) == 0
    frames = read_run_log(log).frames
    assert [frame.frame_id for frame in frames] == [3, 4, 5, 6, 7, 8]
    for first, second in zip(frames[:3], frames[3:], strict=True):
        assert first.name == second.name
        assert first.result.boxes_px.tolist() == second.result.boxes_px.tolist()


def test_paced_replay_keeps_the_cameras_pace(package, tmp_path):
    log = tmp_path / "run.jsonl"
    started_s = time.monotonic()
    words = ("--camera", "front", "--duration", 0.5, "--paced", "--speed", 0.5, "--log", log)
    assert replay(package, DRIVE, *words) == 0
    assert time.monotonic() - started_s > 0.9  # half a second at half speed, from the first frame to the last
    assert read_run_log(log).header.clock == "measured"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--paced", "--resume", "--log", "x"), "--resume: expected without --paced"),
        (("--paced", "--compare", "x"), "--compare: expected without --paced"),
        (("--paced", "--clock", "simulated"), "--clock simulated: expected without --paced"),
        (("--speed", "2"), "--speed: expected with --paced"),
        (("--paced", "--lanes", "2"), "--lanes: expected without --paced"),
        (("--resume",), "--resume: expected with --log FILE"),
        (("--differences", "x"), "--differences: expected with --compare LOG"),
    ],
)
def test_options_that_contradict_each_other_are_refused(package, words, told, capsys):
    assert replay(package, DRIVE, *words) == 2
    assert told in capsys.readouterr().err


def test_a_running_camera_is_not_replayed(package, capsys):
    assert replay(package, "rtsp://me:secret@127.0.0.1/front") == 2
    told = capsys.readouterr().err
    assert "rtsp://me:…@127.0.0.1/front: is a running camera, expected a recording" in told
    assert "secret" not in told
