"""A large simulated fleet: what `fleet.SimulatedFleet` says of every vehicle, drawn as counts of whole groups.

A decision about a large fleet reads two things. Rates and levels are read of a part of each group: a panel of single
vehicles drives here, as many of each group as `PANEL`. Events are counted over everybody. Vehicles are alike before
they are drawn, so of a group of n the number whose first event has arrived is binomial at every look, and from one
look to the next

    new ~ Binomial(n - so far, (A(k) - A(k-1)) / (1 - A(k-1)))

where A(k) is the probability that a vehicle's first event has arrived by look k. That is exact, and as much work for
ten million vehicles as for ten. A(k) is the mean over how vehicles differ (Gaussian quadrature; Golub & Welsch 1969),
of a vehicle that is in one of four states: without the candidate yet, without an event, with one that waits to be sent,
with one that arrived.

Left out: that two events of one vehicle, or an event in two stages, depend on each other. Crash loops are read of the
panel alone, which makes them harder to see than they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_genlaguerre, roots_hermitenorm, roots_jacobi  # type: ignore[import-untyped]

from safety_gates.rollout.quantities import Evidence, Quantity, VehicleTable
from safety_gates.rollout.randomization import Draw, Floats, Rates
from safety_gates.rollout.simulation.fleet import (
    FleetModel,
    Places,
    Regression,
    SimulatedFleet,
    share_of_day,
)
from safety_gates.rollout.stages import RolloutFile, Stage

PANEL = 1_000
NODES = 12
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LargeReports:
    """What arrived: of the panel by vehicle, of all others as counts. See `Reports`.

    Attributes:
        counts: by column, the vehicles with an event: (candidates, controls).
        sizes: (candidates, controls).
    """

    panel: VehicleTable
    counts: Mapping[str, tuple[int, int]]
    sizes: tuple[int, int]

    def events(self, quantity: Quantity) -> Draw:
        """See `Reports`."""
        if quantity.least > 1:
            return self.panel.events(quantity)
        hit, hit_control = self.counts[quantity.count]
        return Draw(hit, self.sizes[0], hit_control, self.sizes[1])

    def rates(self, quantity: Quantity) -> Rates:
        """See `Reports`."""
        return self.panel.rates(quantity)

    def levels(self, quantity: Quantity) -> Floats:
        """See `Reports`."""
        return self.panel.levels(quantity)

    def evidence(self, hours: float) -> Evidence:
        """See `Reports`; drives are the panel's, made as many as the groups are larger."""
        seen, (vehicles, controls) = self.panel.evidence(hours), self.counts["drives"]
        return Evidence(
            hours=hours,
            vehicles=vehicles,
            controls=controls,
            drives=round(seen.drives / max(1, seen.vehicles) * vehicles),
            control_drives=round(seen.control_drives / max(1, seen.controls) * controls),
            silent=sum(self.counts["silent"]),
        )


class LargeFleet:
    """One fleet through one rollout; the same use as `SimulatedFleet`."""

    def __init__(
        self, size: int, *, model: FleetModel, regression: Regression, plan: RolloutFile, seed: int, panel: int = PANEL
    ) -> None:
        """Draw the groups: who gets the candidate in which stage, and who never does.

        Args:
            size: how many vehicles.
            model: how they are.
            regression: what the candidate does.
            plan: its stages' shares part the fleet.
            seed: the same seed gives the same fleet and the same drives.
            panel: how many of each group drive one by one.
        """
        self._random = np.random.default_rng(seed)
        self._model, self._regression, self._size, self._panel_size = model, regression, size, panel
        self._edges = np.unique([0.0, *(stage.share for stage in plan.stages)])
        drawn = (1 - plan.holdout) * np.diff(self._edges)
        self._cohorts: Counts = self._random.multinomial(size, [*drawn, 1 - drawn.sum()])[:-1]
        self._holdout = plan.holdout
        self._panel = self._panel_of()
        self._nodes = _Nodes(model)
        self._installed_by_node = np.zeros((len(self._cohorts), *self._nodes.offline.shape))
        self._installed: Counts = np.zeros(len(self._cohorts), np.int64)
        self._known: Floats = np.zeros(self._nodes.weight.shape[:2])
        self._shadowing = True

    @property
    def hours(self) -> float:
        """Since the rollout began."""
        return self._panel.hours

    @property
    def exposure(self) -> float:
        """Share of the fleet that has the candidate installed."""
        return float(self._installed.sum()) / self._size

    def begin(self, stage: Stage) -> None:
        """A new stage; see `SimulatedFleet.begin`."""
        if self.hours > 0 and self._shadowing:
            self._known = 1 - (1 - self._known) * (1 - self._driven.arrived_by_node)
        self._panel.begin(stage)
        self._shadowing = stage.share == 0
        self._drawn = int(np.searchsorted(self._edges, stage.share))  # so many cohorts
        if self._shadowing:
            drawn = self._random.binomial(self._size, [(1 - self._holdout) * stage.shadow])
            self._count_anew(drawn, np.ones((1, *self._nodes.offline.shape)))
        else:
            self._count_anew(self._cohorts[: self._drawn], self._installed_by_node[: self._drawn])
        self._rows = self._ranked_rows()

    def _count_anew(self, drawn: Counts, installed: Floats) -> None:
        """Groups of a stage, control last, of which nothing has arrived yet."""
        nodes = self._nodes
        self._groups: Counts = np.array([*drawn, self._size - drawn.sum()])
        at_hand = nodes.weight * np.concatenate([installed, np.ones_like(installed[:1])])[:, None, :, None]
        self._driven, self._crashed, self._faulty = (_Arrivals(self._groups, at_hand) for _ in range(3))
        self._still_silent: Floats = nodes.weight.sum(axis=2) * self._known
        self._silent: Counts = self._random.binomial(self._groups, self._still_silent.sum())

    def drive(self, hours: float) -> LargeReports:
        """Drive on for some hours; returns what has arrived of the current stage by then."""
        share = share_of_day(self.hours, hours)
        table = self._panel.drive(hours)
        self._arrive(share)
        if not self._shadowing:
            self._install()
        counts = {
            "drives": self._driven.count,
            "crashed": self._crashed.count,
            "faulty": self._faulty.count,
            "silent": self._silent,
        }
        sizes = self._groups
        return LargeReports(
            table.of(self._rows),
            {name: (int(count[:-1].sum()), int(count[-1])) for name, count in counts.items()},
            (int(sizes[:-1].sum()), int(sizes[-1])),
        )

    def _arrive(self, share: float) -> None:
        """Draw how many vehicles of each group had their first event arrive."""
        model, nodes, worse = self._model, self._nodes, self._regression
        new = np.full(len(self._groups), not self._shadowing)[:, None, None, None]
        new[-1] = False
        drives = nodes.drives[:, None, None] * share
        crash = np.where(new, worse.crashes, 1.0) * (model.crash_rate * nodes.rare)
        crash = crash + np.where(new, worse.crash_loop, 0.0)
        fault = np.where(new, worse.faults, 1.0) * (model.fault_rate * nodes.rare)
        for arrivals, in_a_drive in ((self._driven, 1.0), (self._crashed, crash), (self._faulty, fault)):
            happens = -np.expm1(-drives * np.minimum(1.0, in_a_drive))
            arrivals.step(happens, nodes.offline, model.lost, self._random)
        before = self._still_silent.sum()
        self._still_silent *= 1 - (1 - nodes.offline) * -np.expm1(-drives[:, :, 0])
        stays = self._still_silent.sum() / before if before > 0 else 0.0
        self._silent = self._random.binomial(self._silent, min(1.0, stays))

    def _install(self) -> None:
        """Draw how many vehicles were online and have the candidate now."""
        weight, mine = self._nodes.offline_weight, slice(self._drawn)
        before = self._installed_by_node[mine] @ weight
        self._installed_by_node[mine] = 1 - (1 - self._installed_by_node[mine]) * self._nodes.offline
        self._installed[mine] += _newly(
            self._random,
            self._cohorts[mine] - self._installed[mine],
            before,
            self._installed_by_node[mine] @ weight,
        )

    def _panel_of(self) -> SimulatedFleet:
        """Single vehicles, as many of each cohort and of the rest as the panel takes; the rest stands last."""
        rest = self._size - int(self._cohorts.sum())
        taken = np.minimum([*self._cohorts, rest], self._panel_size)
        middles = [*((self._edges[:-1] + self._edges[1:]) / 2), 1.0]
        self._cohort_of_row = np.repeat(np.arange(len(taken)), taken)
        places = Places(
            holdout=self._cohort_of_row == len(taken) - 1,
            share=np.repeat(middles, taken),
            shadow=self._random.random(int(taken.sum())),
        )
        seed = int(self._random.integers(2**63))
        return SimulatedFleet(places, model=self._model, regression=self._regression, seed=seed)

    def _ranked_rows(self) -> NDArray[np.int64]:
        """Rows of the panel that stand for the stage's groups: drawn cohorts in their proportion, and control."""
        if self._shadowing:
            return np.arange(len(self._cohort_of_row))
        drawn = self._cohorts[: self._drawn]
        wanted = min(self._panel_size, int(drawn.sum()))
        parts = self._random.multivariate_hypergeometric(drawn, wanted)
        rows = [np.flatnonzero(self._cohort_of_row == cohort)[:count] for cohort, count in enumerate(parts)]
        control = np.flatnonzero(self._cohort_of_row >= self._drawn)[: self._panel_size]
        return np.concatenate([*rows, control])


class _Nodes:
    """How vehicles differ, as the nodes and weights of quadratures: drives a day, offline, rare events."""

    def __init__(self, model: FleetModel) -> None:
        drives, of_drives = roots_genlaguerre(NODES, model.drives_shape - 1)
        offline, of_offline = roots_jacobi(NODES, 2 * (1 - model.offline) - 1, 2 * model.offline - 1)
        rare, of_rare = roots_hermitenorm(NODES)
        self.drives: Floats = drives * model.drives_per_day / model.drives_shape
        self.offline: Floats = (1 + offline) / 2
        self.rare: Floats = np.exp(model.rare_spread * rare)
        self.offline_weight: Floats = of_offline / of_offline.sum()
        parts = (of_drives / of_drives.sum(), self.offline_weight, of_rare / of_rare.sum())
        self.weight: Floats = np.einsum("i,j,k->ijk", *parts)


class _Arrivals:
    """In how many vehicles of each group a first event has arrived."""

    def __init__(self, sizes: Counts, at_hand: Floats) -> None:
        """Args are (G,) sizes and the (G, drives, offline, rare) probability that a vehicle runs what it shall."""
        self._sizes = sizes
        self._weight = at_hand[-1]  # control runs it always
        self._away, self._clean = self._weight - at_hand, at_hand
        self._waiting: Floats = np.zeros(at_hand.shape)
        self.count: Counts = np.zeros(len(sizes), np.int64)

    @property
    def arrived_by_node(self) -> Floats:
        """(drives, offline) in what share of control's vehicles of a node it arrived."""
        left = (self._clean + self._waiting)[-1].sum(axis=2)
        share: Floats = 1 - left / self._weight.sum(axis=2)
        return share

    def step(self, event: Floats, offline: Floats, lost: float, random: np.random.Generator) -> None:
        """One interval; `event` is the ((G,) drives, 1, rare) probability that it happens in a vehicle."""
        before = self._arrived()
        stays, offline = 1 - event * (1 - lost), offline[:, None]
        self._waiting = (self._waiting + self._clean * (1 - stays)) * offline
        self._clean = self._clean * stays + self._away * (1 - offline)
        self._away = self._away * offline
        self.count += _newly(random, self._sizes - self.count, before, self._arrived())

    def _arrived(self) -> Floats:
        arrived: Floats = 1 - (self._away + self._clean + self._waiting).sum(axis=(1, 2, 3))
        return arrived


def _newly(random: np.random.Generator, left: Counts, before: Floats, after: Floats) -> Counts:
    """(G,) how many of those left did it between two instants, by the share that had by each."""
    chance = (after - before) / np.maximum(1 - before, 1e-300)
    new: Counts = random.binomial(left, np.clip(chance, 0.0, 1.0))
    return new
