from __future__ import annotations

import numpy as np

from compile import recordings
from compile.recordings import Recordings, digest_of, evenly, survey
from perception.files import sha256_of_bytes
from tests.compile.builders import road_picture, write_drive, write_pictures


def test_chosen_frames_are_decoded_again_as_they_were_seen(tmp_path):
    paths = tuple(write_drive(tmp_path / name, seed=seed, count=6) for seed, name in enumerate(("a", "b")))
    seen = survey(paths)
    chosen = Recordings(paths, (seen[1], seen[4], seen[9]))
    digests = [sha256_of_bytes(frame.pixels.tobytes()) for frame in chosen.frames()]
    assert digests == [frame.pixels_sha256 for frame in chosen.chosen]


def test_long_recordings_are_thinned_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "MOST_CANDIDATES", 10)
    seen = survey((write_drive(tmp_path / "long", seed=1, count=45),))
    assert [frame.frame_id for frame in seen] == list(range(0, 45, 8))


def test_evenly_keeps_the_ends(tmp_path):
    seen = survey((write_drive(tmp_path / "drive", seed=1, count=11),))
    assert [frame.frame_id for frame in evenly(seen, 3)] == [0, 5, 10]
    assert evenly(seen, 20) == seen


def test_a_folders_digest_changes_with_a_byte_and_with_a_name(tmp_path):
    folder = write_pictures(tmp_path / "drive", [road_picture(1), road_picture(2)])
    before = digest_of(folder)
    assert digest_of(folder) == before
    (folder / "0001.png").rename(folder / "0009.png")
    renamed = digest_of(folder)
    (folder / "0009.png").write_bytes(b"other")
    assert len({before, renamed, digest_of(folder)}) == 3


def test_structure_tells_pictures_from_noise(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    picture, noise = survey((write_pictures(tmp_path / "mixed", [road_picture(1), random]),))
    assert picture.structure > 0.8
    assert abs(noise.structure) < 0.1
