from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources.raw_pixels import ENCODINGS, RawPicture

HEIGHT, WIDTH = 32, 48
COLOURS = {"left": (200, 40, 60), "right": (30, 90, 220)}  # blue, green, red
SLACK = {"yuv422": 12, "uyvy": 12, "yuv422_yuy2": 12, "yuyv": 12, "nv12": 12, "nv21": 12}


def scene() -> np.ndarray:
    """A bluish left half and a reddish right one: channels taken for each other show."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :] = COLOURS["left"], COLOURS["right"]
    return pixels


def grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def mosaic(pixels: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with a colour filter of this pattern (row by row) sees."""
    seen = np.empty(pixels.shape[:2], pixels.dtype)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        seen[row::2, column::2] = pixels[row::2, column::2, "bgr".index(colour)]
    return seen


def packed(pixels: np.ndarray, order: str) -> np.ndarray:
    """4:2:2 in one row: `order` spells the four bytes of two pixels."""
    y, u, v = planes(pixels)
    rows = np.empty((HEIGHT, WIDTH * 2), np.uint8)
    sources = {"u": u, "v": v, "y": y[:, ::2], "z": y[:, 1::2]}
    for place, name in enumerate(order):
        rows[:, place::4] = sources[name]
    return rows


def planes(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Limited-range BT.601: luma at full size, chroma of every second column."""
    blue, green, red = (pixels[..., channel].astype(float) for channel in range(3))
    y = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    return y.round().astype(np.uint8), u[:, ::2].round().astype(np.uint8), v[:, ::2].round().astype(np.uint8)


def semi_planar(pixels: np.ndarray, order: str) -> np.ndarray:
    y, u, v = planes(pixels)
    chroma = np.empty((HEIGHT // 2, WIDTH), np.uint8)
    first, second = (u, v) if order == "uv" else (v, u)
    chroma[:, ::2], chroma[:, 1::2] = first[::2], second[::2]
    return np.vstack([y, chroma])


def wide(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype("<u2") * 257


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], pixels.max(), pixels.dtype)])


RGB = slice(None, None, -1)
WRITERS = {
    "bgr8": lambda bgr: bgr,
    "8UC3": lambda bgr: bgr,
    "rgb8": lambda bgr: bgr[..., RGB],
    "bgra8": with_alpha,
    "rgba8": lambda bgr: with_alpha(bgr[..., RGB]),
    "mono8": grey,
    "8UC1": grey,
    "bgr16": wide,
    "rgb16": lambda bgr: wide(bgr[..., RGB]),
    "bgra16": lambda bgr: with_alpha(wide(bgr)),
    "rgba16": lambda bgr: with_alpha(wide(bgr[..., RGB])),
    "mono16": lambda bgr: wide(grey(bgr)),
    **{f"bayer_{each}8": lambda bgr, each=each: mosaic(bgr, each) for each in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{each}16": lambda bgr, each=each: wide(mosaic(bgr, each)) for each in ("rggb", "bggr", "gbrg", "grbg")},
    "yuv422": lambda bgr: packed(bgr, "uyvz"),
    "uyvy": lambda bgr: packed(bgr, "uyvz"),
    "yuv422_yuy2": lambda bgr: packed(bgr, "yuzv"),
    "yuyv": lambda bgr: packed(bgr, "yuzv"),
    "nv12": lambda bgr: semi_planar(bgr, "uv"),
    "nv21": lambda bgr: semi_planar(bgr, "vu"),
}


def raw(encoding: str, *, padding: int = 0, big_endian: bool = False) -> RawPicture:
    samples = WRITERS[encoding](scene())
    lines = np.ascontiguousarray(samples.astype(samples.dtype.newbyteorder(">")) if big_endian else samples)
    rows = lines.view(np.uint8).reshape(len(lines), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    return RawPicture(WIDTH, HEIGHT, encoding, padded.shape[1], padded.tobytes(), big_endian)


def assert_is_scene(pixels: np.ndarray, encoding: str) -> None:
    expected = cv2.cvtColor(grey(scene()), cv2.COLOR_GRAY2BGR) if ENCODINGS[encoding].conversion == 8 else scene()
    inner = np.r_[4 : WIDTH // 2 - 4, WIDTH // 2 + 4 : WIDTH - 4]  # interpolation blurs what lies between
    apart = np.abs(pixels[4:-4, inner].astype(int) - expected[4:-4, inner])
    assert apart.max() <= SLACK.get(encoding, 1)


def test_every_encoding_is_written_here():
    assert set(WRITERS) == set(ENCODINGS)
    assert cv2.COLOR_GRAY2BGR == 8


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("padding", [0, 16])
def test_colours_come_out_as_they_went_in(encoding, padding):
    pixels = raw(encoding, padding=padding).pixels(where="bag: /front")
    assert (pixels.shape, pixels.dtype, pixels.flags.writeable) == ((HEIGHT, WIDTH, 3), np.uint8, False)
    assert_is_scene(pixels, encoding)


@pytest.mark.parametrize("encoding", [name for name, each in ENCODINGS.items() if each.bits == 16])
def test_sixteen_bits_of_a_big_endian_machine_are_turned(encoding):
    assert_is_scene(raw(encoding, big_endian=True).pixels(where="bag"), encoding)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "rgb9", ""])
def test_what_is_no_camera_picture_is_refused_with_what_to_do(encoding):
    picture = RawPicture(4, 2, encoding, 16, bytes(64))
    with pytest.raises(SourceError, match=rf"/depth: got encoding '{encoding}', expected .*bgr8.* with --camera"):
        picture.pixels(where="bag: /depth")


@pytest.mark.parametrize(
    ("width", "height", "step", "size"), [(4, 2, 12, 23), (4, 2, 11, 24), (0, 2, 12, 24), (4, 0, 12, 24)]
)
def test_a_content_that_is_no_such_picture_is_refused(width, height, step, size):
    with pytest.raises(SourceError, match=rf"got {size} bytes in steps of {step} for {width}x{height} px of bgr8"):
        RawPicture(width, height, "bgr8", step, bytes(size)).pixels(where="bag")


def test_chroma_of_an_odd_size_is_refused():
    with pytest.raises(SourceError, match="5x3 px of nv12 cannot be converted to BGR"):
        RawPicture(5, 3, "nv12", 5, bytes(20)).pixels(where="bag")


def test_bgr_is_a_view_and_costs_no_copy():
    content = scene().tobytes()
    pixels = RawPicture(WIDTH, HEIGHT, "bgr8", WIDTH * 3, content).pixels(where="bag")
    assert np.shares_memory(pixels, np.frombuffer(content, np.uint8))
