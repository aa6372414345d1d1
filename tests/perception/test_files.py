from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perception.errors import OutputError, ReleaseError
from perception.files import (
    json_bytes,
    locked,
    sha256_of_bytes,
    sha256_of_file,
    staged_file,
    staged_folder,
    write_atomically,
)
from tests.disk import room_for


def test_a_written_file_holds_exactly_the_bytes_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"one")
    write_atomically(tmp_path / "a.bin", b"two")
    assert (tmp_path / "a.bin").read_bytes() == b"two"
    assert [child.name for child in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_leaves_the_old_one_untouched(tmp_path: Path, interruption: type[BaseException]) -> None:
    write_atomically(tmp_path / "a.bin", b"old")
    with pytest.raises(interruption), staged_file(tmp_path / "a.bin") as staged:
        staged.write_bytes(b"half")
        raise interruption
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_folder_leaves_the_old_one_untouched(tmp_path: Path, interruption: type[BaseException]) -> None:
    with staged_folder(tmp_path / "out") as staged:
        (staged / "a").write_text("old")
    with pytest.raises(interruption), staged_folder(tmp_path / "out") as staged:
        (staged / "a").write_text("half")
        raise interruption
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("stage", [staged_file, staged_folder])
def test_an_interruption_takes_the_folders_away_that_were_made_for_it_and_no_others(tmp_path: Path, stage) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), stage(tmp_path / "mine" / "new" / "newer" / "out"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_folder_that_others_have_begun_to_use_stays_after_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_file(tmp_path / "new" / "a.bin"):
        (tmp_path / "new" / "theirs").write_text("theirs")
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "theirs"]


def test_a_folder_takes_the_place_of_an_older_one_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with staged_folder(tmp_path / "out") as staged:
            (staged / content).write_text(content)
    assert [child.name for child in (tmp_path / "out").iterdir()] == ["new"]
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_not_written_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file, expected a folder"), staged_folder(tmp_path / "out"):
        pytest.fail("must not be lent")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_file_takes_the_place_of_no_pipe_device_or_folder(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(OutputError, match=rf"{path.name}: is no file, and only files are replaced"):
            write_atomically(path, b"new")
    assert (pipe.is_fifo(), sorted(tmp_path.iterdir())) == (True, [folder, pipe])


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        write_atomically(tmp_path / "file" / "deeper" / "a.bin", b"x")
    assert "\n" not in str(caught.value)


def test_no_room_for_a_file_is_said_in_one_line_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"old")
    full = r"a\.bin: cannot be written \(File too large\); free space"
    with room_for(64), pytest.raises(OutputError, match=full) as caught:
        write_atomically(tmp_path / "a.bin", b"x" * 1000)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.bin"]


def test_no_room_for_a_folder_leaves_the_old_one(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as staged:
        (staged / "a").write_text("old")
    with (
        room_for(64),
        pytest.raises(OutputError, match="out: cannot be written"),
        staged_folder(tmp_path / "out") as staged,
    ):
        (staged / "a").write_bytes(b"x" * 1000)
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


def test_a_lock_is_held_by_one_and_freed_when_its_process_is_killed(tmp_path: Path) -> None:
    lock, busy = tmp_path / "deep" / "lock", ReleaseError("somebody else is at work")
    code = (
        "import sys, time; from pathlib import Path; from perception.errors import ReleaseError\n"
        "from perception.files import locked\n"
        "with locked(Path(sys.argv[1]), busy=ReleaseError('')): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ReleaseError, match="somebody else"), locked(lock, busy=busy):
        pass
    holder.kill()
    holder.wait()
    with locked(lock, busy=busy):
        pass


def test_a_lock_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match="cannot be written"),
        locked(tmp_path / "file" / "lock", busy=ReleaseError("")),
    ):
        pass


def test_digests_of_a_file_and_of_its_bytes_agree(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == sha256_of_bytes(content)


def test_equal_content_gives_equal_json_bytes_whatever_the_order() -> None:
    assert json_bytes({"a": 1, "b": 2}) == json_bytes({"b": 2, "a": 1})
