"""Recordings that cannot calibrate are one sentence and leave nothing; those that can, may be of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hw_profiles.machine import read_machine
from perception.cli import EXIT_MISUSE, EXIT_PASSED, main
from perception.package import open_package
from tests.compile.builders import road_picture, write_drive, write_pictures, write_segmenter

PROFILE = "x86_cpu" if read_machine().cpu.arch == "x86_64" else "arm_cpu"


def compiled(folder: Path, *words: str) -> int:
    fixed = ["compile", str(write_segmenter(folder)), "--profile", PROFILE, "--output", str(folder / "package")]
    return main([*fixed, "--frames", "16", "--timing-s", "0.01", "--quiet", *words])


def sized(*sizes_px: tuple[int, int]) -> list[np.ndarray]:
    """28 road pictures, each as (width, height) of the sizes in turn."""
    return [cv2.resize(road_picture(number), sizes_px[number % len(sizes_px)]) for number in range(28)]


@pytest.mark.parametrize(
    "pictures",
    [sized((640, 360)), sized((33, 21)), sized((96, 64), (128, 128)), sized((17, 200))],
    ids=["larger", "smaller and odd", "of two sizes", "upright"],
)
def test_pictures_of_another_size_than_the_network_calibrate(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    write_pictures(tmp_path / "drive", pictures)
    words = ["--calibration", str(tmp_path / "drive"), "--precision", "int8", "--max-drop", "0.9"]
    assert compiled(tmp_path, *words, "--min-agreement", "0.1") == EXIT_PASSED
    assert open_package(tmp_path / "package").manifest.engine.precision == "int8"


def single_colour(folder: Path) -> list[str]:
    return ["--calibration", str(write_pictures(folder / "grey", [np.full((64, 96, 3), 90, np.uint8)] * 20))]


def three_frames(folder: Path) -> list[str]:
    return ["--calibration", str(write_drive(folder / "short", seed=1, count=3))]


def nothing(folder: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["--calibration", str(folder / "empty")]


def graded_on_itself(folder: Path) -> list[str]:
    drive = str(write_drive(folder / "drive", seed=1))
    return ["--calibration", drive, "--recording", drive]


def a_frame_that_is_cut(folder: Path) -> list[str]:
    drive = write_drive(folder / "drive", seed=1)
    damaged = drive / "0007.png"
    damaged.write_bytes(damaged.read_bytes()[:500])
    return ["--calibration", str(drive)]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (single_colour, "frames are a single colour"),
        (three_frames, "distinct frames, expected at least 16"),
        (nothing, "is a folder that holds nothing, expected"),
        (graded_on_itself, "evaluation frames are also calibration frames or look the same"),
        (a_frame_that_is_cut, "0007.png: cannot be decoded (500 bytes), expected a whole png picture"),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else " ",
)
def test_recordings_that_cannot_calibrate_are_one_sentence_and_leave_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], words: Callable[[Path], list[str]], complaint: str
) -> None:
    assert compiled(tmp_path, *words(tmp_path)) == EXIT_MISUSE
    error = capfd.readouterr().err
    assert complaint in error
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "package").exists()
