from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.geometry import RESIZES
from perception.model_spec import PictureInput, SizeInput
from perception.preprocess import Preprocessor

SIDES = st.integers(1, 3000)
NETWORK_SIDES = st.integers(8, 700)


def picture_input(**fields) -> PictureInput:
    return PictureInput.model_validate({"tensor": "images", "width_px": 96, "height_px": 64} | fields)


def pixels_of(width_px: int, height_px: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def tensor_of(picture: PictureInput, pixels: np.ndarray) -> np.ndarray:
    return Preprocessor(picture).prepare(pixels).feeds["images"]


@pytest.mark.parametrize("resize", RESIZES)
@given(source=st.tuples(SIDES, SIDES), network=st.tuples(NETWORK_SIDES, NETWORK_SIDES))
def test_boxes_survive_the_way_to_the_network_and_back(resize, source, network):
    geometry = RESIZES[resize](source, network)
    whole = np.array([[0, 0, *source]], np.float32)
    content = geometry.to_network(whole)
    left, top, right, bottom = content[0]
    np.testing.assert_allclose(right - left, geometry.content_width_px, rtol=1e-5)
    np.testing.assert_allclose(bottom - top, geometry.content_height_px, rtol=1e-5)
    assert left >= 0
    assert top >= 0
    assert right <= network[0] * (1 + 1e-5)
    assert bottom <= network[1] * (1 + 1e-5)
    np.testing.assert_allclose(geometry.to_source(content), whole, rtol=1e-4, atol=max(source) * 1e-4)


@pytest.mark.parametrize("resize", ["letterbox_top_left", "letterbox_centre"])
@given(source=st.tuples(SIDES, SIDES), network=st.tuples(NETWORK_SIDES, NETWORK_SIDES))
def test_a_letterbox_fills_one_side_and_keeps_the_proportions_to_a_pixel(resize, source, network):
    geometry = RESIZES[resize](source, network)
    content = (geometry.content_width_px, geometry.content_height_px)
    assert content[0] == network[0] or content[1] == network[1]
    ratio = min(network[0] / source[0], network[1] / source[1])
    for side, got in zip(source, content, strict=True):
        assert max(1, side * ratio - 1) - 1e-9 <= got <= max(1, side * ratio + 1e-9)


def test_a_centred_letterbox_puts_the_odd_row_below():
    geometry = RESIZES["letterbox_centre"]((100, 51), (100, 100))
    assert (geometry.offset_x_px, geometry.offset_y_px) == (0, 24)
    assert geometry.content_height_px == 51


@pytest.mark.parametrize(("width_px", "height_px"), [(1280, 720), (1242, 375), (333, 777), (96, 64), (31, 17)])
def test_yolox_gets_the_tensor_its_authors_demo_makes(width_px, height_px):
    pixels = pixels_of(width_px, height_px)
    ratio = min(96 / width_px, 64 / height_px)
    resized = cv2.resize(pixels, (int(width_px * ratio), int(height_px * ratio)), interpolation=cv2.INTER_LINEAR)
    expected = np.full((64, 96, 3), 114, np.uint8)
    expected[: resized.shape[0], : resized.shape[1]] = resized
    got = tensor_of(picture_input(resize="letterbox_top_left", pad_value=114), pixels)
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1)[None].astype(np.float32))


def test_nanodet_gets_a_centred_letterbox_with_normalised_padding():
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    pixels = pixels_of(200, 50)
    resized = cv2.resize(pixels, (96, 24), interpolation=cv2.INTER_AREA)
    expected = np.zeros((64, 96, 3))
    expected[20:44] = resized
    got = tensor_of(
        picture_input(resize="letterbox_centre", mean=mean, std=std, interpolation="area", pad_value=0), pixels
    )
    one_grey_level = 1 / min(std) + 1e-6
    np.testing.assert_allclose(got[0], ((expected - mean) / std).transpose(2, 0, 1), rtol=1e-6, atol=one_grey_level)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("colour", ["BGR", "RGB"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3)])
@pytest.mark.parametrize("normalised", [True, False])
def test_every_layout_colour_and_type_follows_the_formula(layout, colour, dtype, tolerance, normalised):
    formula = {"scale": 1 / 255, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)} if normalised else {}
    picture = picture_input(layout=layout, colour=colour, dtype=dtype, resize="stretch", **formula)
    pixels = pixels_of(120, 90)
    resized = cv2.resize(pixels, (96, 64)).astype(np.float64)
    ordered = resized[..., ::-1] if colour == "RGB" else resized
    expected = (ordered * picture.scale - picture.mean) / picture.std
    got = tensor_of(picture, pixels)
    assert got.dtype == dtype
    assert got.shape == picture.shape
    assert got.flags.c_contiguous
    there = got[0] if layout == "NHWC" else got[0].transpose(1, 2, 0)
    np.testing.assert_allclose(there.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_uint8_input_gets_the_pixels_themselves(layout):
    got = tensor_of(picture_input(layout=layout, dtype="uint8"), pixels_of(96, 64))
    there = got[0] if layout == "NHWC" else got[0].transpose(1, 2, 0)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(there, pixels_of(96, 64))


@pytest.mark.parametrize("colour", ["BGR", "RGB"])
@pytest.mark.parametrize("size_px", [(301, 211), (96, 64), (90, 300)])
def test_area_interpolation_is_opencvs_within_one_grey_level(colour, size_px):
    expected = cv2.resize(pixels_of(*size_px), (96, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    ordered = expected[..., ::-1] if colour == "RGB" else expected
    got = tensor_of(picture_input(interpolation="area", colour=colour), pixels_of(*size_px))
    assert np.abs(got[0] - ordered.transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "cubic"])
def test_every_other_interpolation_is_opencvs(interpolation):
    expected = cv2.resize(pixels_of(301, 211), (96, 64), interpolation=getattr(cv2, f"INTER_{interpolation.upper()}"))
    got = tensor_of(picture_input(interpolation=interpolation), pixels_of(301, 211))
    np.testing.assert_array_equal(got[0], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("resize", RESIZES)
def test_a_picture_of_another_size_leaves_nothing_of_the_one_before(layout, resize):
    picture = picture_input(layout=layout, resize=resize, pad_value=114, scale=1 / 255)
    used = Preprocessor(picture)
    for size in [(300, 50), (50, 300), (64, 64), (300, 50)]:
        np.testing.assert_array_equal(
            used.prepare(pixels_of(*size)).feeds["images"],
            Preprocessor(picture).prepare(pixels_of(*size)).feeds["images"],
        )


def test_a_view_into_a_larger_picture_is_read_as_it_looks():
    larger = pixels_of(300, 200)
    for view in (larger[10:150:2, 20:250], larger[::-1, ::-1], larger[..., ::-1]):
        np.testing.assert_array_equal(tensor_of(picture_input(), view), tensor_of(picture_input(), view.copy()))


def test_a_picture_one_pixel_high_still_has_content():
    prepared = Preprocessor(picture_input(resize="letterbox_centre")).prepare(pixels_of(5000, 1))
    assert prepared.geometry.content_height_px == 1


@pytest.mark.parametrize(("order", "expected"), [("width_height", [[96, 64]]), ("height_width", [[64, 96]])])
def test_a_size_input_is_fed_the_networks_own_size_in_its_order(order, expected):
    prepared = Preprocessor(picture_input(), SizeInput(tensor="orig_size", order=order)).prepare(pixels_of(500, 300))
    assert prepared.feeds["orig_size"].dtype == np.int64
    np.testing.assert_array_equal(prepared.feeds["orig_size"], expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("formula", [{}, {"scale": 1 / 255}])
def test_after_the_first_picture_nothing_of_its_size_is_allocated(layout, formula):
    preprocessor = Preprocessor(picture_input(layout=layout, width_px=416, height_px=416, colour="RGB", **formula))
    first = preprocessor.prepare(pixels_of(1280, 720))
    pixels = pixels_of(1280, 720, seed=1)
    tracemalloc.start()
    second = preprocessor.prepare(pixels)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert second.feeds["images"] is first.feeds["images"]
    assert peak_bytes < 20_000
