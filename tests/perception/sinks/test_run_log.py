from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perception.errors import EvidenceError, OutputError
from perception.record import read_run_log
from perception.runtime import replay
from perception.sinks.run_log import RunLogWriter
from perception.sinks.table import open_sink
from tests.disk import room_for
from tests.perception.builders import ListSource, frames_of
from tests.perception.sinks.outcomes import HEADER, outcome
from tests.perception.test_runtime import BreakingSource, pipeline_of

KILLED_WHILE_RUNNING = """
import os, signal, sys
from pathlib import Path
from perception.sinks.run_log import RunLogWriter
from tests.disk import room_for
from tests.perception.sinks.outcomes import HEADER, outcome
writer = RunLogWriter(Path(sys.argv[1]), HEADER)
for index in range(3):
    writer.write(outcome(index))
os.kill(os.getpid(), signal.SIGKILL)
"""


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_visible_before_the_end(tmp_path):
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    writer.write(outcome(0))
    assert not (tmp_path / "run.jsonl").exists()
    writer.close()
    writer.close()
    writer.abort()
    assert files_in(tmp_path) == ["run.jsonl"]
    assert read_run_log(tmp_path / "run.jsonl").summary.complete


def test_every_frame_is_on_its_way_to_the_disk_as_soon_as_it_is_written(tmp_path):
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    (hidden,) = tmp_path.iterdir()
    for index in range(3):
        writer.write(outcome(index))
        assert hidden.read_bytes().count(b"\n") == index + 2
    writer.abort()


def test_an_aborted_run_keeps_what_was_recorded_beside_the_path_and_says_so(tmp_path):
    (tmp_path / "run.jsonl").write_text("an earlier log")
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    for index in range(3):
        writer.write(outcome(index))
    writer.abort()
    writer.abort()
    writer.close()
    assert files_in(tmp_path) == ["run.incomplete.jsonl", "run.jsonl"]
    assert (tmp_path / "run.jsonl").read_text() == "an earlier log"
    log = read_run_log(tmp_path / "run.incomplete.jsonl")
    assert (log.summary.complete, len(log.frames)) == (False, 3)


def test_a_run_aborted_before_its_first_frame_leaves_nothing(tmp_path):
    RunLogWriter(tmp_path / "run.jsonl", HEADER).abort()
    assert files_in(tmp_path) == []


def test_an_interrupt_inside_a_frame_leaves_whole_lines_only(tmp_path):
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    writer.write(outcome(0))
    writer._file.write(b'{"camera_id":"fro')  # as an interrupt between two writes leaves it
    writer.abort()
    assert len(read_run_log(tmp_path / "run.incomplete.jsonl").frames) == 1


def test_a_killed_process_leaves_a_hidden_log_that_the_reader_refuses(tmp_path):
    command = [sys.executable, "-c", KILLED_WHILE_RUNNING, str(tmp_path / "run.jsonl")]
    root = Path(__file__).parents[3]
    assert subprocess.run(command, check=False, cwd=root).returncode == -signal.SIGKILL
    (hidden,) = tmp_path.iterdir()
    assert hidden.name.startswith(".run.")
    with pytest.raises(EvidenceError, match="ends after 4 lines without a summary"):
        read_run_log(hidden)


def test_a_full_disk_is_reported_with_the_path_and_leaves_an_earlier_log_untouched(tmp_path):
    (tmp_path / "run.jsonl").write_text("an earlier log")
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    full = r"run\.jsonl: cannot be written \(File too large\); free space"
    with room_for(4_000), pytest.raises(OutputError, match=full):
        for index in range(100):
            writer.write(outcome(index))
    writer.abort()
    assert (tmp_path / "run.jsonl").read_text() == "an earlier log"
    assert not [name for name in files_in(tmp_path) if name.startswith(".")]


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        RunLogWriter(tmp_path / "out" / "run.jsonl", HEADER)
    assert files_in(tmp_path) == ["out"]


def test_two_lock_step_replays_give_the_same_results_digest(tmp_path):
    for name in ("first", "second"):
        writer = RunLogWriter(tmp_path / f"{name}.jsonl", HEADER)
        replay(pipeline_of(), ListSource(frames_of("front", 6)), sinks=[writer], on_frame=lambda _: None)
    first, second = (read_run_log(tmp_path / f"{name}.jsonl") for name in ("first", "second"))
    assert first.summary == second.summary
    assert first.summary.frames == 6


def test_a_recording_that_breaks_leaves_its_frames_in_an_incomplete_log(tmp_path):
    writer = RunLogWriter(tmp_path / "run.jsonl", HEADER)
    with pytest.raises(Exception, match="frame 3 is damaged"):
        replay(pipeline_of(), BreakingSource(frames_of("front", 3)), sinks=[writer], on_frame=lambda _: None)
    assert files_in(tmp_path) == ["run.incomplete.jsonl"]
    assert len(read_run_log(tmp_path / "run.incomplete.jsonl").frames) == 3


def test_an_unknown_sink_is_refused(tmp_path):
    with pytest.raises(OutputError, match="sink 'printer' is unknown, expected one of run_log, overlay"):
        open_sink("printer", tmp_path, HEADER)
