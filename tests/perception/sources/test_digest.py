from __future__ import annotations

import pytest

from perception.errors import SourceError
from perception.files import sha256_of_file
from perception.sources.digest import sha256_of_recording


def test_the_digest_of_a_file_is_its_own(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"frames")
    assert sha256_of_recording(tmp_path / "a.mp4") == sha256_of_file(tmp_path / "a.mp4")


def test_the_digest_of_a_folder_follows_contents_and_names_and_not_its_place(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place / "data").mkdir(parents=True)
        (tmp_path / place / "data" / "b.png").write_bytes(b"two")
        (tmp_path / place / "a.txt").write_bytes(b"one")
    here, there = tmp_path / "here", tmp_path / "there"
    same = sha256_of_recording(here)
    assert same == sha256_of_recording(there)
    (there / "a.txt").rename(there / "c.txt")
    assert sha256_of_recording(there) != same
    (here / "a.txt").write_bytes(b"One")
    assert sha256_of_recording(here) != same


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"a\.mp4: cannot be read \(No such file or directory\)"):
        sha256_of_recording(tmp_path / "a.mp4")
