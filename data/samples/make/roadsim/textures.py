"""Procedural pictures: noise, house fronts, trees."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Floats, Picture

FACADE_PX_PER_M = 36
WALLS = [
    (186, 170, 150), (168, 108, 84), (206, 196, 178), (146, 140, 134), (196, 164, 120), (122, 92, 78), (214, 208, 198),
    (176, 148, 140), (152, 160, 160), (200, 180, 140),
]  # fmt: skip
AWNINGS = [(150, 40, 40), (36, 82, 60), (40, 60, 110), (190, 150, 60), (70, 70, 74)]


def noise(rng: np.random.Generator, size: int, *, octaves: int, falloff: float = 0.55) -> Floats:
    """(size, size) float32 smooth noise that tiles, zero mean, unit deviation; one octave halves the grain."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = max(2, size >> (octaves - 1 - octave))
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        padded = np.pad(coarse, 2, mode="wrap")
        scale = size / cells
        grown = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        margin = round(2 * scale)
        total += grown[margin : margin + size, margin : margin + size] * falloff**octave
    total -= total.mean()
    return np.asarray(total / total.std(), np.float64)


def _bgr(rgb: tuple[int, int, int], gain: float = 1.0) -> tuple[float, float, float]:
    return rgb[2] * gain, rgb[1] * gain, rgb[0] * gain


def facade(rng: np.random.Generator, width_m: float, height_m: float) -> tuple[Picture, Picture]:
    """A house front and what glows in it at night, both (H, W, 3) uint8."""
    scale = FACADE_PX_PER_M
    width, height = int(width_m * scale), int(height_m * scale)
    wall = WALLS[rng.integers(len(WALLS))]
    front = np.empty((height, width, 3), np.uint8)
    front[:] = _bgr(wall, rng.uniform(0.82, 1.05))
    glow = np.zeros_like(front)
    grain = cv2.resize(noise(rng, 256, octaves=6).astype(np.float32), (width, height))
    front = np.clip(front * (1 + 0.035 * grain[..., None]), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        for y in range(0, height, max(3, scale // 8)):
            front[y : y + 1] = (front[y : y + 1] * 0.9).astype(np.uint8)
    ground_m = 3.6 if rng.random() < 0.6 else 3.0
    storey_m = rng.uniform(2.9, 3.3)
    bay_m = rng.uniform(2.2, 3.4)
    window = (rng.uniform(1.0, bay_m - 0.9), rng.uniform(1.4, 1.9))
    storeys = int((height_m - ground_m - 0.5) / storey_m)
    bays = max(1, int(width_m / bay_m))
    balconies = rng.random() < 0.3
    for storey in range(storeys):
        top = height - int((ground_m + (storey + 1) * storey_m - 0.45) * scale)
        for bay in range(bays):
            x = int((bay + 0.5) * width / bays - window[0] * scale / 2)
            _window(rng, front, glow, (x, top, int(window[0] * scale), int(window[1] * scale)))
            if balconies and bay % 2 == 0:
                _balcony(front, (x, top, int(window[0] * scale), int(window[1] * scale)))
        ledge = height - int((ground_m + storey * storey_m) * scale)
        cv2.rectangle(front, (0, ledge - 4), (width, ledge), _bgr(wall, 1.12), -1)
        cv2.rectangle(front, (0, ledge + 1), (width, ledge + 4), _bgr(wall, 0.7), -1)
    cv2.rectangle(front, (0, 0), (width, scale // 3), _bgr(wall, 0.78), -1)
    cv2.rectangle(front, (0, scale // 3), (width, scale // 3 + 4), _bgr(wall, 0.5), -1)
    _ground_floor(rng, front, glow, ground_m=ground_m)
    weather = np.linspace(1.04, 0.90, height)[:, None, None]
    return np.clip(front * weather, 0, 255).astype(np.uint8), glow


def _window(rng: np.random.Generator, front: Picture, glow: Picture, place: tuple[int, int, int, int]) -> None:
    """One window: frame, panes that mirror the sky above, a curtain, perhaps light inside."""
    x, y, width, height = place
    cv2.rectangle(front, (x - 4, y - 4), (x + width + 4, y + height + 4), (196, 200, 204), -1)
    panes = np.linspace(150, 62, height)[:, None, None] * np.array([1.0, 0.92, 0.84])
    region = front[max(y, 0) : y + height, max(x, 0) : x + width]
    if region.size == 0:
        return
    region[:] = np.clip(panes[-region.shape[0] :] * rng.uniform(0.6, 1.05), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        side = int(width * rng.uniform(0.15, 0.35))
        cv2.rectangle(front, (x, y), (x + side, y + height), (176, 182, 186), -1)
        cv2.rectangle(front, (x + width - side, y), (x + width, y + height), (168, 174, 178), -1)
    if rng.random() < 0.45:
        tone = np.array([(96, 176, 236), (120, 196, 244), (150, 190, 220)][rng.integers(3)]) * rng.uniform(0.5, 1.0)
        fade = np.linspace(1.0, 0.7, region.shape[0])[:, None, None]
        glow[max(y, 0) : y + height, max(x, 0) : x + width] = (tone * fade).astype(np.uint8)
    cv2.rectangle(front, (x, y), (x + width, y + height), (214, 218, 220), 2)
    cv2.line(front, (x + width // 2, y), (x + width // 2, y + height), (214, 218, 220), 3)
    cv2.line(glow, (x + width // 2, y), (x + width // 2, y + height), (10, 14, 18), 3)
    cv2.rectangle(front, (x - 6, y + height + 3), (x + width + 6, y + height + 8), (150, 156, 160), -1)


def _balcony(front: Picture, place: tuple[int, int, int, int]) -> None:
    x, y, width, height = place
    low, high = y + int(height * 0.55), y + height + 8
    for bar in range(x - 10, x + width + 11, 6):
        cv2.line(front, (bar, low), (bar, high), (44, 44, 46), 1)
    cv2.rectangle(front, (x - 10, low), (x + width + 10, low + 3), (40, 40, 42), -1)
    cv2.rectangle(front, (x - 12, high), (x + width + 12, high + 6), (128, 132, 136), -1)


def _ground_floor(rng: np.random.Generator, front: Picture, glow: Picture, *, ground_m: float) -> None:
    """Shop windows with awnings and signs, or plain windows and a door."""
    scale = FACADE_PX_PER_M
    height, width = front.shape[:2]
    top = height - int((ground_m - 0.55) * scale)
    shops = rng.random() < 0.6
    cv2.rectangle(front, (0, height - int(0.5 * scale)), (width, height), (92, 96, 100), -1)
    x = int(0.5 * scale)
    while x < width - 2 * scale:
        span = int(rng.uniform(2.2, 4.2) * scale) if shops else int(1.3 * scale)
        span = min(span, width - x - scale // 2)
        foot = height - int((0.5 if shops else 1.0) * scale)
        _window(rng, front, glow, (x, top, span, foot - top))
        if shops:
            awning = AWNINGS[rng.integers(len(AWNINGS))]
            cv2.rectangle(front, (x - 8, top - scale // 2), (x + span + 8, top + scale // 6), _bgr(awning), -1)
            cv2.rectangle(front, (x - 8, top + scale // 6), (x + span + 8, top + scale // 6 + 5), _bgr(awning, 0.6), -1)
            for letter in range(x + span // 4, x + 3 * span // 4, 12):
                cv2.rectangle(front, (letter, top - scale // 3), (letter + 7, top - scale // 12), (226, 230, 232), -1)
                cv2.rectangle(glow, (letter, top - scale // 3), (letter + 7, top - scale // 12), (150, 190, 220), -1)
        x += span + int(rng.uniform(0.5, 1.2) * scale)
        if rng.random() < 0.35:
            cv2.rectangle(front, (x, height - int(2.3 * scale)), (x + int(0.95 * scale), height), (48, 54, 70), -1)
            x += int(1.4 * scale)


def tree(rng: np.random.Generator, *, autumn: float) -> Picture:
    """A broad-leaved tree, (384, 288, 4) uint8 BGR and alpha, its foot at the bottom's middle."""
    height, width = 384, 288
    sprite = np.zeros((height, width, 4), np.uint8)
    trunk = np.array([[136, 384], [152, 384], [149, 220], [139, 220]])
    cv2.fillConvexPoly(sprite, trunk.astype(np.int32), (44, 58, 72, 255), cv2.LINE_AA)
    for _ in range(7):
        end = (int(rng.integers(70, 218)), int(rng.integers(110, 190)))
        cv2.line(
            sprite, (144, int(rng.integers(215, 260))), end, (42, 54, 66, 255), int(rng.integers(3, 7)), cv2.LINE_AA
        )
    green = np.array([38, 96, 74]) * (1 - autumn) + np.array([30, 96, 150]) * autumn
    blobs = int(rng.integers(12, 18))
    centres = np.column_stack([144 + rng.normal(0, 46, blobs), 120 + rng.normal(0, 40, blobs)])
    spread = rng.uniform(22, 54, blobs)
    leaves = 6500
    which = rng.integers(0, blobs, leaves)
    offset = rng.standard_normal((leaves, 2))
    offset /= np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-6)
    offset *= (
        (np.sqrt(rng.random((leaves, 1))) + rng.normal(0, 0.07, (leaves, 1))) * spread[which][:, None] * (1.0, 0.85)
    )
    where = centres[which] + offset
    sunlit = (
        0.62
        - 0.55 * offset[:, 1] / spread[which]
        - 0.3 * (where[:, 1] - 120) / 120
        - 0.18 * offset[:, 0] / spread[which]
    )
    for index in np.argsort(sunlit + rng.normal(0, 0.22, leaves)):
        shade = np.clip(0.45 + 0.62 * sunlit[index], 0.28, 1.5) * rng.uniform(0.85, 1.15)
        tone = np.clip(green * shade + rng.normal(0, 4, 3), 0, 255)
        size = (int(rng.integers(2, 6)), int(rng.integers(1, 4)))
        x, y = where[index]
        if not (6 < x < width - 6 and 6 < y < height - 60):
            continue
        cv2.ellipse(
            sprite, (int(x), int(y)), size, float(rng.uniform(0, 180)), 0, 360, (*tone.tolist(), 255), -1, cv2.LINE_AA
        )
    return sprite
