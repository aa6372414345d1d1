"""Meshes of quadrilaterals, and the few ways to make one: loft, limb, disc, box."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .camera import Floats
from .light import Surface

Indices = NDArray[np.int64]
BLACK = np.zeros(3)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Quads over points. `bias_m` draws faces as if nearer; `thin` faces are seen from both sides."""

    points: Floats
    quads: Indices
    surface: Surface
    bias_m: Floats
    thin: NDArray[np.bool_]

    def placed(self, x_m: float, y_m: float, *, heading_rad: float) -> Mesh:
        """The mesh turned about z and moved on the ground."""
        cos, sin = np.cos(heading_rad), np.sin(heading_rad)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])
        return Mesh(self.points @ turn + (x_m, y_m, 0.0), self.quads, self.surface, self.bias_m, self.thin)


def plain(points: Floats, quads: Indices, *, albedo: Floats, gloss: float = 0.0) -> Mesh:
    """A mesh of one material."""
    count = len(quads)
    surface = Surface(np.tile(albedo, (count, 1)), np.full(count, gloss), np.zeros((count, 3)))
    return Mesh(points, quads, surface, np.zeros(count), np.zeros(count, bool))


def decal(mesh: Mesh, *, bias_m: float, glow: Floats = BLACK, thin: bool = False) -> Mesh:
    """The mesh drawn `bias_m` nearer, glowing."""
    count = len(mesh.quads)
    surface = Surface(mesh.surface.albedo, mesh.surface.gloss, np.tile(glow, (count, 1)))
    return Mesh(mesh.points, mesh.quads, surface, np.full(count, bias_m), np.full(count, thin))


def joined(meshes: list[Mesh]) -> Mesh:
    """One mesh of many."""
    starts = np.cumsum([0] + [len(m.points) for m in meshes[:-1]])
    quads = np.concatenate([m.quads + start for m, start in zip(meshes, starts, strict=True)])
    surface = Surface(
        np.concatenate([m.surface.albedo for m in meshes]),
        np.concatenate([m.surface.gloss for m in meshes]),
        np.concatenate([m.surface.glow for m in meshes]),
    )
    return Mesh(
        np.concatenate([m.points for m in meshes]),
        quads,
        surface,
        np.concatenate([m.bias_m for m in meshes]),
        np.concatenate([m.thin for m in meshes]),
    )


@lru_cache(maxsize=64)
def grid_quads(rows: int, columns: int, *, closed: bool) -> Indices:
    """Quads between neighbouring points of a rows x columns grid; `closed` joins the last column to the first."""
    row = np.arange(rows - 1)[:, None]
    column = np.arange(columns if closed else columns - 1)[None, :]
    following = (column + 1) % columns
    corners = [
        row * columns + column,
        row * columns + following,
        (row + 1) * columns + following,
        (row + 1) * columns + column,
    ]
    return np.stack([np.broadcast_to(c, np.broadcast_shapes(row.shape, column.shape)) for c in corners], -1).reshape(
        -1, 4
    )


def limb(start: Floats, end: Floats, radii_m: tuple[float, float], *, albedo: Floats, sides: int = 8) -> Mesh:
    """A round limb from start to end with rounded ends."""
    axis = end - start
    length = max(float(np.linalg.norm(axis)), 1e-6)
    axis = axis / length
    helper = np.array([0.0, 0.0, 1.0]) if abs(axis[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    side = np.cross(helper, axis)
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    along = np.array([-0.9 * radii_m[0], 0.0, 0.5 * length, length, length + 0.9 * radii_m[1]])
    radius = np.array([0.35 * radii_m[0], radii_m[0], sum(radii_m) / 2, radii_m[1], 0.35 * radii_m[1]])
    if sides < 6:
        along, radius = along[[0, 2, 4]], radius[[1, 2, 3]]
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * other
    points = start + along[:, None, None] * axis + radius[:, None, None] * ring
    return plain(points.reshape(-1, 3), grid_quads(len(along), sides, closed=True), albedo=albedo)


def stack(sections: Floats, *, albedo: Floats, sides: int = 10, gloss: float = 0.0) -> Mesh:
    """Ellipses above each other: rows of (x, y, z, half length along x, half width along y)."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], 1)
    scale = np.stack([sections[:, 3], sections[:, 4], np.zeros(len(sections))], 1)
    points = sections[:, None, :3] + ring * scale[:, None, :]
    return plain(points.reshape(-1, 3), grid_quads(len(sections), sides, closed=True), albedo=albedo, gloss=gloss)


def ellipsoid(
    centre: Floats, radii_m: tuple[float, float, float], *, albedo: Floats, sides: int = 10, gloss: float = 0.0
) -> Mesh:
    """An upright ellipsoid."""
    tilt = np.linspace(-np.pi / 2 * 0.98, np.pi / 2 * 0.98, max(5, sides // 2 + 2))
    sections = np.stack(
        [
            np.full_like(tilt, centre[0]),
            np.full_like(tilt, centre[1]),
            centre[2] + radii_m[2] * np.sin(tilt),
            radii_m[0] * np.cos(tilt),
            radii_m[1] * np.cos(tilt),
        ],
        1,
    )
    return stack(sections, albedo=albedo, sides=sides, gloss=gloss)


def disc(centre: Floats, radius_m: float, *, albedo: Floats, side: int, sides: int = 16, gloss: float = 0.0) -> Mesh:
    """A filled disc standing across y; it faces +y for side 1, -y for side -1."""
    angle = np.arange(sides) * (2 * np.pi / sides) * -side
    rim = centre + radius_m * np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], 1)
    points = np.concatenate([rim, centre[None]])
    start = np.arange(0, sides, 2)
    quads = np.stack([np.full_like(start, sides), start, start + 1, (start + 2) % sides], 1)
    return plain(points, quads, albedo=albedo, gloss=gloss)


def band(centre: Floats, radii_m: tuple[float, float], *, albedo: Floats, sides: int = 18) -> Mesh:
    """A flat ring standing across y (a bicycle's tyre), seen from both sides."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], 1)
    points = np.concatenate([centre + radii_m[0] * ring, centre + radii_m[1] * ring])
    return decal(plain(points, grid_quads(2, sides, closed=True), albedo=albedo), bias_m=0.0, thin=True)


def box(
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    *,
    albedo: Floats,
    gloss: float = 0.0,
    cuts: int = 1,
) -> Mesh:
    """An upright box between two corners; `cuts` divides its long sides so that they sort and shade well."""
    xs = np.linspace(low[0], high[0], cuts + 1)
    ring = np.array([[low[1], low[2]], [high[1], low[2]], [high[1], high[2]], [low[1], high[2]]])
    points = np.concatenate([np.column_stack([np.full(4, x), ring]) for x in xs])
    sides = grid_quads(len(xs), 4, closed=True)
    last = 4 * cuts
    ends = np.array([[3, 2, 1, 0], [last, last + 1, last + 2, last + 3]])
    return plain(points, np.concatenate([sides, ends]), albedo=albedo, gloss=gloss)
