"""The ground seen from above as one texture, and that texture seen from a camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Floats, Picture, View
from .light import GAMMA, Air, display, linear
from .street import LANE_M, Street
from .textures import noise

PX_PER_M = 25.0
LIGHT_PX_PER_M = 4.0
HALF_WIDTH_M = 30.0
LEVELS = 6
GRAIN_PX_PER_M = 110.0
LIGHT_UNIT = 150.0


@dataclass(frozen=True, slots=True)
class Ground:
    """Albedo at falling resolutions (display values), where water stands, sun and lamp light from above."""

    levels: tuple[Picture, ...]
    grain: Floats
    puddles: Picture
    sunlit: Floats
    lamplight: Floats
    origin_m: tuple[float, float]

    def from_world(self, px_per_m: float) -> Floats:
        """3x3 matrix: world (x, y, 1) to texture pixels (column along x, row against y)."""
        x, y = self.origin_m
        return np.array([[px_per_m, 0, -x * px_per_m - 0.5], [0, -px_per_m, y * px_per_m - 0.5], [0, 0, 1.0]])


def _band(
    texture: Picture,
    street: Street,
    edges_m: tuple[float, float],
    colour: tuple[int, int, int],
    *,
    span: tuple[float, float] | None = None,
) -> None:
    """Fill between two offsets of the course."""
    low, high = span or (street.from_m, street.to_m + 60)
    step = 2.0 if high - low > 6 else (high - low) / 3
    left, right = (street.course.line(e, low, high, step_m=step) for e in edges_m)
    points = np.concatenate([left, right[::-1]])
    pixels = np.column_stack([(points[:, 0] - street.from_m) * PX_PER_M, (HALF_WIDTH_M - points[:, 1]) * PX_PER_M])
    cv2.fillPoly(texture, [np.rint(pixels * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def paint_ground(street: Street) -> Ground:
    """Asphalt, markings, kerbs, pavements and grass of a street."""
    rng = np.random.default_rng([street.seed, 2])
    columns = int((street.to_m + 60 - street.from_m) * PX_PER_M)
    rows = int(2 * HALF_WIDTH_M * PX_PER_M)
    texture = np.empty((rows, columns, 3), np.uint8)
    texture[:] = (62, 96, 88)
    section = street.section
    asphalt = int(rng.integers(88, 122))
    for side in (1, -1):
        kerb = side * section.kerb_m(side)
        back = kerb + side * section.pavement_m
        stone = int(rng.integers(138, 168))
        _band(texture, street, (kerb, back), (stone - 6, stone - 2, stone))
        _band(
            texture,
            street,
            (back, side * (section.front_m(side) + 1.0)),
            (stone - 26, stone - 20, stone - 18) if section.verge_m < 2.5 else (58, 100, 84),
        )
    _band(texture, street, (section.kerb_m(1), -section.kerb_m(-1)), (asphalt + 2, asphalt, asphalt - 1))
    _patches(rng, texture, street, asphalt)
    _speckle(rng, texture)
    _slabs(texture, street)
    _markings(rng, texture, street)
    levels = [texture]
    while len(levels) < LEVELS:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    sunlit, lamplight = _light_maps(rng, street, (columns, rows))
    grain = noise(rng, 512, octaves=7, falloff=0.85) * 0.055
    return Ground(
        tuple(levels), grain, _puddles(rng, (columns, rows)), sunlit, lamplight, (street.from_m, HALF_WIDTH_M)
    )


def _patches(rng: np.random.Generator, texture: Picture, street: Street, asphalt: int) -> None:
    """Wheel tracks, repairs, tar seams, manholes."""
    section = street.section
    for index in range(section.lanes):
        for oncoming in (False, True):
            middle = section.lane_m(index, oncoming=oncoming)
            for track in (-0.75, 0.75):
                tone = asphalt - 7
                _band(texture, street, (middle + track - 0.28, middle + track + 0.28), (tone + 2, tone, tone - 1))
    for _ in range(26):
        s, left = rng.uniform(street.from_m, street.to_m + 50), rng.uniform(-section.kerb_m(-1), section.kerb_m(1) - 2)
        tone = asphalt + int(rng.integers(-26, 10))
        _band(
            texture,
            street,
            (left, left + rng.uniform(0.6, 2.0)),
            (tone + 1, tone, tone),
            span=(s, s + rng.uniform(1.0, 9.0)),
        )
    for _ in range(40):
        x = rng.uniform(street.from_m, street.to_m + 50)
        steps = (
            np.cumsum(rng.normal(0, 0.35, (12, 2)) + np.array([0.3, 0]), axis=0)
            + street.course.at(x, rng.uniform(-section.kerb_m(-1), section.kerb_m(1)))[:2]
        )
        pixels = np.column_stack([(steps[:, 0] - street.from_m) * PX_PER_M, (HALF_WIDTH_M - steps[:, 1]) * PX_PER_M])
        cv2.polylines(texture, [pixels.astype(np.int32)], False, (asphalt - 34,) * 3, 1, cv2.LINE_AA)
    for _ in range(12):
        x, y, _h = street.course.at(
            rng.uniform(street.from_m, street.to_m), rng.uniform(-section.lanes_edge_m, section.lanes_edge_m)
        )
        centre = (int((x - street.from_m) * PX_PER_M), int((HALF_WIDTH_M - y) * PX_PER_M))
        cv2.circle(texture, centre, 9, (asphalt - 40,) * 3, -1, cv2.LINE_AA)
        cv2.circle(texture, centre, 7, (asphalt - 22,) * 3, -1, cv2.LINE_AA)


def _speckle(rng: np.random.Generator, texture: Picture) -> None:
    """Grain and stains over everything, from one tile."""
    tile = 1 + 0.030 * noise(rng, 512, octaves=4, falloff=0.9) + 0.045 * noise(rng, 512, octaves=8, falloff=0.5)
    gain = np.clip(tile * 128, 0, 255).astype(np.uint8)
    repeats = (-(-texture.shape[0] // 512), -(-texture.shape[1] // 512))
    gain = np.tile(gain, repeats)[: texture.shape[0], : texture.shape[1]]
    cv2.multiply(texture, cv2.merge([gain] * 3), dst=texture, scale=1 / 128)


def _slabs(texture: Picture, street: Street) -> None:
    """Kerb stones and the joints of the pavement's slabs."""
    section = street.section
    for side in (1, -1):
        kerb = section.kerb_m(side)
        for row in np.arange(kerb + 0.8, kerb + section.pavement_m, 0.8):
            _band(texture, street, (side * row, side * (row + 0.03)), (112, 116, 118))
        for s in np.arange(street.from_m, street.to_m + 60, 1.2):
            _band(
                texture, street, (side * kerb, side * (kerb + section.pavement_m)), (114, 118, 120), span=(s, s + 0.03)
            )
        _band(texture, street, (side * kerb, side * (kerb + 0.2)), (172, 176, 178))
        _band(texture, street, (side * (kerb - 0.3), side * kerb), (84, 86, 86))


def _markings(rng: np.random.Generator, texture: Picture, street: Street) -> None:
    """Middle line, lane lines, edge lines, zebra crossings with their stop lines."""
    section = street.section
    paint = int(rng.integers(205, 232))
    white = (paint - 4, paint, paint)
    end = street.to_m + 58

    def dashed(left_m: float, on_m: float, off_m: float) -> None:
        for s in np.arange(street.from_m + 1, end, on_m + off_m):
            if all(abs(s + on_m / 2 - c) > 6 for c in street.crossings_m):
                _band(texture, street, (left_m - 0.07, left_m + 0.07), white, span=(s, s + on_m))

    if section.lanes == 2:
        for left in (-0.14, 0.14):
            _band(texture, street, (left - 0.06, left + 0.06), white)
        dashed(-LANE_M, 3.0, 5.0)
        dashed(LANE_M, 3.0, 5.0)
    else:
        dashed(0.0, 4.0, 4.0)
    for side in (1, -1):
        _band(texture, street, (side * (section.lanes_edge_m - 0.06), side * (section.lanes_edge_m + 0.06)), white)
    asphalt = tuple(
        int(v)
        for v in np.median(
            texture[texture.shape[0] // 2 - 20 : texture.shape[0] // 2 + 20, ::50].reshape(-1, 3), axis=0
        )
    )
    for middle in street.crossings_m:
        _band(
            texture,
            street,
            (section.kerb_m(1) - 0.35, -section.kerb_m(-1) + 0.35),
            (100, 100, 100) if asphalt[0] > 140 else (asphalt[0], asphalt[1], asphalt[2]),
            span=(middle - 2.2, middle + 2.2),
        )
        for left in np.arange(-section.kerb_m(-1) + 0.6, section.kerb_m(1) - 0.8, 1.0):
            _band(texture, street, (left, left + 0.5), white, span=(middle - 2.0, middle + 2.0))
        _band(texture, street, (-section.lanes_edge_m, -0.2), white, span=(middle - 4.0, middle - 3.6))
        _band(texture, street, (section.lanes_edge_m, 0.2), white, span=(middle + 3.6, middle + 4.0))


def _puddles(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """How much water stands, 0..255, at LIGHT_PX_PER_M."""
    tile = noise(rng, 512, octaves=6, falloff=0.6)
    wet = np.clip(0.66 + 0.34 * tile, 0.22, 1.0)
    columns, rows = (int(v * LIGHT_PX_PER_M / PX_PER_M) for v in size)
    return np.asarray(np.tile(wet, (1 + rows // 512, 1 + columns // 512))[:rows, :columns] * 255, np.uint8)


def _light_maps(rng: np.random.Generator, street: Street, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Soft shade below trees (1 = open), and the pools of the street lamps, at LIGHT_PX_PER_M."""
    columns, rows = (int(v * LIGHT_PX_PER_M / PX_PER_M) for v in size)
    open_sky = np.ones((rows, columns), np.float32)
    lamps = np.zeros((rows, columns), np.float32)

    def pixel(x: float, y: float) -> tuple[int, int]:
        return int((x - street.from_m) * LIGHT_PX_PER_M), int((HALF_WIDTH_M - y) * LIGHT_PX_PER_M)

    for plant in street.plants:
        for _ in range(9):
            reach = plant.height_m * 0.22
            spot = plant.foot[:2] + rng.normal(0, reach, 2) + (0.4, 0.5)
            cv2.circle(
                open_sky, pixel(*spot), int(rng.uniform(0.3, 0.55) * reach * LIGHT_PX_PER_M) + 1, 0.35, -1, cv2.LINE_AA
            )
    open_sky = cv2.GaussianBlur(open_sky, (0, 0), 0.9)
    v, u = np.mgrid[-60:61, -60:61] / LIGHT_PX_PER_M
    pool = (1 / (1 + (u / 6.5) ** 2 + (v / 5.0) ** 2) ** 1.8).astype(np.float32)
    for x, y, side in street.lamp_posts:
        column, row = pixel(x, y - side * 1.6)
        top, left = row - 60, column - 60
        r0, r1, c0, c1 = max(top, 0), min(top + 121, rows), max(left, 0), min(left + 121, columns)
        if r1 > r0 and c1 > c0:
            lamps[r0:r1, c0:c1] += pool[r0 - top : r1 - top, c0 - left : c1 - left]
    return np.asarray(open_sky, np.float64), np.asarray(lamps, np.float64)


def beams(ground: Ground, cones: list[tuple[float, float, float]]) -> Floats:
    """Headlight light on the ground (same grid as the light maps) for vehicles at (x, y, heading)."""
    total = np.zeros(ground.lamplight.shape, np.float32)
    rows, columns = ground.lamplight.shape
    reach = int(34 * LIGHT_PX_PER_M)
    for x, y, heading in cones:
        column, row = (x - ground.origin_m[0]) * LIGHT_PX_PER_M, (ground.origin_m[1] - y) * LIGHT_PX_PER_M
        r0, r1 = max(int(row) - reach, 0), min(int(row) + reach, rows)
        c0, c1 = max(int(column) - reach, 0), min(int(column) + reach, columns)
        if r1 <= r0 or c1 <= c0:
            continue
        v, u = np.mgrid[r0:r1, c0:c1].astype(np.float32)
        dx, dy = (u - column) / LIGHT_PX_PER_M, -(v - row) / LIGHT_PX_PER_M
        ahead = dx * np.cos(heading) + dy * np.sin(heading)
        across = -dx * np.sin(heading) + dy * np.cos(heading)
        wide = 1.1 + 0.20 * np.maximum(ahead, 0)
        total[r0:r1, c0:c1] += np.where(
            ahead > 0.3, np.exp(-((across / wide) ** 2)) * 9 / (9 + (ahead - 4) ** 2 * 0.12), 0
        )
    return np.asarray(total, np.float64)


def lit_map(ground: Ground, air: Air, beam: Floats | None) -> Picture:
    """Light on the ground from above as (R, C, 3) uint8 display gain; LIGHT_UNIT is a gain of 1."""
    facing = max(float(air.sun_direction[2]), 0.0)
    radiance = air.sky_light + ground.sunlit[..., None] * (air.sun * facing)
    if air.lamps > 0.02:
        radiance = radiance + ground.lamplight[..., None] * (air.lamps * 0.42 * linear(255, 206, 148))
        if beam is not None:
            radiance = radiance + beam[..., None] * (air.lamps * 0.62 * linear(255, 240, 214))
    return np.clip(LIGHT_UNIT * radiance ** (1 / GAMMA), 0, 255).astype(np.uint8)


def paint(ground: Ground, view: View, air: Air, lit: Picture, *, out: Picture) -> Picture:
    """Paint the ground into `out` below the horizon; returns how wet each pixel shines, (H, W) uint8."""
    height, width = out.shape[:2]
    first = int(np.clip(np.ceil(view.horizon_px + 1), 0, height - 1))
    world_from_rows: Floats = np.asarray(
        np.linalg.inv(view.plane_homography(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))),
        np.float64,
    )
    depth = view.position[2] * view.lens.focal_px / np.maximum(np.arange(height) - view.horizon_px, 0.5)
    footprint = depth / view.lens.focal_px * np.sqrt(depth / view.position[2])
    wanted = np.clip(np.floor(np.log2(np.maximum(footprint * PX_PER_M, 1e-6)) + 0.5), 0, LEVELS - 1).astype(int)
    for level in range(LEVELS):
        rows = np.flatnonzero(wanted[first:] == level) + first
        if len(rows):
            band = _seen(ground.levels[level], ground.from_world(PX_PER_M / 2**level) @ world_from_rows, rows, width)
            out[rows[0] : rows[-1] + 1] = band
    rows = np.arange(first, height)
    light = _seen(lit, ground.from_world(LIGHT_PX_PER_M) @ world_from_rows, rows, width)
    cv2.multiply(out[first:], light, dst=out[first:], scale=1 / LIGHT_UNIT)
    _grain(ground, world_from_rows, depth, out)
    wet = np.zeros((height, width), np.uint8)
    if air.wet > 0.02:
        wet[first:] = _seen(ground.puddles, ground.from_world(LIGHT_PX_PER_M) @ world_from_rows, rows, width)
    haze = display(air.horizon)
    fog = air.fog(depth[first:])[:, None, None]
    far = int(np.searchsorted(-fog[:, 0, 0], -0.004))
    out[first : first + far] = np.clip(out[first : first + far] * (1 - fog[:far]) + haze * fog[:far], 0, 255).astype(
        np.uint8
    )
    return wet


def _seen(texture: Picture, texture_from_pixels: Floats, rows: NDArray[np.int64], width: int) -> Picture:
    """Rows of the picture looked up in a texture."""
    start = np.array([[1, 0, 0], [0, 1, rows[0]], [0, 0, 1.0]])
    size = (width, int(rows[-1] - rows[0] + 1))
    seen = cv2.warpPerspective(
        texture,
        texture_from_pixels @ start,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(seen, np.uint8)


def _grain(ground: Ground, world_from_pixels: Floats, depth: Floats, out: Picture) -> None:
    """Fine asphalt grain close to the camera, fading out with distance."""
    near = np.flatnonzero(depth < 22)
    if not len(near):
        return
    rows = slice(near[0], near[-1] + 1)
    tile_from_pixels = (
        np.diag([GRAIN_PX_PER_M, GRAIN_PX_PER_M, 1.0])
        @ world_from_pixels
        @ np.array([[1, 0, 0], [0, 1, near[0]], [0, 0, 1.0]])
    )
    size = (out.shape[1], len(near))
    xs, ys = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
    m = tile_from_pixels.astype(np.float32)
    scale = 1 / (m[2, 0] * xs + m[2, 1] * ys + m[2, 2])
    u = np.mod((m[0, 0] * xs + m[0, 1] * ys + m[0, 2]) * scale, 512)
    v = np.mod((m[1, 0] * xs + m[1, 1] * ys + m[1, 2]) * scale, 512)
    seen = cv2.remap(ground.grain.astype(np.float32), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    fade = np.clip((22 - depth[near]) / 14, 0, 1).astype(np.float32)[:, None]
    gain = np.clip(128 * (1 + seen * fade), 0, 255).astype(np.uint8)
    cv2.multiply(out[rows], cv2.merge([gain] * 3), dst=out[rows], scale=1 / 128)
