"""Who is on the road, and where each is at an instant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Floats
from .cars import SHAPES, car
from .lorries import LORRIES, truck
from .mesh import Mesh
from .people import Looks, cyclist, pedestrian
from .street import Course

CLASSES = ("car", "truck", "pedestrian", "cyclist")
STEP_M = 1.45
CRANK_M = 4.6


@dataclass(frozen=True, slots=True)
class Path:
    """Positions along (`s_m`) and beside (`left_m`) the course over rising times; held still outside them."""

    times_s: Floats
    s_m: Floats
    left_m: Floats
    heading_rad: float = 0.0

    @classmethod
    def steady(cls, s_m: float, left_m: float, speed_mps: float, *, heading_rad: float = 0.0) -> Path:
        """Constant speed; `heading_rad` counts where it stands."""
        times = np.array([-2.0, 20.0])
        return cls(times, s_m + speed_mps * times, np.full(2, left_m), heading_rad)

    @classmethod
    def crossing(cls, s_m: float, start_s: float, *, left_m: tuple[float, float], speed_mps: float = 1.4) -> Path:
        """Somebody who walks from one offset to another, starting at an instant."""
        length = abs(left_m[1] - left_m[0]) / speed_mps
        heading = np.pi / 2 if left_m[1] > left_m[0] else -np.pi / 2
        return cls(np.array([start_s, start_s + length]), np.full(2, s_m), np.array(left_m), heading)

    @classmethod
    def driven(cls, s_m: float, knots: list[tuple[float, float, float]], *, heading_rad: float = 0.0) -> Path:
        """From s_m at t = 0 through knots (time, speed, left): both eased between knots."""
        t_knots, v_knots, left_knots = (np.array(column) for column in zip(*knots, strict=True))
        times = np.arange(-0.5, 12.0, 0.02)
        speed, left = (_eased(times, t_knots, values) for values in (v_knots, left_knots))
        travelled = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * 0.02)])
        travelled -= np.interp(0.0, times, travelled)
        return cls(times, s_m + travelled, left, heading_rad)

    def at(self, t_s: float) -> tuple[float, float]:
        """Position along and beside the course."""
        return float(np.interp(t_s, self.times_s, self.s_m)), float(np.interp(t_s, self.times_s, self.left_m))


def _eased(times: Floats, knots: Floats, values: Floats) -> Floats:
    """Values at times, moving between knots without a jerk."""
    index = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
    share = np.clip((times - knots[index]) / (knots[index + 1] - knots[index]), 0, 1)
    share = share * share * (3 - 2 * share)
    result: Floats = values[index] * (1 - share) + values[index + 1] * share
    return result


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an actor is: world metres, heading, how far it has come, how fast."""

    x_m: float
    y_m: float
    heading_rad: float
    travelled_m: float
    speed_mps: float


@dataclass(frozen=True, slots=True)
class Actor:
    """One road user. `model` names a car's or truck's shape; people have `looks`."""

    track_id: int
    kind: str
    path: Path
    model: str = ""
    paint: int = 0
    looks: Looks | None = None
    rhythm: float = 0.0
    lamps: bool = True

    @property
    def length_m(self) -> float:
        """Bumper to bumper; people count as 1 m."""
        if self.kind == "car":
            return SHAPES[self.model].length_m
        return LORRIES[self.model].length_m if self.kind == "truck" else 1.0

    def placed(self, course: Course, t_s: float) -> Placed:
        """Where the actor is at an instant."""
        s, left = self.path.at(t_s)
        x, y, along = course.at(s, left)
        before, after = (np.array(course.at(*self.path.at(t_s + dt))[:2]) for dt in (-0.08, 0.08))
        step = after - before
        speed = float(np.linalg.norm(step)) / 0.16
        heading = float(np.arctan2(step[1], step[0])) if speed > 0.3 else along + self.path.heading_rad
        start_s, start_left = self.path.at(0.0)
        return Placed(x, y, heading, float(np.hypot(s - start_s, left - start_left)), speed)

    def mesh(self, place: Placed, *, distance_m: float) -> Mesh:
        """The actor's mesh in the world, coarser when far away."""
        if self.kind in ("car", "truck"):
            make = car if self.kind == "car" else truck
            body = make(self.model, self.paint, fine=distance_m < 32)
        else:
            if self.looks is None:
                raise ValueError(f"actor {self.track_id}: a {self.kind} needs looks")
            fine = distance_m < 22
            if self.kind == "pedestrian":
                stride = min(1.0, place.speed_mps / 1.2)
                body = pedestrian(self.looks, self.rhythm + place.travelled_m / STEP_M * 2 * np.pi, stride, fine=fine)
            else:
                body = cyclist(self.looks, self.rhythm + place.travelled_m / CRANK_M * 2 * np.pi, fine=fine)
        return body.placed(place.x_m, place.y_m, heading_rad=place.heading_rad)
