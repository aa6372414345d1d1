"""What spoils a camera's picture: sensor, optics, compression and weather, each at severities 1 to 5.

Our own small file: the libraries of the benchmarks (imagecorruptions, imgaug) are not maintained for today's Python,
and the others bring a deep-learning framework or another licence. Everything is OpenCV on uint8, a few milliseconds for
a 720p picture, and repeatable: the same picture number gives the same picture.

Kinds and five severities follow Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR, and Michaelis et al. 2019, "Benchmarking robustness in object detection", arXiv
1907.07484. The strengths are ours, chosen for road pictures: 1 is a bad day, 5 is beyond what a driver would drive in.
Lengths in pixels are of a picture 720 px high and scale with its height.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

SEVERITIES = (1, 2, 3, 4, 5)
NOISE_SIGMA = (5.0, 10.0, 18.0, 28.0, 42.0)  # of 255
BLUR_SIGMA_PX = (1.0, 1.8, 2.8, 4.2, 6.0)
EXPOSURE_STOPS = (0.5, 1.0, 1.6, 2.3, 3.0)
CONTRAST = (0.7, 0.5, 0.35, 0.22, 0.12)
JPEG_QUALITY = (40, 25, 15, 10, 6)
VISIBILITY_M = (500.0, 250.0, 150.0, 100.0, 60.0)
STREAKS = (150, 350, 700, 1200, 2000)  # in a picture of 16:9
DIRT_COVER = (0.04, 0.08, 0.14, 0.22, 0.32)  # of the lens

FAR_M = 60.0  # what stands above the horizon is taken to be this far
GAMMA = 2.2
FOG_GREY, DIRT_BGR = 200, (45, 55, 62)
ROOM_PX = 64  # layers are larger than the picture by this and start elsewhere on every picture

Pixels = NDArray[np.uint8]
Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]


def corrupted(pixels: Pixels, kind: str, severity: int, *, number: int) -> Pixels:
    """A spoilt copy of a picture.

    Args:
        pixels: (H, W, 3) uint8 BGR; stays as it is.
        kind: name in `CORRUPTIONS`.
        severity: 1 to 5.
        number: of the picture; decides where streaks and grains fall.
    """
    generator = np.random.default_rng((number, severity, list(CORRUPTIONS).index(kind)))
    return CORRUPTIONS[kind](pixels, severity - 1, generator)


def _noise(pixels: Pixels, step: int, generator: np.random.Generator) -> Pixels:
    """Grain of a sensor in the dark: independent Gaussian noise on every value."""
    grain = _grain(*pixels.shape[:2], NOISE_SIGMA[step])
    return _uint8(cv2.add(pixels, _somewhere(grain, pixels, generator), dtype=cv2.CV_8U))


def _blur(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Out of focus."""
    return _uint8(cv2.GaussianBlur(pixels, (0, 0), BLUR_SIGMA_PX[step] * pixels.shape[0] / 720))


def _brightness(pixels: Pixels, step: int, generator: np.random.Generator) -> Pixels:
    """Exposed wrongly, too bright or too dark: the light is multiplied, and what exceeds the sensor's range is lost."""
    stops = EXPOSURE_STOPS[step] * (1 if generator.integers(2) else -1)
    light = (np.arange(256) / 255) ** GAMMA * 2.0**stops
    return _uint8(cv2.LUT(pixels, np.round(np.minimum(light, 1) ** (1 / GAMMA) * 255).astype(np.uint8)))


def _contrast(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Values drawn towards their mean, as behind a hazy windscreen."""
    grey = float(np.mean(cv2.mean(pixels)[:3]))
    return _uint8(cv2.LUT(pixels, np.round(grey + CONTRAST[step] * (np.arange(256) - grey)).astype(np.uint8)))


def _jpeg(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Compressed too hard on its way."""
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY[step]])[1]
    return _uint8(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def _fog(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Light scattered on its way (Koschmieder 1924), by the distance that a flat road has at each row."""
    clear = _clearness(*pixels.shape[:2], VISIBILITY_M[step])
    return _uint8(cv2.blendLinear(pixels, np.full_like(pixels, FOG_GREY), clear, 1 - clear))


def _rain(pixels: Pixels, step: int, generator: np.random.Generator) -> Pixels:
    """Streaks of falling drops before a duller scene (Garg & Nayar 2007, "Vision and rain")."""
    streaks = _streaks(*pixels.shape[:2], STREAKS[step])
    return _uint8(cv2.addWeighted(pixels, 1 - 0.06 * (step + 1), _somewhere(streaks, pixels, generator), 0.6, 0))


def _lens_dirt(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Splashes on the glass: out of focus, and in the same place on every picture."""
    clear = _clean_glass(*pixels.shape[:2], DIRT_COVER[step])
    dirt = np.broadcast_to(np.array(DIRT_BGR, np.uint8), pixels.shape)
    return _uint8(cv2.blendLinear(pixels, np.ascontiguousarray(dirt), clear, 1 - clear))


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "fog": _fog,
    "rain": _rain,
    "lens dirt": _lens_dirt,
}


@lru_cache(maxsize=len(SEVERITIES))
def _grain(height_px: int, width_px: int, sigma: float) -> NDArray[np.int16]:
    generator = np.random.default_rng(0)
    shape = (height_px + ROOM_PX, width_px + ROOM_PX, 3)
    return np.round(generator.standard_normal(shape, np.float32) * sigma).astype(np.int16)


@lru_cache(maxsize=len(SEVERITIES))
def _clearness(height_px: int, width_px: int, visibility_m: float) -> NDArray[np.float32]:
    """(H, W) share of its own light that arrives from what is seen at a pixel, in patches of denser and thinner fog."""
    below_horizon = np.maximum(np.arange(height_px) / height_px - 0.5, 1e-6)
    distance_m = np.minimum(FAR_M, 2.25 / below_horizon)  # a camera 1.5 m up, 1.5 picture heights of focal length
    patches = cv2.resize(np.random.default_rng(1).uniform(0.7, 1.3, (4, 7)).astype(np.float32), (width_px, height_px))
    depth = 3.912 / visibility_m * distance_m[:, None] * patches  # 2 % of the contrast is left at the visibility
    return np.asarray(np.exp(-depth), np.float32)


@lru_cache(maxsize=len(SEVERITIES))
def _streaks(height_px: int, width_px: int, count: int) -> Pixels:
    generator = np.random.default_rng(2)
    layer = np.zeros((height_px + ROOM_PX, width_px + ROOM_PX, 3), np.uint8)
    scale = height_px / 720
    starts = generator.uniform((0, 0), layer.shape[1::-1], (count, 2))
    lengths_px = generator.uniform(15, 50, count) * scale
    for start, length_px, grey in zip(starts, lengths_px, generator.integers(120, 256, count), strict=True):
        end = start + length_px * np.array([0.18, 1.0])
        cv2.line(layer, _point(start), _point(end), (int(grey),) * 3, max(1, round(1.4 * scale)), cv2.LINE_AA)
    return _uint8(cv2.GaussianBlur(layer, (0, 0), max(0.4, 0.7 * scale)))


@lru_cache(maxsize=len(SEVERITIES))
def _clean_glass(height_px: int, width_px: int, cover: float) -> NDArray[np.float32]:
    """(H, W) 1 where the lens is clean, towards 0 under a splash."""
    generator = np.random.default_rng(3)
    dirt = np.zeros((height_px, width_px), np.float32)
    while dirt.mean() < cover:
        centre = _point(generator.uniform((0, 0), (width_px, height_px)))
        cv2.circle(dirt, centre, max(2, round(generator.uniform(0.01, 0.06) * height_px)), 1.0, cv2.FILLED)
    return 1 - 0.95 * np.asarray(cv2.GaussianBlur(dirt, (0, 0), max(1.0, height_px / 110)), np.float32)


def _somewhere(layer: NDArray[np.generic], pixels: Pixels, generator: np.random.Generator) -> NDArray[np.generic]:
    """A part of a larger layer, as large as the picture."""
    top, left = generator.integers(0, ROOM_PX, 2)
    return layer[top : top + pixels.shape[0], left : left + pixels.shape[1]]


def _point(xy: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def _uint8(pixels: object) -> Pixels:
    return np.asarray(pixels, np.uint8)
