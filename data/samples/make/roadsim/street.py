"""A street that does not move: its course, its ground seen from above, house fronts, trees, lamps, sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Floats, Picture
from .textures import facade, noise, tree

LANE_M = 3.4
KERB_M = 0.14


@dataclass(frozen=True, slots=True)
class Course:
    """Where the road's middle runs: a gentle wave, given along x."""

    sway_m: float
    wave_m: float
    phase: float

    def at(self, s_m: float, left_m: float) -> tuple[float, float, float]:
        """World x, y and heading of the point `left_m` left of the middle at s."""
        turn = 2 * np.pi / self.wave_m
        middle = self.sway_m * (np.sin(turn * s_m + self.phase) - np.sin(self.phase))
        heading = float(np.arctan(self.sway_m * turn * np.cos(turn * s_m + self.phase)))
        return s_m - left_m * np.sin(heading), middle + left_m * np.cos(heading), heading

    def line(self, left_m: float, from_m: float, to_m: float, *, step_m: float = 2.0) -> Floats:
        """(N, 2) world points along an offset of the course."""
        count = max(2, int((to_m - from_m) / step_m) + 1)
        return np.array([self.at(s, left_m)[:2] for s in np.linspace(from_m, to_m, count)])


@dataclass(frozen=True, slots=True)
class Section:
    """The street across: lanes each way, parking strips, pavements; all positive metres from the middle."""

    lanes: int
    parking_left: bool
    parking_right: bool
    pavement_m: float
    verge_m: float

    @property
    def lanes_edge_m(self) -> float:
        """Where the outer lane ends."""
        return self.lanes * LANE_M

    def kerb_m(self, side: int) -> float:
        """Where the carriageway ends on the left (1) or right (-1)."""
        parking = self.parking_left if side > 0 else self.parking_right
        return self.lanes_edge_m + (2.2 if parking else 0.35)

    def front_m(self, side: int) -> float:
        """Where the house fronts stand."""
        return self.kerb_m(side) + self.pavement_m + self.verge_m

    def lane_m(self, index: int, *, oncoming: bool) -> float:
        """Middle of a lane, left positive; lane 0 is the outer one."""
        offset = (self.lanes - index - 0.5) * LANE_M
        return offset if oncoming else -offset


@dataclass(frozen=True, slots=True)
class House:
    """A front on one side between two points on the ground, with its flank."""

    start: Floats
    end: Floats
    height_m: float
    depth_m: float
    side: int
    front: Picture
    glow: Picture


@dataclass(frozen=True, slots=True)
class Plant:
    """A tree: where it stands, how tall, which sprite."""

    foot: Floats
    height_m: float
    sprite: int


@dataclass(frozen=True, slots=True)
class Street:
    """Everything that stands still, over x from `from_m` to `to_m`."""

    course: Course
    section: Section
    from_m: float
    to_m: float
    crossings_m: tuple[float, ...]
    houses: tuple[House, ...]
    plants: tuple[Plant, ...]
    sprites: tuple[Picture, ...]
    lamp_posts: tuple[tuple[float, float, int], ...]
    signs: tuple[tuple[float, float], ...]
    clouds: Floats
    skyline: Floats
    seed: int


def lay_out(
    seed: int, *, length_m: float = 300.0, section: Section | None = None, crossings_m: tuple[float, ...] | None = None
) -> Street:
    """A street drawn from a seed."""
    rng = np.random.default_rng([seed, 1])
    course = Course(float(rng.uniform(-4.5, 4.5)), float(rng.uniform(360, 520)), float(rng.uniform(0, 2 * np.pi)))
    section = section or draw_section(rng)
    if crossings_m is None:
        crossings_m = tuple(float(x) for x in np.arange(rng.uniform(25, 60), length_m - 20, 80.0))
    to_m = length_m
    sprites = tuple(tree(rng, autumn=float(a)) for a in np.clip(rng.normal(0.15, 0.25, 3), 0, 1))
    built = float(rng.uniform(0.55, 1.0))
    return Street(
        course=course,
        section=section,
        from_m=-40.0,
        to_m=to_m,
        crossings_m=crossings_m,
        houses=_houses(rng, course, section, to_m=to_m, built=built),
        plants=_plants(rng, course, section, to_m=to_m),
        sprites=sprites,
        lamp_posts=_lamps(rng, course, section, to_m=to_m),
        signs=tuple((float(x) - 3.0, -section.kerb_m(-1) - 0.6) for x in crossings_m),
        clouds=noise(rng, 512, octaves=7, falloff=0.62),
        skyline=_skyline(rng),
        seed=seed,
    )


def draw_section(rng: np.random.Generator) -> Section:
    """A street across, drawn at random."""
    lanes = int(rng.integers(1, 3))
    return Section(
        lanes,
        bool(rng.random() < 0.5),
        bool(rng.random() < 0.6),
        float(rng.uniform(2.4, 4.0)),
        float(rng.uniform(0.5, 6.0)),
    )


def _houses(
    rng: np.random.Generator, course: Course, section: Section, *, to_m: float, built: float
) -> tuple[House, ...]:
    """Fronts along both sides, with gaps where nothing is built."""
    kinds = []
    for _ in range(7):
        width, height = float(rng.uniform(10, 18)), float(rng.uniform(7, 17))
        kinds.append((width, height, *facade(rng, width, height)))
    houses = []
    for side in (1, -1):
        s = -30.0 + rng.uniform(0, 8)
        while s < to_m + 40:
            width, height, front, glow = kinds[rng.integers(len(kinds))]
            if rng.random() < built:
                left = side * (section.front_m(side) + rng.uniform(0, 1.2))
                start, end = (np.array([*course.at(x, left)[:2], 0.0]) for x in (s, s + width))
                houses.append(House(start, end, height, float(rng.uniform(8, 12)), side, front, glow))
            s += width + (rng.uniform(2, 9) if rng.random() < 0.3 else 0.0)
    return tuple(houses)


def _plants(rng: np.random.Generator, course: Course, section: Section, *, to_m: float) -> tuple[Plant, ...]:
    """A row of street trees on each side, and some behind the houses."""
    plants = []
    for side in (1, -1):
        spacing = rng.uniform(9, 22)
        for s in np.arange(-10, to_m + 40, spacing):
            if rng.random() < 0.75:
                left = side * (section.kerb_m(side) + 0.9)
                foot = np.array([*course.at(s + rng.normal(0, 0.8), left)[:2], 0.0])
                plants.append(Plant(foot, float(rng.uniform(4.5, 8.5)), int(rng.integers(3))))
        for s in np.arange(-20, to_m + 60, 7.0):
            left = side * (section.front_m(side) + rng.uniform(13, 24))
            foot = np.array([*course.at(s, left)[:2], 0.0])
            plants.append(Plant(foot, float(rng.uniform(8, 13)), int(rng.integers(3))))
    return tuple(plants)


def _lamps(
    rng: np.random.Generator, course: Course, section: Section, *, to_m: float
) -> tuple[tuple[float, float, int], ...]:
    lamps = []
    for s in np.arange(rng.uniform(0, 12), to_m + 20, 26.0):
        for side in (1, -1):
            at = course.at(s + (13.0 if side > 0 else 0.0), side * (section.kerb_m(side) + 0.5))
            lamps.append((float(at[0]), float(at[1]), side))
    return tuple(lamps)


def _skyline(rng: np.random.Generator) -> Floats:
    """Height in radians of hills and far roofs over 360 bins of azimuth."""
    hills = 0.010 + 0.008 * np.interp(np.arange(360), np.arange(0, 361, 12), np.append(rng.random(30), 0.5))
    roofs = np.repeat(rng.uniform(0.0, 0.034, 90), 4) * np.repeat(rng.random(90) < 0.6, 4)
    heights: Floats = np.maximum(hills, roofs)
    return heights
