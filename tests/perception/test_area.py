from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.area import AreaShrinker, is_shrinking


def shrunk(pixels: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    shrinker = AreaShrinker((pixels.shape[1], pixels.shape[0]), (width_px, height_px))
    shrinker.shrink(np.zeros_like(pixels))  # what it was used for before leaves no trace
    return np.stack(shrinker.shrink(pixels), axis=2)


@settings(max_examples=60)
@given(st.data(), st.integers(24, 300), st.integers(24, 300))
def test_it_is_opencvs_area_average_within_one_grey_level(data: st.DataObject, width_px: int, height_px: int) -> None:
    size = (data.draw(st.integers(16, width_px)), data.draw(st.integers(16, height_px)))
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


def test_only_where_no_side_grows_is_it_shrinking() -> None:
    assert is_shrinking((416, 416), (416, 126))
    assert not is_shrinking((400, 400), (416, 126))
