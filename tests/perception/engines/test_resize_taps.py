from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.engines.resize_taps import resize_taps

FLAGS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC}
SIDES = st.integers(1, 700)
LARGE = ((3840, 2160, 640, 640), (1920, 1080, 416, 234), (1920, 1080, 1920, 1080), (1, 1, 640, 640), (4096, 1, 7, 3))


def resized_by_taps(picture: np.ndarray, size_px: tuple[int, int], interpolation: str) -> np.ndarray:
    """The kernel's sum: float32 weights, indices clamped, one rounding to whole grey levels."""
    x, y = resize_taps(picture.shape[1::-1], size_px, interpolation)
    rows = np.zeros((size_px[1], *picture.shape[1:]), np.float32)
    for tap in range(y.weights.shape[1]):
        source = np.clip(y.first + tap, 0, picture.shape[0] - 1)
        rows += y.weights[:, tap, None, None] * picture[source].astype(np.float32)
    result = np.zeros((size_px[1], size_px[0], picture.shape[2]), np.float32)
    for tap in range(x.weights.shape[1]):
        source = np.clip(x.first + tap, 0, picture.shape[1] - 1)
        result += x.weights[None, :, tap, None] * rows[:, source]
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def assert_within_a_grey_level(source_px: tuple[int, int], size_px: tuple[int, int], interpolation: str) -> None:
    picture = np.random.default_rng(sum(source_px)).integers(0, 256, (source_px[1], source_px[0], 3), np.uint8)
    expected = cv2.resize(picture, size_px, interpolation=FLAGS[interpolation])
    got = resized_by_taps(picture, size_px, interpolation)
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("interpolation", FLAGS)
@settings(max_examples=30)
@given(source=st.tuples(SIDES, SIDES), content=st.tuples(SIDES, SIDES))
def test_any_size_to_any_size_is_within_a_grey_level_of_opencv(interpolation, source, content):
    assert_within_a_grey_level(source, content, interpolation)


@pytest.mark.parametrize("interpolation", FLAGS)
@pytest.mark.parametrize(("width", "height", "content_width", "content_height"), LARGE)
def test_large_and_thin_pictures_are_within_a_grey_level_of_opencv(
    interpolation, width, height, content_width, content_height
):
    assert_within_a_grey_level((width, height), (content_width, content_height), interpolation)


@pytest.mark.parametrize("interpolation", FLAGS)
@settings(max_examples=30)
@given(source=st.tuples(SIDES, SIDES), content=st.tuples(SIDES, SIDES))
def test_weights_of_a_pixel_sum_to_one(interpolation, source, content):
    for axis, taps in enumerate(resize_taps(source, content, interpolation)):
        assert taps.first.dtype == np.int32
        assert taps.weights.dtype == np.float32
        assert taps.weights.shape[0] == content[axis]
        np.testing.assert_allclose(taps.weights.sum(axis=1), 1, atol=1e-5)
