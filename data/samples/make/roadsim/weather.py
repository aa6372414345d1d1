"""What lens, sensor and rain do to a finished exposure."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Floats, Picture
from .light import Air

GRAIN_SIZE = 1024


@lru_cache(maxsize=1)
def _grain_table() -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((GRAIN_SIZE + 720, GRAIN_SIZE + 1280, 3)).astype(np.float32)


@lru_cache(maxsize=4)
def _vignette(height: int, width: int) -> Picture:
    y, x = np.mgrid[0:height, 0:width]
    radius = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / (width**2 / 4 + height**2 / 4)
    gain = np.clip(255 * (1 - 0.17 * radius**1.3), 0, 255).astype(np.uint8)
    return np.asarray(cv2.merge([gain] * 3), np.uint8)


def through_lens(picture: Picture, air: Air, rng: np.random.Generator, *, drops: Floats | None) -> Picture:
    """Rain streaks, bloom, drops on the glass, blur, vignette, sensor noise: in the order in which light meets them."""
    if air.rain > 0.02:
        picture = _streaks(picture, air, rng)
    picture = _bloom(picture, air)
    if drops is not None and air.rain > 0.02:
        picture = _drops(picture, drops[: int(len(drops) * min(1.0, air.rain * 1.2))])
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.55), np.uint8)
    picture = np.asarray(cv2.multiply(picture, _vignette(*picture.shape[:2]), scale=1 / 255), np.uint8)
    return _sensor_noise(picture, rng, gain=air.gain_noise)


def _streaks(picture: Picture, air: Air, rng: np.random.Generator) -> Picture:
    """Falling drops, drawn as short slanted lines of three depths."""
    height, width = picture.shape[:2]
    veil = np.zeros((height, width), np.uint8)
    for length, count, tone, thick in ((16, 420, 34, 1), (34, 150, 42, 1), (70, 30, 34, 2)):
        count = int(count * air.rain * width * height / (1280 * 720))
        x, y = rng.uniform(-40, width, count), rng.uniform(-80, height, count)
        slant = rng.normal(0.10, 0.03, count)
        reach = length * rng.uniform(0.7, 1.3, count)
        for a, b, s, r in zip(x, y, slant, reach, strict=True):
            cv2.line(veil, (int(a), int(b)), (int(a + s * r), int(b + r)), int(tone), thick, cv2.LINE_AA)
    veil = cv2.GaussianBlur(veil, (0, 0), 0.8)
    return np.asarray(cv2.add(picture, cv2.merge([veil] * 3)), np.uint8)


def _bloom(picture: Picture, air: Air) -> Picture:
    """Light that spreads around what is very bright; more when lamps are on."""
    strength = 0.10 + 0.55 * air.lamps
    small = cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    bright = cv2.subtract(small, (205, 205, 205, 0))
    spread = cv2.addWeighted(cv2.GaussianBlur(bright, (0, 0), 3), 1.2, cv2.GaussianBlur(bright, (0, 0), 11), 1.0, 0)
    grown = cv2.resize(spread, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.addWeighted(picture, 1.0, grown, strength, 0), np.uint8)


def _drops(picture: Picture, drops: Floats) -> Picture:
    """Water on the glass: each drop shows a small, upside-down, blurred world. Rows of (x, y, radius) px."""
    height, width = picture.shape[:2]
    out: Picture = picture.copy()
    for x, y, radius in drops:
        r = int(radius)
        x1, y1, x2, y2 = int(x) - r, int(y) - r, int(x) + r, int(y) + r
        if x1 < 0 or y1 < 0 or x2 >= width or y2 >= height or r < 2:
            continue
        reach = 7 * r
        source = picture[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach]
        inside = cv2.resize(source, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)[::-1, ::-1].astype(np.float32)
        v, u = np.mgrid[-1 : 1 : complex(0, y2 - y1), -1 : 1 : complex(0, x2 - x1)]
        round_off = np.hypot(u, v * 0.92)
        alpha = np.clip((1 - round_off) * 3.0, 0, 0.88)[..., None]
        rim = (
            1.08
            - 0.38 * np.clip(round_off, 0, 1)[..., None] ** 3
            + 0.12 * (v < -0.3)[..., None] * (round_off < 0.8)[..., None]
        )
        region = out[y1:y2, x1:x2]
        region[:] = np.clip(region * (1 - alpha) + inside * rim * alpha, 0, 255).astype(np.uint8)
    return out


def drops_on_glass(seed: int, t_s: float, *, width: int, count: int = 46) -> Floats:
    """Where drops sit at an instant, (count, 3): x, y, radius in px of a picture that wide; big ones creep down."""
    rng = np.random.default_rng([seed, 5])
    radius = rng.gamma(2.2, 1.7, count) + 2.0
    x, y = rng.uniform(0, 1280, count), rng.uniform(0, 720, count)
    creep = np.where(radius > 7, rng.uniform(10, 45, count), 0)
    y = np.mod(y + creep * t_s, 760)
    return np.column_stack([x + 2.0 * np.sin(y / 23.0) * (creep > 0), y, radius]) * (width / 1280)


def _sensor_noise(picture: Picture, rng: np.random.Generator, *, gain: float) -> Picture:
    """Poisson-Gaussian noise: variance grows with the signal; the table is read at a random place."""
    height, width = picture.shape[:2]
    row, column = rng.integers(0, GRAIN_SIZE, 2)
    grain = _grain_table()[row : row + height, column : column + width]
    level = np.arange(256, dtype=np.float32)
    deviation = gain * np.sqrt(1.2 + 0.022 * level) * (1.15 - 0.0022 * level)
    spread = cv2.LUT(picture, deviation.astype(np.float32))
    noisy = cv2.add(cv2.multiply(spread, np.ascontiguousarray(grain)), picture, dtype=cv2.CV_32F)
    return np.asarray(cv2.convertScaleAbs(cv2.max(noisy, 0.0)), np.uint8)
