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
STACK_RADIUS = 2.0  # of a stack blur, in sigmas of the Gaussian it comes close to
STREAK_LIGHT = 0.6
FOG_GREY, DIRT_BGR = 200, (45, 55, 62)
ROOM_PX = 64  # layers are larger than the picture by this and start elsewhere on every picture

Pixels = NDArray[np.uint8]
Layer = tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]
"""What lies before the scene, the share of the scene that is seen, and the share of the layer."""
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
    place = _somewhere(pixels, generator)
    brighter, darker = _grain(*pixels.shape[:2], NOISE_SIGMA[step])
    return _uint8(cv2.subtract(cv2.add(pixels, brighter[place]), darker[place]))


def _blur(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Out of focus."""
    radius_px = round(BLUR_SIGMA_PX[step] * STACK_RADIUS * pixels.shape[0] / 720)
    return _uint8(cv2.stackBlur(pixels, (2 * radius_px + 1,) * 2))


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
    return _uint8(cv2.blendLinear(pixels, *_fog_before(*pixels.shape[:2], VISIBILITY_M[step])))


def _rain(pixels: Pixels, step: int, generator: np.random.Generator) -> Pixels:
    """Streaks of falling drops before a duller scene (Garg & Nayar 2007, "Vision and rain")."""
    duller = np.round(np.arange(256) * (1 - 0.06 * (step + 1))).astype(np.uint8)
    streaks = _streaks(*pixels.shape[:2], STREAKS[step])[_somewhere(pixels, generator)]
    return _uint8(cv2.add(cv2.LUT(pixels, duller), streaks))


def _lens_dirt(pixels: Pixels, step: int, _: np.random.Generator) -> Pixels:
    """Splashes on the glass: out of focus, and in the same place on every picture."""
    return _uint8(cv2.blendLinear(pixels, *_dirt_before(*pixels.shape[:2], DIRT_COVER[step])))


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
def _grain(height_px: int, width_px: int, sigma: float) -> tuple[Pixels, Pixels]:
    """What is to be added, and what is to be taken away: each value has one of the two."""
    shape = (height_px + ROOM_PX, width_px + ROOM_PX, 3)
    grain = np.round(np.random.default_rng(0).standard_normal(shape, np.float32) * sigma)
    return _uint8(np.clip(grain, 0, 255)), _uint8(np.clip(-grain, 0, 255))


@lru_cache(maxsize=len(SEVERITIES))
def _fog_before(height_px: int, width_px: int, visibility_m: float) -> Layer:
    """Fog in denser and thinner patches: what is seen at a pixel keeps a share of its own light."""
    below_horizon = np.maximum(np.arange(height_px) / height_px - 0.5, 1e-6)
    distance_m = np.minimum(FAR_M, 2.25 / below_horizon)  # a camera 1.5 m up, 1.5 picture heights of focal length
    patches = cv2.resize(np.random.default_rng(1).uniform(0.7, 1.3, (4, 7)).astype(np.float32), (width_px, height_px))
    depth = 3.912 / visibility_m * distance_m[:, None] * patches  # 2 % of the contrast is left at the visibility
    clear = np.asarray(np.exp(-depth), np.float32)
    return np.full((height_px, width_px, 3), FOG_GREY, np.uint8), clear, 1 - clear


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
    return _uint8(cv2.GaussianBlur(layer, (0, 0), max(0.4, 0.7 * scale)) * STREAK_LIGHT)


@lru_cache(maxsize=len(SEVERITIES))
def _dirt_before(height_px: int, width_px: int, cover: float) -> Layer:
    """Splashes: where the lens is clean the picture stands, under a splash next to nothing of it."""
    generator = np.random.default_rng(3)
    dirt = np.zeros((height_px, width_px), np.float32)
    while dirt.mean() < cover:
        centre = _point(generator.uniform((0, 0), (width_px, height_px)))
        cv2.circle(dirt, centre, max(2, round(generator.uniform(0.01, 0.06) * height_px)), 1.0, cv2.FILLED)
    hidden = 0.95 * np.asarray(cv2.GaussianBlur(dirt, (0, 0), max(1.0, height_px / 110)), np.float32)
    splash = np.broadcast_to(np.array(DIRT_BGR, np.uint8), (height_px, width_px, 3))
    return np.ascontiguousarray(splash), 1 - hidden, hidden


def _somewhere(pixels: Pixels, generator: np.random.Generator) -> tuple[slice, slice]:
    """A part of a larger layer, as large as the picture."""
    top, left = generator.integers(0, ROOM_PX, 2)
    return slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])


def _point(xy: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))


def _uint8(pixels: object) -> Pixels:
    return np.asarray(pixels, np.uint8)
