from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perception.area import AreaShrinker, is_near_opencv
from perception.model_spec import PictureInput
from perception.preprocess import Preprocessor


def shrunk(pixels: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    shrinker = AreaShrinker((pixels.shape[1], pixels.shape[0]), (width_px, height_px))
    shrinker.shrink(np.zeros_like(pixels))  # what it was used for before leaves no trace
    return np.stack(shrinker.shrink(pixels), axis=2)


@settings(max_examples=60)
@given(st.data(), st.integers(24, 300), st.integers(24, 300))
def test_it_is_opencvs_area_average_within_one_grey_level(data: st.DataObject, width_px: int, height_px: int) -> None:
    size = (data.draw(st.integers(16, width_px)), data.draw(st.integers(16, height_px)))
    assume(is_near_opencv((width_px, height_px), size))
    chance = np.random.default_rng(data.draw(st.integers(0, 99)))
    pixels = chance.integers(0, 256, (height_px, width_px, 3), np.uint8)
    expected = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk(pixels, *size).astype(int) - expected).max() <= 1


def test_it_rounds_as_opencv_does() -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (375, 1242, 3), np.uint8), (0, 0), 2)
    for size in ((352, 352), (416, 126)):
        differs = shrunk(pixels, *size) != cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        assert differs.mean() < 0.02, size


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_picture_keeps_its_value(value: int) -> None:
    assert (shrunk(np.full((375, 1242, 3), value, np.uint8), 416, 126) == value).all()


def test_where_a_side_grows_opencv_is_asked() -> None:
    assert is_near_opencv((416, 416), (416, 126))
    assert not is_near_opencv((400, 400), (416, 126))


@pytest.mark.parametrize(
    ("source", "target", "shrinks"),
    [
        ((1920, 2), (416, 1), False),
        ((1920, 8), (416, 3), True),
        ((60, 60), (1, 1), False),
        ((401, 300), (2, 2), False),
        ((256, 300), (2, 3), True),
    ],
)
def test_what_libswscale_would_shrink_otherwise_is_left_to_opencv(source, target, shrinks) -> None:
    assert is_near_opencv(source, target) is shrinks
    picture = PictureInput(tensor="x", width_px=target[0], height_px=target[1], resize="stretch", interpolation="area")
    pixels = np.random.default_rng(0).integers(0, 256, (*source[::-1], 3), np.uint8)
    expected = cv2.resize(pixels, target, interpolation=cv2.INTER_AREA).reshape(*target[::-1], 3)
    got = Preprocessor(picture).prepare(pixels).feeds["x"][0].transpose(1, 2, 0)
    assert np.abs(got - expected).max() <= 1
