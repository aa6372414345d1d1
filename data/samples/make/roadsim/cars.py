"""Cars and vans as lofted meshes; x forward, origin on the ground below the middle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .camera import Floats
from .fittings import DARK, GLASS, HEAD_GLOW, PAINTS, TAIL_GLOW, plate, wheels_of
from .light import Surface, linear
from .mesh import Mesh, box, grid_quads, joined, plain


@dataclass(frozen=True, slots=True)
class Shape:
    """A car's side view.

    `cabin` are x positions as shares of the half length: windscreen foot, roof front, roof rear, rear window foot.
    """

    length_m: float
    width_m: float
    height_m: float
    bonnet_m: float
    belt_m: float
    boot_m: float
    cabin: tuple[float, float, float, float]
    wheel_m: float


SHAPES = {
    "sedan": Shape(4.65, 1.82, 1.45, 0.86, 0.94, 1.02, (0.42, 0.12, -0.38, -0.72), 0.325),
    "hatch": Shape(4.05, 1.76, 1.48, 0.90, 0.96, 0.98, (0.50, 0.18, -0.66, -0.93), 0.31),
    "estate": Shape(4.75, 1.83, 1.47, 0.87, 0.95, 0.98, (0.44, 0.14, -0.76, -0.95), 0.325),
    "suv": Shape(4.60, 1.90, 1.70, 1.05, 1.10, 1.12, (0.46, 0.20, -0.72, -0.93), 0.365),
    "mini": Shape(3.60, 1.64, 1.50, 0.92, 0.96, 0.98, (0.60, 0.26, -0.74, -0.94), 0.29),
    "van": Shape(5.20, 1.98, 2.10, 1.12, 1.20, 1.22, (0.74, 0.42, -0.95, -0.985), 0.345),
}

LEVELS = np.array([0.0, 0.10, 0.26, 0.44, 0.60, 0.74, 0.88, 1.0])
BULGE = np.array([0.90, 0.965, 0.99, 1.0, 1.0, 0.99, 0.97, 0.945])
END_SCALES = np.array([1.0, 0.86, 0.66, 0.42, 0.0])


def _stations(shape: Shape, *, fine: bool) -> tuple[Floats, Floats]:
    """Places of every cross-section from nose to tail, and its width scale (the two ends close to zero width)."""
    foot, front, rear, back = np.array(shape.cabin) * shape.length_m / 2
    half = shape.length_m / 2
    steps = (5, 5, 8, 4, 3) if fine else (2, 2, 3, 2, 2)
    knots = [half - 0.06, foot, front, rear, back, -half + 0.06]
    body = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(knots, knots[1:], steps, strict=False)]
    xs = np.concatenate([*body, [-half + 0.06]])
    scales = 1 - 0.10 * np.clip((np.abs(xs) - 0.62 * half) / (0.38 * half), 0, 1) ** 2.2
    ends = END_SCALES if fine else END_SCALES[[0, 2, 4]]
    bulge = 0.06 * np.sqrt(1 - ends**2)
    nose, tail = half - 0.055 + bulge, -half + 0.055 - bulge
    return (
        np.concatenate([nose[::-1], xs, tail]),
        np.concatenate([ends[::-1] * 0.90, scales, ends * 0.90]),
    )


def _profile(shape: Shape, xs: Floats) -> tuple[Floats, Floats, Floats]:
    """Heights of sill, belt line and roof line at each x."""
    foot, front, rear, back = np.array(shape.cabin) * shape.length_m / 2
    half = shape.length_m / 2
    belt = np.interp(
        xs,
        [-half, back, rear, foot, half - 0.5, half],
        [shape.boot_m - 0.05, shape.boot_m, shape.belt_m + 0.03, shape.belt_m, shape.bonnet_m, shape.bonnet_m - 0.14],
    )
    middle = (front + rear) / 2
    roof_knots = [shape.height_m - 0.05, shape.height_m, shape.height_m - 0.04]
    roof = np.interp(xs, [back, rear, middle, front, foot], [0, *roof_knots, 0], left=0, right=0)
    roof = np.maximum(roof, belt + 0.025)
    slope_front = (xs > front) & (xs < foot)
    roof[slope_front] = np.interp(xs[slope_front], [front, foot], [shape.height_m - 0.04, shape.belt_m + 0.03])
    slope_rear = (xs > back) & (xs < rear)
    roof[slope_rear] = np.interp(xs[slope_rear], [back, rear], [shape.boot_m + 0.03, shape.height_m - 0.05])
    sill = 0.20 + 0.10 * np.clip((np.abs(xs) - 0.82 * half) / (0.18 * half), 0, 1)
    return sill, belt, roof


def _half_ring(shape: Shape, heights: tuple[float, float, float], *, fine: bool) -> Floats:
    """(K, 2) points (y, z) of one cross-section from sill to roof's middle, for full width."""
    sill, belt, roof = heights
    half = shape.width_m / 2
    levels, bulge = (LEVELS, BULGE) if fine else (LEVELS[[0, 3, 5, 7]], BULGE[[0, 3, 5, 7]])
    side = np.column_stack([half * bulge, sill + (belt - sill) * levels])
    rise = roof - belt
    lean = 0.17 * np.clip(rise / 0.5, 0, 1.2)
    top = half * 0.93 - lean
    glass_top = belt + 0.015 + max(rise - 0.09, 0) * 1.0
    cabin = [
        [half * 0.93, belt + 0.012],
        [top, glass_top],
        [top - 0.06, roof - 0.02],
        [top * 0.55, roof],
        [0.0, roof + 0.008],
    ]
    return np.concatenate([side, np.array(cabin)])


def _body(shape: Shape, *, fine: bool) -> tuple[Mesh, int]:
    """The lofted shell without materials, and the points in a cross-section."""
    xs, scales = _stations(shape, fine=fine)
    heights = np.stack(_profile(shape, xs), 1)
    rings = []
    for x, scale, height in zip(xs, scales, heights, strict=True):
        half = _half_ring(shape, tuple(height), fine=fine)
        ring = np.concatenate([half, half[-2::-1] * (-1, 1)])
        rings.append(np.column_stack([np.full(len(ring), x), ring[:, 0] * scale, ring[:, 1]]))
    count = len(rings[0])
    quads = grid_quads(len(rings), count, closed=False)[:, ::-1]
    return plain(np.concatenate(rings), quads, albedo=DARK), count


def _materials(shape: Shape, mesh: Mesh, count: int, *, paint: Floats) -> Surface:
    """Paint, glass, lamps and trim by where a face sits."""
    centre = mesh.points[mesh.quads].mean(1)
    x, y, z = centre.T
    half = shape.length_m / 2
    foot, front, rear, back = np.array(shape.cabin) * half
    column = np.arange(len(mesh.quads)) % (count - 1)
    column = np.minimum(column, count - 2 - column)
    below = (count + 1) // 2 - 5
    albedo = np.tile(paint, (len(x), 1))
    gloss = np.full(len(x), 1.0)
    glow = np.zeros_like(albedo)

    def put(mask: Floats, colour: Floats, shine: float, light: Floats | None = None) -> None:
        albedo[mask], gloss[mask] = colour, shine
        if light is not None:
            glow[mask] = light

    lower = shape.bonnet_m
    put(z < 0.34, DARK, 0.25)
    put((x > half - 0.10) & (np.abs(y) < 0.30 * shape.width_m) & (z > 0.30) & (z < lower * 0.74), DARK * 0.6, 0.4)
    put((x < -half + 0.10) & (z < 0.46), DARK, 0.2)
    put(
        (x > half - 0.26) & (np.abs(y) > 0.27 * shape.width_m) & (z > lower * 0.68) & (z < lower * 0.84),
        linear(225, 228, 232),
        1.4,
        HEAD_GLOW,
    )
    put(
        (x < -half + 0.16)
        & (np.abs(y) > 0.315 * shape.width_m)
        & (z > shape.boot_m * 0.73)
        & (z < shape.boot_m * 0.92),
        linear(150, 18, 20),
        1.2,
        TAIL_GLOW,
    )
    cab = (x < front + 0.35 * (foot - front)) & (x > rear - 0.2 * (rear - back))
    if shape is SHAPES["van"]:
        cab &= x > front - 1.1
    pillars = np.abs(x - (0.45 * front + 0.55 * rear)) < 0.07
    put((column == below) & cab & ~pillars, GLASS, 2.6)
    screen = column >= below + 2
    put(screen & (x > front + 0.02) & (x < foot - 0.03), GLASS, 2.6)
    if shape is not SHAPES["van"]:
        put(screen & (x < rear - 0.02) & (x > back + 0.03), GLASS, 2.6)
    return Surface(albedo, gloss, glow)


def _mirrors(shape: Shape, paint: Floats) -> list[Mesh]:
    """The two outside mirrors."""
    x = shape.cabin[0] * shape.length_m / 2 - 0.42
    parts = []
    for side in (-1, 1):
        y = side * (shape.width_m / 2 + 0.06)
        low, high = (x - 0.07, y - 0.08, shape.belt_m + 0.01), (x + 0.05, y + 0.08, shape.belt_m + 0.13)
        parts.append(box(low, high, albedo=paint, gloss=0.6))
    return parts


@lru_cache(maxsize=256)
def car(kind: str, paint: int, *, fine: bool) -> Mesh:
    """A passenger car or delivery van."""
    shape = SHAPES[kind]
    colour = linear(*PAINTS[paint % len(PAINTS)])
    shell, count = _body(shape, fine=fine)
    surface = _materials(shape, shell, count, paint=colour)
    shell = Mesh(shell.points, shell.quads, surface, shell.bias_m, shell.thin)
    parts = [shell, *wheels_of(shape.length_m, shape.width_m, shape.wheel_m, spots=(0.62, -0.58), fine=fine)]
    half = shape.length_m / 2
    parts.append(plate(half + 0.012, 0.40, front=True))
    parts.append(plate(-half - 0.012, 0.52 if kind != "suv" else 0.62, front=False))
    if fine:
        parts += _mirrors(shape, colour)
    return joined(parts)
