from __future__ import annotations

import platform

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perception.area import AreaShrinker, is_near_opencv
from perception.engines.area_taps import area_taps
from perception.engines.resize_taps import Taps, _area, is_mean, resize_taps

FLAGS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC}
SIDES = st.integers(1, 700)
LARGE = ((3840, 2160, 640, 640), (1920, 1080, 416, 234), (1920, 1080, 1920, 1080), (1, 1, 640, 640), (4096, 1, 7, 3))


def resized_by_taps(picture: np.ndarray, size_px: tuple[int, int], taps: tuple[Taps, Taps]) -> np.ndarray:
    """OpenCV's sum: float32 weights, columns before rows, in order; indices clamped; one rounding to grey levels."""
    x, y = taps
    rows = np.zeros((picture.shape[0], size_px[0], picture.shape[2]), np.float32)
    for tap in range(x.weights.shape[1]):
        source = np.clip(x.first + tap, 0, picture.shape[1] - 1)
        rows += x.weights[None, :, tap, None] * picture[:, source].astype(np.float32)
    result = np.zeros((size_px[1], *rows.shape[1:]), np.float32)
    for tap in range(y.weights.shape[1]):
        source = np.clip(y.first + tap, 0, picture.shape[0] - 1)
        result += y.weights[:, tap, None, None] * rows[source]
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def assert_near_opencv(
    source_px: tuple[int, int], size_px: tuple[int, int], interpolation: str, *, own_area: bool = False
) -> None:
    picture = np.random.default_rng(sum(source_px)).integers(0, 256, (source_px[1], source_px[0], 3), np.uint8)
    expected = cv2.resize(picture, size_px, interpolation=FLAGS[interpolation])
    taps = resize_taps(source_px, size_px, interpolation)
    if own_area:
        taps = _area(source_px[0], size_px[0]), _area(source_px[1], size_px[1])
    got = resized_by_taps(picture, size_px, taps)
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= (0 if own_area else 1)


@pytest.mark.parametrize("interpolation", FLAGS)
@settings(max_examples=30)
@given(source=st.tuples(SIDES, SIDES), content=st.tuples(SIDES, SIDES))
def test_any_size_to_any_size_is_within_a_grey_level_of_opencv(interpolation, source, content):
    assert_near_opencv(source, content, interpolation)


@pytest.mark.parametrize("interpolation", FLAGS)
@pytest.mark.parametrize(("width", "height", "content_width", "content_height"), LARGE)
def test_large_and_thin_pictures_are_within_a_grey_level_of_opencv(
    interpolation, width, height, content_width, content_height
):
    assert_near_opencv((width, height), (content_width, content_height), interpolation)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="on Arm, OpenCV's own releases round differently")
@settings(max_examples=100)
@given(st.data(), st.tuples(SIDES, SIDES))
def test_area_by_opencv_that_shrinks_by_a_fraction_is_opencvs_to_the_bit(data, source):
    content = tuple(data.draw(st.integers(1, side)) for side in source)
    assume(not is_mean(source, content))
    assert_near_opencv(source, content, "area", own_area=True)


@settings(max_examples=150)
@given(st.data(), st.tuples(SIDES, SIDES))
def test_area_by_libswscale_is_the_cpus_to_the_bit(data, source):
    content = tuple(data.draw(st.integers(1, side)) for side in source)
    assume(is_near_opencv(source, content))
    picture = np.random.default_rng(sum(source)).integers(0, 256, (source[1], source[0], 3), np.uint8)
    planes = AreaShrinker(source, content).shrink(picture)
    x, wx = area_taps(source[0], content[0], 1 << 14)
    y, wy = area_taps(source[1], content[1], 1 << 12)
    columns = np.clip(x[:, None] + np.arange(wx.shape[1]), 0, source[0] - 1)
    rows = np.clip(y[:, None] + np.arange(wy.shape[1]), 0, source[1] - 1)
    for channel, plane in enumerate(planes):
        between = np.einsum("hnk,nk->hn", picture[:, columns, channel].astype(np.int64), wx) >> 7
        got = (np.einsum("nkw,nk->nw", between[rows], wy) + (1 << 18)) >> 19
        np.testing.assert_array_equal(got, plane)


@pytest.mark.parametrize(
    ("source", "content", "mean"),
    [
        ((4, 4), (2, 2), True), ((4, 4), (4, 1), True), ((4, 4), (4, 4), True), ((9, 4), (3, 2), True),
        ((5, 4), (2, 2), False), ((4, 5), (2, 2), False), ((2, 4), (4, 2), False), ((98, 49), (2, 49), False),
    ],
)  # fmt: skip
def test_a_mean_is_where_both_sides_shrink_by_whole_numbers_as_opencv_divides(source, content, mean):
    assert is_mean(source, content) is mean


@pytest.mark.parametrize("interpolation", FLAGS)
@settings(max_examples=30)
@given(source=st.tuples(SIDES, SIDES), content=st.tuples(SIDES, SIDES))
def test_weights_of_a_pixel_sum_to_one(interpolation, source, content):
    for axis, taps in enumerate(resize_taps(source, content, interpolation)):
        assert taps.first.dtype == np.int32
        assert taps.weights.dtype == np.float32
        assert taps.weights.shape[0] == content[axis]
        np.testing.assert_allclose(taps.weights.sum(axis=1), 1, atol=1e-5)
