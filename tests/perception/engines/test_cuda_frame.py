from __future__ import annotations

import itertools
import platform
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from perception.engines.cuda_frame import FrameLayout, plan_frame
from perception.geometry import RESIZES
from perception.model_spec import PictureInput
from perception.preprocess import Preprocessor
from tests.perception.engines.cuda_on_cpu import address, library_of, separated

SIZES = ((1, 1), (2, 2), (3, 5), (35, 77), (641, 359), (1242, 375), (1920, 1080), (3840, 2160))
FORMATS = ("BGR", "RGB", "NV12", "YUYV")
INTERPOLATIONS = ("linear", "area", "nearest", "cubic")
TO_BGR = {"RGB": cv2.COLOR_RGB2BGR, "NV12": cv2.COLOR_YUV2BGR_NV12, "YUYV": cv2.COLOR_YUV2BGR_YUYV}
IMAGENET = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}
PICTURES = (
    {"width_px": 160, "height_px": 128, "dtype": "uint8", "resize": "letterbox_centre", "layout": "NHWC"},
    {"width_px": 97, "height_px": 61, "dtype": "float32", "resize": "stretch", "colour": "RGB", **IMAGENET},
    {"width_px": 64, "height_px": 96, "dtype": "float16", "resize": "letterbox_top_left", "scale": 1 / 255},
    {"width_px": 33, "height_px": 128, "resize": "letterbox_centre", "layout": "NHWC", "colour": "RGB"},
)


@dataclass(frozen=True)
class Case:
    layout: FrameLayout
    picture: PictureInput

    def __str__(self):
        layout, picture = self.layout, self.picture
        size = f"{layout.width_px}x{layout.height_px}-{layout.pixel_format}"
        return f"{size}-{picture.interpolation}-{picture.width_px}x{picture.height_px}-{picture.dtype}"


def layouts():
    for (width, height), pixel_format in itertools.product(SIZES, FORMATS):
        if pixel_format in ("BGR", "RGB") or (width % 2 == 0 and height % 2 == 0):
            yield FrameLayout(width, height, pixel_format)


# Every size and every format with every interpolation, half of all triples: each case is a program to compile.
CASES = [
    Case(layout, PictureInput(tensor="x", interpolation=interpolation, **PICTURES[(number + turn) % len(PICTURES)]))
    for number, layout in enumerate(layouts())
    for turn, interpolation in enumerate(INTERPOLATIONS)
    if (turn + number + number // 4) % 2 == 0
]


def area_cases():
    """Shrinking by `area`: by whole numbers, by fractions, hardly at all, to a pixel; chance and odd sizes."""
    sides = [
        (704, 704, 352, 352), (640, 480, 320, 480), (640, 480, 160, 480), (642, 360, 642, 90), (1056, 704, 352, 352),
        (1920, 1080, 640, 360), (35, 77, 35, 77), (36, 78, 35, 78), (1242, 375, 352, 352), (1242, 376, 352, 106),
        (490, 490, 10, 490), (2000, 99, 1999, 98), (3840, 2160, 1, 1), (1280, 720, 639, 361),
        (4, 4, 3, 3), (2, 2, 1, 1), (5, 1, 2, 1),
    ]  # fmt: skip
    chance = np.random.default_rng(7)
    for width, height in chance.integers(1, 900, (24, 2)).tolist():
        sides.append((width, height, int(chance.integers(1, width + 1)), int(chance.integers(1, height + 1))))
    for number, (width, height, content_width, content_height) in enumerate(sides):
        pixel_format = FORMATS[number % 4] if width % 2 == height % 2 == 0 else FORMATS[number % 2]
        picture = PICTURES[number % 4] | {"width_px": content_width, "height_px": content_height, "resize": "stretch"}
        yield Case(FrameLayout(width, height, pixel_format), PictureInput(tensor="x", interpolation="area", **picture))


CASES += area_cases()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Every case's own program, compiled together."""
    programs = []
    for number, case in enumerate(CASES):
        programs.append(separated(plan_frame(case.layout, case.picture).source, "tensor_from_frame", number))
        stored = {"float32": "float", "float16": "unsigned short", "uint8": "unsigned char"}[case.picture.dtype]
        programs.append(f"""
extern "C" void run_{number}(const unsigned char* frame, {stored}* tensor, const int* first_x, const float* weights_x,
    const int* first_y, const float* weights_y, const {stored}* table, int width, int height, int columns, int rows)
{{
    over_a_grid(columns, rows, [=] {{ program_{number}::tensor_from_frame_{number}(
        frame, tensor, first_x, weights_x, first_y, weights_y, table, width, height); }});
}}""")
    return library_of(programs, tmp_path_factory.mktemp("kernels"))


def tensor_by_kernel(kernels, number: int, frame: np.ndarray) -> np.ndarray:
    case = CASES[number]
    plan = plan_frame(case.layout, case.picture)
    tensor = np.zeros(case.picture.shape, case.picture.dtype)
    arrays = (plan.taps_x.first, plan.taps_x.weights, plan.taps_y.first, plan.taps_y.weights, plan.table)
    sizes = (case.layout.width_px, case.layout.height_px, *plan.grid)
    getattr(kernels, f"run_{number}")(address(frame), address(tensor), *map(address, arrays), *sizes)
    return tensor


def bgr_of(frame: np.ndarray, layout: FrameLayout) -> np.ndarray:
    return frame if layout.pixel_format == "BGR" else cv2.cvtColor(frame, TO_BGR[layout.pixel_format])


def grey_level(picture: PictureInput) -> float:
    """What one grey level before normalisation is at most in the tensor, its own rounding included."""
    values = np.arange(256)[:, None]
    table = ((values * picture.scale - picture.mean) / picture.std).astype(picture.dtype).astype(np.float64)
    return float(np.diff(table, axis=0).max())


def tensor_by_opencv(case: Case, frame: np.ndarray) -> np.ndarray:
    """The host's preparation, with OpenCV's own `area` before it where the host shrinks by another library's."""
    pixels, picture = bgr_of(frame, case.layout), case.picture
    if case.picture.interpolation == "area":
        source_size_px = (case.layout.width_px, case.layout.height_px)
        geometry = RESIZES[picture.resize](source_size_px, (picture.width_px, picture.height_px))
        content_size_px = (geometry.content_width_px, geometry.content_height_px)
        pixels = cv2.resize(pixels, content_size_px, interpolation=cv2.INTER_AREA)
    return Preprocessor(picture).prepare(pixels).feeds["x"]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number]))
def test_the_kernel_shrinks_as_the_cpu_to_the_bit_and_is_within_a_grey_level_of_opencv(kernels, number):
    case = CASES[number]
    frame = np.random.default_rng(number).integers(0, 256, case.layout.shape, np.uint8)
    got = tensor_by_kernel(kernels, number, frame).astype(np.float64)
    assert np.abs(got - tensor_by_opencv(case, frame).astype(np.float64)).max() <= grey_level(case.picture)
    layout, picture = case.layout, case.picture
    shrinks = layout.width_px >= picture.width_px and layout.height_px >= picture.height_px
    if shrinks and picture.interpolation in ("linear", "area") and platform.machine() == "x86_64":
        host = Preprocessor(picture).prepare(bgr_of(frame, layout)).feeds["x"]  # on Arm, OpenCV's releases differ
        np.testing.assert_array_equal(got, host.astype(np.float64))
    assert (got != got.flat[0]).any() or (tensor_by_opencv(case, frame) == got.flat[0]).all()


def test_the_padding_is_exactly_the_preprocessors(kernels):
    number = next(n for n, c in enumerate(CASES) if str(c).startswith("1242x375-BGR") and c.picture.resize != "stretch")
    case = CASES[number]
    frame = np.full(case.layout.shape, 255, np.uint8)
    expected = Preprocessor(case.picture).prepare(frame).feeds["x"]
    np.testing.assert_array_equal(tensor_by_kernel(kernels, number, frame), expected)


@pytest.mark.parametrize(
    ("width", "height", "pixel_format", "fits"),
    [
        (0, 1, "BGR", False), (1, 0, "BGR", False), (1, 1, "BGR", True), (3, 5, "RGB", True),
        (3, 4, "NV12", False), (4, 3, "NV12", False), (4, 4, "NV12", True),
        (3, 4, "YUYV", False), (4, 3, "YUYV", True),
    ],
)  # fmt: skip
def test_sizes_a_format_cannot_have_are_refused(width, height, pixel_format, fits):
    if fits:
        bytes_per_pixel = {"NV12": 1.5, "YUYV": 2}.get(pixel_format, 3)
        assert np.prod(FrameLayout(width, height, pixel_format).shape) == width * height * bytes_per_pixel
    else:
        with pytest.raises(ValueError, match=f"{width}×{height} px {pixel_format}: expected at least 1×1, and even"):
            FrameLayout(width, height, pixel_format)
