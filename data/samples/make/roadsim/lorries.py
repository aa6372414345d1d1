"""Lorries as meshes; x forward, origin on the ground below the middle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .camera import Floats
from .fittings import DARK, GLASS, HEAD_GLOW, PAINTS, TAIL_GLOW, wheels_of
from .light import linear
from .mesh import Mesh, box, decal, grid_quads, joined, plain

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
    wheels = wheels_of(
        lorry.length_m, lorry.width_m, 0.48, spots=(0.72, -0.62) if kind != "long" else (0.76, -0.5, -0.7), fine=fine
    )
    return joined([frame, load, *skirts, *_cab(lorry, colour), *_rear(lorry, cargo), *wheels])
