"""Cars, vans and trucks as lofted meshes; x forward, origin on the ground below the middle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .camera import Floats
from .light import Surface, linear
from .mesh import Mesh, box, decal, disc, grid_quads, joined, plain

DARK = linear(34, 34, 37)
TYRE = linear(38, 37, 36)
RIM = linear(176, 178, 184)
GLASS = linear(38, 46, 54)
HEAD_GLOW = linear(255, 246, 225) * 2.4
TAIL_GLOW = linear(255, 40, 28) * 1.2
PAINTS = [
    (236, 236, 234), (28, 29, 32), (120, 124, 130), (182, 186, 190), (150, 26, 30), (30, 62, 128),
    (72, 90, 104), (196, 178, 148), (26, 76, 66), (208, 96, 28), (64, 66, 72), (222, 222, 226),
]  # fmt: skip


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


def _wheels(
    shape_length_m: float, width_m: float, radius_m: float, *, spots: tuple[float, ...], fine: bool
) -> list[Mesh]:
    """Arches, tyres and rims on both sides at the shares `spots` of the half length."""
    parts = []
    sides = 16 if fine else 8
    for spot in spots:
        for side in (-1, 1):
            x, y = spot * shape_length_m / 2, side * (width_m / 2 * 0.985)
            arch = disc(np.array([x, y, radius_m + 0.02]), radius_m * 1.16, albedo=DARK * 0.4, side=side, sides=sides)
            tyre = disc(np.array([x, y + side * 0.012, radius_m]), radius_m, albedo=TYRE, side=side, sides=sides)
            rim = disc(
                np.array([x, y + side * 0.016, radius_m]),
                radius_m * 0.66,
                albedo=RIM * 0.75,
                side=side,
                sides=sides,
                gloss=0.8,
            )
            hub = disc(np.array([x, y + side * 0.018, radius_m]), radius_m * 0.20, albedo=DARK, side=side, sides=8)
            parts += [decal(m, bias_m=0.35 + 0.05 * i) for i, m in enumerate((arch, tyre, rim, hub))]
            parts.append(
                box(
                    (x - radius_m * 0.9, y - 0.11 - side * 0.13, 0.0),
                    (x + radius_m * 0.9, y + 0.11 - side * 0.13, radius_m),
                    albedo=TYRE * 0.7,
                )
            )
            if fine:
                parts += _spokes(x, y + side * 0.02, radius_m, side=side)
    return parts


def _spokes(x: float, y: float, radius_m: float, *, side: int) -> list[Mesh]:
    """Dark gaps between five spokes."""
    parts = []
    for turn in np.arange(5) * 2 * np.pi / 5 + 0.3:
        out = np.array([np.cos(turn), 0, np.sin(turn)])
        across = np.array([-np.sin(turn), 0, np.cos(turn)])
        centre = np.array([x, y, radius_m])
        corners = [
            out * 0.26 - across * 0.05,
            out * 0.58 - across * 0.20,
            out * 0.58 + across * 0.20,
            out * 0.26 + across * 0.05,
        ]
        points = np.array([centre + radius_m * c for c in corners])
        order = np.array([[0, 1, 2, 3]]) if side < 0 else np.array([[3, 2, 1, 0]])
        parts.append(decal(plain(points, order, albedo=DARK * 0.8), bias_m=0.5))
    return parts


def _plate(x: float, z: float, *, front: bool) -> Mesh:
    """A number plate without a number."""
    y = 0.26
    points = np.array([[x, -y, z], [x, y, z], [x, y, z + 0.12], [x, -y, z + 0.12]])
    quads = np.array([[0, 1, 2, 3]]) if front else np.array([[3, 2, 1, 0]])
    return decal(plain(points, quads, albedo=linear(226, 226, 216)), bias_m=0.3)


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
    parts = [shell, *_wheels(shape.length_m, shape.width_m, shape.wheel_m, spots=(0.62, -0.58), fine=fine)]
    half = shape.length_m / 2
    parts.append(_plate(half + 0.012, 0.40, front=True))
    parts.append(_plate(-half - 0.012, 0.52 if kind != "suv" else 0.62, front=False))
    if fine:
        parts += _mirrors(shape, colour)
    return joined(parts)


CARGO = [(226, 226, 222), (206, 204, 196), (38, 78, 128), (150, 42, 38), (60, 92, 68), (212, 160, 52)]


@dataclass(frozen=True, slots=True)
class Lorry:
    """A box truck's sizes in metres."""

    length_m: float
    width_m: float
    height_m: float
    cab_m: float


LORRIES = {
    "box": Lorry(7.2, 2.35, 3.15, 1.75),
    "long": Lorry(10.5, 2.5, 3.75, 2.0),
    "light": Lorry(6.0, 2.1, 2.75, 1.6),
}


def _cab(lorry: Lorry, paint: Floats) -> list[Mesh]:
    """The driver's cab with windscreen, side windows, grille and lamps."""
    front, half = lorry.length_m / 2, lorry.width_m / 2
    top = min(lorry.height_m * 0.84, 2.75)
    back = front - lorry.cab_m
    rows = [(front - 0.02, 0.42), (front, 0.75), (front - 0.02, 1.25), (front - 0.30, top - 0.22), (front - 0.48, top)]
    profile = np.array(rows)
    points = [np.column_stack([profile[:, 0], np.full(5, y), profile[:, 1]]) for y in (-half * 0.96, half * 0.96)]
    face = plain(np.concatenate(points), grid_quads(2, 5, closed=False)[:, ::-1], albedo=paint, gloss=0.8)
    body = box((back, -half * 0.96, 0.42), (front - 0.48, half * 0.96, top), albedo=paint, gloss=0.8)
    parts = [body, decal(face, bias_m=0.2)]
    for side in (-1, 1):
        y = side * half * 0.96
        wedge = np.array(
            [[front - 0.48, y, 0.42], [front - 0.02, y, 0.42], [front - 0.02, y, 1.25], [front - 0.48, y, top]]
        )
        window = np.array(
            [
                [back + 0.35, y, 1.38],
                [front - 0.30, y, 1.38],
                [front - 0.52, y, top - 0.28],
                [back + 0.35, y, top - 0.28],
            ]
        )
        for flat, colour, shine, bias in ((wedge, paint, 0.8, 0.1), (window * (1, 1.005, 1), GLASS, 2.4, 0.4)):
            order = np.array([[0, 1, 2, 3]]) if side < 0 else np.array([[3, 2, 1, 0]])
            parts.append(decal(plain(flat, order, albedo=colour, gloss=shine), bias_m=bias))
    parts += _cab_face(front, half, top)
    return parts


def _cab_face(front: float, half: float, top: float) -> list[Mesh]:
    def across(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> Mesh:
        points = np.array([[x[0], y[0], z[0]], [x[0], y[1], z[0]], [x[1], y[1], z[1]], [x[1], y[0], z[1]]])
        return plain(points, np.array([[0, 1, 2, 3]]), albedo=GLASS, gloss=2.4)

    screen = across((front - 0.03, front - 0.29), (-half * 0.86, half * 0.86), (1.36, top - 0.26))
    parts = [decal(screen, bias_m=0.5)]
    grille = plain(
        np.array(
            [
                [front + 0.01, -half * 0.5, 0.6],
                [front + 0.01, half * 0.5, 0.6],
                [front - 0.01, half * 0.5, 1.1],
                [front - 0.01, -half * 0.5, 1.1],
            ]
        ),
        np.array([[0, 1, 2, 3]]),
        albedo=DARK,
    )
    parts.append(decal(grille, bias_m=0.5))
    for side in (-1, 1):
        low, high = sorted((side * half * 0.62, side * half * 0.92))
        lamp = plain(
            np.array(
                [
                    [front + 0.015, low, 0.62],
                    [front + 0.015, high, 0.62],
                    [front + 0.015, high, 0.82],
                    [front + 0.015, low, 0.82],
                ]
            ),
            np.array([[0, 1, 2, 3]]),
            albedo=linear(226, 228, 230),
            gloss=1.0,
        )
        parts.append(decal(lamp, bias_m=0.5, glow=HEAD_GLOW))
        x = front - 0.18
        parts.append(
            box((x - 0.06, side * (half + 0.1) - 0.08, 1.45), (x + 0.06, side * (half + 0.1) + 0.08, 2.0), albedo=DARK)
        )
    return parts


def _rear(lorry: Lorry, cargo: Floats) -> list[Mesh]:
    """Doors' seam, tail lamps and the under-run bar."""
    back, half = -lorry.length_m / 2, lorry.width_m / 2
    parts = []

    def sheet(y: tuple[float, float], z: tuple[float, float], colour: Floats, glow: Floats, *, bias_m: float) -> None:
        points = np.array(
            [[back - 0.01, y[0], z[0]], [back - 0.01, y[1], z[0]], [back - 0.01, y[1], z[1]], [back - 0.01, y[0], z[1]]]
        )
        parts.append(decal(plain(points, np.array([[3, 2, 1, 0]]), albedo=colour), bias_m=bias_m, glow=glow))

    top = lorry.height_m
    sheet((-0.02, 0.02), (1.1, top - 0.1), cargo * 0.35, np.zeros(3), bias_m=0.3)
    for y in (-half * 0.5, half * 0.5):
        sheet((y - 0.025, y + 0.025), (1.1, top - 0.12), linear(150, 152, 156), np.zeros(3), bias_m=0.3)
    sheet((-half, half), (0.95, 1.06), DARK, np.zeros(3), bias_m=0.3)
    sheet((-half * 0.95, half * 0.95), (0.52, 0.66), linear(190, 30, 28), np.zeros(3), bias_m=0.3)
    for y in (-half * 0.82, half * 0.82):
        sheet((y - 0.16, y + 0.16), (0.74, 0.90), linear(160, 20, 20), TAIL_GLOW, bias_m=0.4)
    sheet((-0.26, 0.26), (0.70, 0.82), linear(226, 226, 216), np.zeros(3), bias_m=0.4)
    return parts


@lru_cache(maxsize=128)
def truck(kind: str, paint: int, *, fine: bool) -> Mesh:
    """A box truck: cab, cargo box, frame, wheels."""
    lorry = LORRIES[kind]
    colour, cargo = linear(*PAINTS[paint % len(PAINTS)]), linear(*CARGO[paint % len(CARGO)])
    front, half = lorry.length_m / 2, lorry.width_m / 2
    load = box(
        (-front, -half, 1.0),
        (front - lorry.cab_m - 0.12, half, lorry.height_m),
        albedo=cargo,
        gloss=0.25,
        cuts=5 if fine else 2,
    )
    frame = box((-front, -half * 0.8, 0.5), (front - lorry.cab_m, half * 0.8, 1.0), albedo=DARK)
    skirts = []
    for side in (-1, 1):
        y = side * half
        stripe = np.array(
            [
                [-front, y * 1.002, 1.55],
                [front - lorry.cab_m - 0.12, y * 1.002, 1.55],
                [front - lorry.cab_m - 0.12, y * 1.002, 1.95],
                [-front, y * 1.002, 1.95],
            ]
        )
        order = np.array([[0, 1, 2, 3]]) if side < 0 else np.array([[3, 2, 1, 0]])
        skirts.append(decal(plain(stripe, order, albedo=linear(*CARGO[(paint + 2) % len(CARGO)])), bias_m=0.3))
        skirts.append(
            box(
                (-front + 2.2, y * 0.93 - 0.03, 0.45),
                (front - lorry.cab_m - 1.0, y * 0.93 + 0.03, 0.95),
                albedo=linear(110, 112, 116),
            )
        )
    wheels = _wheels(
        lorry.length_m, lorry.width_m, 0.48, spots=(0.72, -0.62) if kind != "long" else (0.76, -0.5, -0.7), fine=fine
    )
    return joined([frame, load, *skirts, *_cab(lorry, colour), *_rear(lorry, cargo), *wheels])
