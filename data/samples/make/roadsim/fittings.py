"""What cars and lorries share: paints, lamps, wheels, plates; x forward, origin on the ground below the middle."""

from __future__ import annotations

import numpy as np

from .light import linear
from .mesh import Mesh, box, decal, disc, plain

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


def wheels_of(
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


def plate(x: float, z: float, *, front: bool) -> Mesh:
    """A number plate without a number."""
    y = 0.26
    points = np.array([[x, -y, z], [x, y, z], [x, y, z + 0.12], [x, -y, z + 0.12]])
    quads = np.array([[0, 1, 2, 3]]) if front else np.array([[3, 2, 1, 0]])
    return decal(plain(points, quads, albedo=linear(226, 226, 216)), bias_m=0.3)
