"""The scenes: the sample drive as a small play, and streets filled at random for calibration and training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .actors import Actor, Path
from .camera import Lens, Mount
from .cars import SHAPES
from .ground import Ground, paint_ground
from .light import AIRS, Air
from .lorries import LORRIES
from .people import Looks
from .render import Scene
from .street import LANE_M, Section, Street, lay_out

WIDTH, HEIGHT, HFOV_DEG = 1280, 720, 60.0
MOUNTS = {"front": Mount(1.8, 0.0, 1.48, 0.0, 1.2), "front_right": Mount(1.7, -0.55, 1.48, -40.0, 1.2)}
DRIVE_SEED, CALIBRATION_SEED = 2026, 4107
TRAINING_SEEDS = range(100_000, 200_000)
CARS = tuple(SHAPES)
FADE_S = 1.0


def lens_for(width: int) -> Lens:
    """The cameras' lens for a picture of that width."""
    return Lens.from_hfov(width, width * HEIGHT // WIDTH, hfov_deg=HFOV_DEG)


@dataclass(frozen=True, slots=True)
class Spell:
    """Light and weather that hold from one instant to another."""

    from_s: float
    to_s: float
    light: str
    weather: str


@dataclass(frozen=True, slots=True)
class Drive:
    """A scene with its weather's course."""

    scene: Scene
    spells: tuple[Spell, ...]
    airs: tuple[Air, ...]

    def air(self, t_s: float) -> Air:
        """The air at an instant; neighbouring spells fade into each other over FADE_S."""
        mixed = self.airs[0]
        for spell, air in zip(self.spells[1:], self.airs[1:], strict=True):
            share = float(np.clip((t_s - spell.from_s) / FADE_S + 0.5, 0, 1))
            mixed = mixed.mixed(air, share=share) if share > 0 else mixed
        return mixed

    def spell(self, t_s: float) -> Spell:
        """The spell an instant falls into."""
        return next((s for s in self.spells if s.from_s <= t_s < s.to_s), self.spells[-1])


class Cast:
    """Collects actors and numbers them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.actors: list[Actor] = []

    def vehicle(self, model: str, path: Path, *, paint: int | None = None, lamps: bool = True) -> None:
        """Add a car or truck by its model's name."""
        kind = "car" if model in SHAPES else "truck"
        chosen = int(self.rng.integers(64)) if paint is None else paint
        self.actors.append(Actor(len(self.actors) + 1, kind, path, model, chosen, lamps=lamps))

    def person(self, kind: str, path: Path) -> None:
        """Add a pedestrian or cyclist with looks drawn at random."""
        rhythm = float(self.rng.uniform(0, 2 * np.pi))
        looks = Looks.drawn(self.rng)
        if kind == "cyclist":
            looks = replace(looks, coat=False, height_m=max(looks.height_m, 1.55))
        self.actors.append(Actor(len(self.actors) + 1, kind, path, looks=looks, rhythm=rhythm))


def sample_drive() -> Drive:
    """Ten seconds: an overtaker, people on the zebra, a cyclist, a truck ahead; day, then dusk, then rain."""
    crossing = 38.0
    street = lay_out(DRIVE_SEED, length_m=270, section=Section(2, False, True, 3.2, 2.2), crossings_m=(crossing, 128.0))
    rng = np.random.default_rng([DRIVE_SEED, 9])
    cast = Cast(rng)
    _traffic(cast)
    _oncoming(cast)
    kerb = street.section.kerb_m(-1)
    for start, speed, s in ((0.5, 1.42, 37.6), (0.9, 1.36, 38.5)):
        cast.person("pedestrian", Path.crossing(s, start, left_m=(-kerb - 0.6, 8.2), speed_mps=speed))
    cast.person("pedestrian", Path.crossing(38.2, -4.8, left_m=(7.4, -kerb - 1.8), speed_mps=1.5))
    cast.person("pedestrian", Path.crossing(128.6, 3.0, left_m=(-kerb - 0.6, 8.2), speed_mps=1.4))
    cast.person("cyclist", Path.driven(27.0, [(0, 4.4, -6.45), (12, 4.2, -6.5)]))
    cast.person("cyclist", Path.driven(76.0, [(0, -5.2, 6.3), (12, -5.0, 6.3)], heading_rad=np.pi))
    _parked(cast, street, side=-1, share=0.8, keep_clear=(crossing, 128.0))
    _walkers(cast, street, count=22)
    knots = [
        (-0.5, 11.0, -5.1),
        (1.0, 10.5, -5.1),
        (3.1, 2.4, -5.1),
        (4.3, 2.4, -5.1),
        (7.2, 10.0, -5.1),
        (12, 10.5, -5.1),
    ]
    scene = Scene(street, paint_ground(street), tuple(cast.actors), Path.driven(0.0, knots), DRIVE_SEED)
    spells = (Spell(0.0, 4.0, "day", "clear"), Spell(4.0, 7.0, "dusk", "clear"), Spell(7.0, 10.0, "dusk", "rain"))
    return Drive(
        scene,
        spells,
        tuple(AIRS[s.light, s.weather](np.random.default_rng([DRIVE_SEED, 11 + i])) for i, s in enumerate(spells)),
    )


def _traffic(cast: Cast) -> None:
    """Whoever drives our way."""
    right, left = -5.1, -1.7
    cast.vehicle(
        "hatch", Path.driven(-7.0, [(-0.5, 14.0, left), (4.0, 14.0, left), (6.0, 11.0, left), (12, 9.5, left)]), paint=9
    )
    cast.vehicle(
        "box", Path.driven(31.0, [(-0.5, 11.0, right), (2.0, 9.0, right), (5.0, 4.6, right), (12, 8.5, right)]), paint=2
    )
    cast.vehicle(
        "sedan",
        Path.driven(47.0, [(-0.5, 10.5, right), (3.0, 9.0, right), (6.0, 5.5, right), (12, 9.0, right)]),
        paint=5,
    )
    cast.vehicle(
        "suv", Path.driven(62.0, [(-0.5, 9.5, left), (4.0, 9.0, left), (7.0, 7.0, left), (12, 8.0, left)]), paint=0
    )
    cast.vehicle("van", Path.driven(84.0, [(-0.5, 9.0, left), (12, 9.0, left)]), paint=6)
    cast.vehicle("estate", Path.driven(-24.0, [(-0.5, 11.0, left), (4.0, 10.0, left), (12, 12.0, left)]), paint=3)


def _oncoming(cast: Cast) -> None:
    models = ("estate", "hatch", "long", "sedan", "suv", "light", "mini", "van", "sedan", "hatch")
    starts = (48.0, 74.0, 104.0, 118.0, 138.0, 160.0, 172.0, 196.0, 214.0, 232.0)
    for index, (model, start) in enumerate(zip(models, starts, strict=True)):
        lane = 5.1 if index % 2 else 1.7
        speed = -(10.0 + 0.25 * index)
        cast.vehicle(
            model, Path.driven(start, [(-0.5, speed, lane), (12, speed, lane)], heading_rad=np.pi), paint=index * 5 + 1
        )


def _parked(cast: Cast, street: Street, *, side: int, share: float, keep_clear: tuple[float, ...]) -> None:
    """Cars along a kerb."""
    rng, section = cast.rng, street.section
    s = street.from_m + float(rng.uniform(0, 6))
    while s < street.to_m:
        model = CARS[rng.integers(len(CARS))] if rng.random() < 0.95 else "light"
        length = SHAPES[model].length_m if model in SHAPES else LORRIES[model].length_m
        middle = s + length / 2
        if rng.random() < share and all(abs(middle - c) > length / 2 + 5.5 for c in keep_clear):
            left = side * (section.kerb_m(side) - 1.12 + rng.normal(0, 0.06))
            cast.vehicle(model, Path.steady(middle, left, 0.0, heading_rad=np.pi if side > 0 else 0.0), lamps=False)
        s += length + float(rng.uniform(0.9, 2.4))


def _walkers(cast: Cast, street: Street, *, count: int, ahead_m: tuple[float, float] = (-10.0, 170.0)) -> None:
    """People on the pavements, walking either way or standing."""
    rng, section = cast.rng, street.section
    for _ in range(count):
        side = 1 if rng.random() < 0.45 else -1
        left = side * (section.kerb_m(side) + rng.uniform(0.5, section.pavement_m - 0.3))
        speed = 0.0 if rng.random() < 0.15 else rng.uniform(1.0, 1.6) * rng.choice([-1, 1])
        s, turn = rng.uniform(*ahead_m), float(rng.uniform(-np.pi, np.pi))
        cast.person("pedestrian", Path.steady(s, left, speed, heading_rad=turn))


def _random_vehicles(cast: Cast, section: Section, around_m: float, *, dense: float) -> None:
    """Moving vehicles with gaps, lane by lane; our own place is kept free."""
    rng = cast.rng
    for oncoming in (False, True):
        for index in range(section.lanes):
            s = around_m - 25 + rng.uniform(0, 25)
            while s < around_m + 170:
                truck = rng.random() < 0.24
                model = str(rng.choice(list(LORRIES))) if truck else CARS[rng.integers(len(CARS))]
                half = (LORRIES[model] if truck else SHAPES[model]).length_m / 2
                s += half
                own = not oncoming and index == 0 and s - half < around_m + 6 and s + half > around_m - 4
                if not own and rng.random() < dense:
                    left = section.lane_m(index, oncoming=oncoming) + rng.normal(0, 0.25)
                    speed = rng.uniform(3, 14) * (-1 if oncoming else 1)
                    cast.vehicle(model, Path.steady(s, left, speed, heading_rad=np.pi if oncoming else 0.0))
                s += half + rng.gamma(2.0, 8.0) + 3


def populate(street: Street, rng: np.random.Generator, *, around_m: float) -> tuple[Actor, ...]:
    """Random road users near a place on a street."""
    cast, section = Cast(rng), street.section
    _random_vehicles(cast, section, around_m, dense=float(rng.uniform(0.25, 0.95)))
    for side, parking in ((1, section.parking_left), (-1, section.parking_right)):
        if parking:
            _parked(cast, street, side=side, share=float(rng.uniform(0.3, 0.95)), keep_clear=street.crossings_m)
    _walkers(cast, street, count=int(rng.integers(4, 30)), ahead_m=(around_m - 5, around_m + 90))
    for _ in range(int(rng.integers(1, 7))):
        s, speed = around_m + rng.uniform(5, 55), float(rng.uniform(1.0, 1.7))
        reach = section.kerb_m(-1)
        start = float(rng.uniform(-2 * reach / speed, 0))
        way = (-reach, reach) if rng.random() < 0.5 else (reach, -reach)
        cast.person("pedestrian", Path.crossing(float(s), start, left_m=way, speed_mps=speed))
    for _ in range(int(rng.integers(1, 8))):
        oncoming = rng.random() < 0.35
        side = 1 if oncoming else -1
        left = side * (section.lanes_edge_m - rng.uniform(-0.1, 1.2))
        if rng.random() < 0.2:
            left = side * (section.kerb_m(side) + 1.0)
        s, speed = around_m + rng.uniform(4, 70), float(rng.uniform(3, 7)) * (-1 if oncoming else 1)
        cast.person("cyclist", Path.steady(float(s), left, speed, heading_rad=np.pi if oncoming else 0.0))
    return tuple(cast.actors)


def random_scene(street: Street, ground: Ground, seed: int) -> Scene:
    """A street with random users around a random place of ours."""
    rng = np.random.default_rng([seed, 21])
    place = float(rng.uniform(0, street.to_m - 120))
    left = street.section.lane_m(int(rng.integers(street.section.lanes)), oncoming=False) + float(rng.normal(0, 0.3))
    actors = populate(street, rng, around_m=place)
    near = [a for a in actors if _clear_of(a, place, left)]
    return Scene(street, ground, tuple(near), Path.steady(place, left, float(rng.uniform(0, 14))), seed)


def _clear_of(actor: Actor, s_m: float, left_m: float) -> bool:
    """Whether the actor is not where our own vehicle stands."""
    s, left = actor.path.at(0.0)
    return abs(s - s_m - 1.0) > actor.length_m / 2 + 3.2 or abs(left - left_m) > LANE_M * 0.62


def random_air(seed: int) -> tuple[Air, str, str]:
    """Light and weather of one training frame; a third are mixtures of two."""
    rng = np.random.default_rng([seed, 22])
    keys = list(AIRS)
    key = keys[int(rng.choice(len(keys), p=[0.4, 0.22, 0.18, 0.2]))]
    air = AIRS[key](rng)
    if rng.random() < 0.33:
        air = air.mixed(AIRS[keys[rng.integers(len(keys))]](rng), share=float(rng.uniform(0, 0.5)))
    return air, *key


def calibration_drive(duration_s: float) -> Drive:
    """Another street, at random; every light and weather in turn."""
    street = lay_out(CALIBRATION_SEED, length_m=10 * duration_s + 150, section=Section(2, True, True, 3.4, 3.0))
    rng = np.random.default_rng([CALIBRATION_SEED, 9])
    actors = populate(street, rng, around_m=0.0) + populate(street, rng, around_m=10 * duration_s)
    numbered = tuple(
        Actor(i + 1, a.kind, a.path, a.model, a.paint, a.looks, a.rhythm, a.lamps) for i, a in enumerate(actors)
    )
    ego = Path.steady(0.0, street.section.lane_m(0, oncoming=False), 10.0)
    clear = tuple(a for a in numbered if a.path.s_m[0] != a.path.s_m[-1] or abs(a.path.left_m[0] - ego.left_m[0]) > 2)
    step = duration_s / 4
    spells = tuple(Spell(i * step, (i + 1) * step, *key) for i, key in enumerate(AIRS))
    airs = tuple(
        AIRS[s.light, s.weather](np.random.default_rng([CALIBRATION_SEED, 11 + i])) for i, s in enumerate(spells)
    )
    return Drive(Scene(street, paint_ground(street), clear, ego, CALIBRATION_SEED), spells, airs)
