from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from compile.calibration import (
    CalibrationSet,
    choose_calibration,
    choose_diverse,
    choose_evaluation,
    held_out,
    refuse_overlap,
)
from compile.recordings import Recordings, survey
from perception.errors import CalibrationError, SourceError
from tests.compile.builders import HEIGHT_PX, WIDTH_PX, road_picture, write_drive, write_pictures


def calibrated(folder: Path, **settings: object) -> CalibrationSet:
    return choose_calibration((folder,), survey((folder,)), **settings)


def noise(count: int, *, grain: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    size = (-(-240 // grain), -(-320 // grain), 3)
    return [cv2.resize(random.integers(0, 256, size, np.uint8), (320, 240)) for _ in range(count)]


@pytest.mark.parametrize("grain", [1, 2])
def test_random_noise_is_refused_whatever_its_grain(tmp_path, grain):
    folder = write_pictures(tmp_path / "noise", noise(20, grain=grain))
    with pytest.raises(CalibrationError, match=r"noise: 20 of 20 frames are random noise .* expected at least 0.5"):
        calibrated(folder)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_a_single_colour_is_refused(tmp_path, level):
    colour = np.full((HEIGHT_PX, WIDTH_PX, 3), level, np.uint8)
    folder = write_pictures(tmp_path / "grey", [colour] * 20)
    with pytest.raises(CalibrationError, match="20 of 20 frames are a single colour"):
        calibrated(folder)


@pytest.mark.parametrize(("count", "accepted"), [(3, False), (15, False), (16, True)])
def test_fewer_than_sixteen_distinct_frames_are_refused(tmp_path, count, accepted):
    folder = write_drive(tmp_path / "drive", seed=1, count=count)
    if accepted:
        assert len(calibrated(folder).recordings) == count
        return
    with pytest.raises(CalibrationError, match=f"got {count} distinct frames, expected at least 16: a range learnt"):
        calibrated(folder)


def test_copies_of_one_frame_are_refused_though_their_noise_differs(tmp_path):
    random = np.random.default_rng(0)
    scene = road_picture(1).astype(np.float32)
    copies = [np.clip(scene + random.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    folder = write_pictures(tmp_path / "parked", copies)
    with pytest.raises(CalibrationError, match=r"got 1 distinct frames \(of 40, the others are near-duplicates\)"):
        calibrated(folder)


def test_fewer_frames_than_the_least_cannot_be_asked_for(tmp_path):
    folder = write_drive(tmp_path / "drive", seed=1)
    with pytest.raises(CalibrationError, match="8 calibration frames asked for, expected at least 16"):
        calibrated(folder, frames=8)


def test_black_frames_at_the_start_are_left_out_and_counted(tmp_path):
    pictures = [np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)] * 3 + [road_picture(number) for number in range(20)]
    chosen = calibrated(write_pictures(tmp_path / "drive", pictures))
    assert [frame.frame_id for frame in chosen.recordings.chosen] == list(range(3, 23))
    assert chosen.left_out == {"a single colour": 3}


@pytest.mark.parametrize("selection", ["diverse", "even"])
def test_as_many_frames_as_asked_for_are_chosen_in_order_and_again_the_same(tmp_path, selection):
    folder = write_drive(tmp_path / "drive", seed=1, count=40)
    chosen = calibrated(folder, frames=18, selection=selection)
    numbers = [frame.frame_id for frame in chosen.recordings.chosen]
    assert len(numbers) == 18
    assert numbers == sorted(numbers)
    assert chosen.sha256 == calibrated(folder, frames=18, selection=selection).sha256


def test_diverse_frames_include_the_odd_one_out(tmp_path):
    night = (road_picture(99) // 6).astype(np.uint8)
    pictures = [road_picture(1), *[cv2.add(road_picture(1), 2.0 * n) for n in range(1, 20)]]
    pictures.insert(13, night)
    seen = survey((write_pictures(tmp_path / "drive", pictures),))
    assert 13 in [frame.frame_id for frame in choose_diverse(seen, 3)]


def test_the_document_names_every_frame_and_recording_by_digest(tmp_path):
    folder = write_drive(tmp_path / "monday", seed=1, count=16)
    document = calibrated(folder).document()
    assert [source["name"] for source in document["recordings"]] == ["monday"]
    assert len({frame["pixels_sha256"] for frame in document["frames"]}) == 16
    assert str(tmp_path) not in str(document)


def test_evaluating_on_a_calibration_frame_is_refused(tmp_path):
    chosen = calibrated(write_drive(tmp_path / "monday", seed=1, count=20))
    pictures = [road_picture(9000 + number) for number in range(5)] + [road_picture(1003)]
    evaluation = write_pictures(tmp_path / "tuesday", pictures)
    with pytest.raises(CalibrationError, match=r"1 of 6 evaluation frames .* \(first: 0005 of camera"):
        refuse_overlap(chosen, Recordings((evaluation,), tuple(survey((evaluation,)))))


def test_evaluating_on_a_calibration_frame_saved_as_jpeg_is_refused(tmp_path):
    chosen = calibrated(write_drive(tmp_path / "monday", seed=1, count=20))
    (tmp_path / "tuesday").mkdir()
    cv2.imwrite(str(tmp_path / "tuesday" / "copy.jpg"), road_picture(1003), [cv2.IMWRITE_JPEG_QUALITY, 80])
    evaluation = Recordings((tmp_path / "tuesday",), tuple(survey((tmp_path / "tuesday",))))
    with pytest.raises(CalibrationError, match="1 of 1 evaluation frames are also calibration frames or look the same"):
        refuse_overlap(chosen, evaluation)


def test_another_drive_may_evaluate(tmp_path):
    chosen = calibrated(write_drive(tmp_path / "monday", seed=1, count=20))
    evaluation = write_drive(tmp_path / "tuesday", seed=2, count=20)
    refuse_overlap(chosen, Recordings((evaluation,), tuple(survey((evaluation,)))))


def test_the_last_quarter_of_every_recording_is_held_out(tmp_path):
    paths = tuple(write_drive(tmp_path / name, seed=seed) for seed, name in enumerate(("a", "b")))
    early, late = held_out(survey(paths))
    assert [(frame.source, frame.frame_id) for frame in late] == [(s, n) for s in (0, 1) for n in range(18, 24)]
    assert len(early) == 36


def test_a_held_out_frame_that_looks_like_a_calibration_frame_does_not_evaluate(tmp_path):
    pictures = [road_picture(number) for number in range(20)]
    folder = write_pictures(tmp_path / "loop", pictures + pictures[:5] + [road_picture(500)])
    early, late = held_out(survey((folder,)))
    chosen = choose_calibration((folder,), early)
    evaluation = choose_evaluation((folder,), late, apart_from=chosen.recordings.chosen, frames=10)
    assert [frame.frame_id for frame in evaluation.chosen] == [25]


def test_holding_out_nothing_but_copies_is_refused(tmp_path):
    pictures = [road_picture(number) for number in range(18)]
    folder = write_pictures(tmp_path / "loop", pictures + pictures[:6])
    early, late = held_out(survey((folder,)))
    with pytest.raises(
        CalibrationError, match="no frame is left to compare float and INT8 on, all 6 held out look like"
    ):
        choose_evaluation((folder,), late, apart_from=choose_calibration((folder,), early).recordings.chosen, frames=10)


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere: does not exist"):
        survey((tmp_path / "nowhere",))
