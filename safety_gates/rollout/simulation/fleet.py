"""A simulated fleet: who drives when, what goes wrong, and what of it arrives.

Vehicles differ: in how much they drive (gamma), how often they miss a deadline, crash or raise a flag (log-normal), and
how often they are offline. Drives cluster: hours have two peaks, a day has a weather of its own that all share, and the
misses of one vehicle in one interval share a fate of their own, so they scatter more than independent ones. Records
arrive when the vehicle is next online, and some never do. A candidate is installed when its vehicle is next online.

The numbers of `FleetModel` are choices, none is measured on a real fleet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perception.errors import RolloutError
from safety_gates.rollout.quantities import COLUMNS, LENT_MISSES, VehicleTable
from safety_gates.rollout.stages import Stage

Floats = NDArray[np.float64]
ROW = {name: row for row, name in enumerate(COLUMNS)}
# Share of a day's drives that begin in each hour: a morning and an evening peak.
HOURLY = np.array([1, 1, 1, 1, 2, 4, 8, 12, 11, 7, 5, 5, 6, 6, 6, 7, 9, 12, 11, 8, 5, 4, 3, 2], float)
HOURLY /= HOURLY.sum()


@dataclass(frozen=True, slots=True)
class FleetModel:
    """How the fleet is without a candidate. Spreads are standard deviations of logarithms.

    Attributes:
        drives_per_day, drives_shape: mean, and the gamma's shape: 1 is a wide spread.
        frames_per_drive: mean.
        miss_rate, crash_rate, fault_rate: of a frame, a drive, a drive; medians over vehicles.
        fate_shape: drives that must come together before the misses of one vehicle average out.
        weather: spread of what a day does to everybody's misses.
        offline: mean probability that a vehicle does not report between two looks.
        lost: share of intervals whose records never arrive.
    """

    drives_per_day: float = 4.0
    drives_shape: float = 1.5
    frames_per_drive: float = 30_000.0
    miss_rate: float = 1e-3
    crash_rate: float = 2e-4
    fault_rate: float = 1e-3
    spread: float = 0.8
    rare_spread: float = 1.0
    fate_shape: float = 2.0
    weather: float = 0.2
    drift: float = 0.02
    drift_spread: float = 0.4
    drift_noise: float = 0.3
    disagreement: float = 0.02
    offline: float = 0.15
    lost: float = 0.01

    def __post_init__(self) -> None:
        """Raises RolloutError for a fleet that cannot be."""
        if not 0 < self.offline < 1 or not self.lost < 1:
            raise RolloutError(f"got offline={self.offline:g}, lost={self.lost:g}; expected above 0 (offline), below 1")
        if min(self.drives_per_day, self.drives_shape, self.frames_per_drive, self.fate_shape) <= 0:
            raise RolloutError("drives_per_day, drives_shape, frames_per_drive, fate_shape: got 0, expected more")


@dataclass(frozen=True, slots=True)
class Regression:
    """What the candidate does to a vehicle: factors on rates, and a crash probability a drive on top."""

    misses: float = 1.0
    crashes: float = 1.0
    faults: float = 1.0
    output_drift: float = 1.0
    disagreement: float = 1.0
    crash_loop: float = 0.0


MOST = 1_000_000
_Numbers = TypeVar("_Numbers", FleetModel, Regression)


def numbers_of(kind: type[_Numbers], text: str) -> _Numbers:
    """A model or regression with some of its numbers changed, as `misses=1.3,crash_loop=0.05` says.

    Raises:
        RolloutError: an unknown name, no number, or one outside 0 to `MOST`.
    """
    known = [field.name for field in fields(kind)]
    changes: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            changes[name] = float(value)
        except ValueError:
            changes[name] = math.nan
        if name not in known or not 0 <= changes[name] <= MOST:
            raise RolloutError(f"{part}: expected NAME=NUMBER, 0 to {MOST:,}, with a name of {', '.join(known)}")
    return kind(**changes)


@dataclass(frozen=True, slots=True)
class Places:
    """(N,) every vehicle's place in the draw, as `perception.cohort` draws it from its id."""

    holdout: NDArray[np.bool_]
    share: Floats
    shadow: Floats


def drawn_places(size: int, holdout: float, random: np.random.Generator) -> Places:
    """Places of so many vehicles."""
    return Places(random.random(size) < holdout, random.random(size), random.random(size))


class SimulatedFleet:
    """One fleet through one rollout; every look advances its clock and gives the table a decision sees."""

    def __init__(self, places: Places, *, model: FleetModel, regression: Regression, seed: int) -> None:
        """Draw the vehicles.

        Args:
            places: of every vehicle.
            model: how they are.
            regression: what the candidate does.
            seed: the same seed gives the same fleet and the same drives.
        """
        self._random = np.random.default_rng(seed)
        self._model, self._regression, self._places = model, regression, places
        self._size = size = len(places.share)
        self._drives = self._random.gamma(model.drives_shape, model.drives_per_day / model.drives_shape, size)
        self._misses = self._spread(model.miss_rate, model.spread)
        self._crashes = self._spread(model.crash_rate, model.rare_spread)
        self._faults = self._spread(model.fault_rate, model.rare_spread)
        self._drift = self._spread(model.drift, model.drift_spread)
        self._disagreement = self._spread(model.disagreement, model.drift_spread)
        self._offline = self._random.beta(2 * model.offline, 2 * (1 - model.offline), size)
        self._installed = np.zeros(size, bool)
        self._now, self._before, self._waiting = (np.zeros((len(COLUMNS), size)) for _ in range(3))
        self._reports = np.zeros(size, bool)
        self.hours = 0.0

    @property
    def exposure(self) -> float:
        """Share of the fleet that has the candidate installed."""
        return float(self._installed.mean())

    def begin(self, stage: Stage) -> None:
        """A new stage: its evidence starts at nothing, and what was driven before without candidate explains it."""
        if not self._installed.any():
            self._before += self._now
        self._now[:], self._waiting[:] = 0.0, 0.0
        self._reports[:] = False
        places = self._places
        drawn = places.share < stage.share if stage.share > 0 else places.shadow < stage.shadow
        self._drawn = ~places.holdout & drawn
        self._shadowing = self._drawn if stage.share == 0 else np.zeros(self._size, bool)

    def drive(self, hours: float) -> VehicleTable:
        """Drive on for some hours; returns what has arrived of the current stage by then."""
        driven = self._interval(hours)
        online = self._random.random(self._size) >= self._offline
        arriving = self._random.random(self._size) >= self._model.lost
        on_plan = self._shadowing | (self._drawn == self._installed)
        self._waiting += np.where(arriving & on_plan, driven, 0.0)
        self._now += np.where(online, self._waiting, 0.0)
        self._waiting[:, online] = 0.0
        self._reports |= online & (driven[ROW["drives"]] > 0)
        self._installed |= online & self._drawn & ~self._shadowing
        self.hours += hours
        return self._table()

    def _interval(self, hours: float) -> Floats:
        """(C, N) what every vehicle does in the next hours."""
        model, random, regression = self._model, self._random, self._regression
        new = self._installed
        drives = random.poisson(self._drives * share_of_day(self.hours, hours)).astype(float)
        frames = np.round(drives * model.frames_per_drive * np.exp(random.normal(0, 0.3, self._size)))
        fate = random.gamma(np.maximum(drives, 1e-9) * model.fate_shape) / np.maximum(drives * model.fate_shape, 1e-9)
        weather = np.exp(random.normal(0, model.weather))
        misses = random.poisson(np.where(new, regression.misses, 1) * self._misses * fate * weather * frames)
        crash = np.where(new, regression.crashes, 1) * self._crashes + np.where(new, regression.crash_loop, 0)
        noise = np.exp(random.normal(0, model.drift_noise, (2, self._size)) / np.sqrt(np.maximum(drives, 1)))
        done = np.zeros((len(COLUMNS), self._size))
        done[ROW["drives"]] = drives
        done[ROW["crashed"]] = random.binomial(drives.astype(int), np.minimum(1, crash))
        fault = np.minimum(1, np.where(new, regression.faults, 1) * self._faults)
        done[ROW["faulty"]] = random.binomial(drives.astype(int), fault)
        done[ROW["frames"]], done[ROW["misses"]] = frames, np.minimum(misses, frames)
        done[ROW["input_drift"]] = drives * self._drift * noise[0] * weather
        done[ROW["output_drift"]] = (
            drives * self._drift * noise[1] * weather * np.where(new, regression.output_drift, 1)
        )
        for count, exposure, expected, lent in (
            ("misses", "frames", "misses_expected", LENT_MISSES),
            ("input_drift", "drives", "input_expected", 0.0),
            ("output_drift", "drives", "output_expected", 0.0),
        ):
            rate = _rate_of_control(done[ROW[count]], done[ROW[exposure]], ~new, lent)
            done[ROW[expected]] = done[ROW[exposure]] * rate
            done[ROW[count]] *= rate > 0
        if self._shadowing.any():
            compared = np.where(self._shadowing, np.round(frames / 10), 0)
            done[ROW["compared"]] = compared
            share = np.minimum(1, regression.disagreement * self._disagreement * fate)
            done[ROW["disagreed"]] = random.binomial(compared.astype(int), share)
        return done

    def _table(self) -> VehicleTable:
        now = {name: self._now[row] for name, row in ROW.items()}
        before = {name: self._before[row] for name, row in ROW.items()}
        known = (before["drives"] > 0) if before["drives"].any() else np.zeros(self._size, bool)
        now["silent"] = (known & ~self._reports).astype(float)
        return VehicleTable(self._drawn, now, before)

    def _spread(self, median: float, spread: float) -> Floats:
        drawn: Floats = median * np.exp(self._random.normal(0, spread, self._size))
        return drawn


def _rate_of_control(count: Floats, exposure: Floats, control: NDArray[np.bool_], lent: float) -> float:
    """Control's rate in the same hours; 0 where control did not drive, which nothing is compared with."""
    driven = float(exposure[control].sum())
    return (float(count[control].sum()) + lent) / driven if driven > 0 else 0.0


def share_of_day(from_h: float, hours: float) -> float:
    """Days' worth of driving between two instants; whole hours."""
    clock = (int(from_h) + np.arange(max(1, round(hours)))) % 24
    return float(HOURLY[clock].sum())
