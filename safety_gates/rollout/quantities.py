"""What is watched in the field, and the figures of every vehicle that it is read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from safety_gates.rollout.randomization import Draw, Flags, Floats, Rates

Kind = Literal["event", "rate", "level"]
# Control's figures are never taken to be nothing at all: against nothing, no rate could be called high.
LENT_MISSES, LENT_DRIFT = 0.5, 1e-6


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity.

    Attributes:
        kind: "event": a vehicle had one or not. "rate": so many where so many were expected, against control and the
            time before. Expected is what control had in the same hours over the same frames: a vehicle that got the
            candidate on a rainy day is compared with control on that day.
            "level": a share against a fixed limit, because control has no such figure.
        count, exposure: columns of `VehicleTable`; an event has no exposure.
        rare: whether it counts rare events.
        says: for people.
        least, share: an event is so many, in such a share of the vehicle's drives.
    """

    kind: Kind
    count: str
    exposure: str
    rare: bool
    says: str
    least: float = 1.0
    share: float = 0.0


QUANTITIES: dict[str, Quantity] = {
    "crashes": Quantity("event", "crashed", "", False, "vehicles with a drive that did not end cleanly"),
    "faults": Quantity("event", "faulty", "", False, "vehicles that raised a fault flag"),
    "silence": Quantity("event", "silent", "", False, "vehicles that reported before and no longer do"),
    "crash_loops": Quantity(
        "event", "crashed", "", False, "vehicles that crashed three times and in half of their drives", 3, 0.5
    ),
    "deadline_misses": Quantity("rate", "misses", "misses_expected", True, "frames without a result in time"),
    "input_drift": Quantity(
        "rate", "input_drift", "input_expected", False, "divergence of the input from the reference"
    ),
    "output_drift": Quantity(
        "rate", "output_drift", "output_expected", False, "divergence of the output from the reference"
    ),
    "shadow_disagreement": Quantity(
        "level", "disagreed", "compared", True, "objects or cells that only shadow or vehicle reports"
    ),
}
COLUMNS = (
    *("drives", "crashed", "faulty", "silent", "frames", "misses", "misses_expected"),
    *("input_drift", "input_expected", "output_drift", "output_expected", "disagreed", "compared"),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was driven in the stage so far."""

    hours: float
    vehicles: int
    controls: int
    drives: int
    control_drives: int
    silent: int


class Reports(Protocol):
    """What the vehicles reported in a stage, as a decision asks for it."""

    def events(self, quantity: Quantity) -> Draw:
        """How many vehicles of each group had one: so many, and in such a share of their drives."""

    def rates(self, quantity: Quantity) -> Rates:
        """The rate of every vehicle that drove."""

    def levels(self, quantity: Quantity) -> Floats:
        """(M,) the share of every drawn vehicle that has one."""

    def evidence(self, hours: float) -> Evidence:
        """What stands behind all this, `hours` after the stage began."""


@dataclass(frozen=True, slots=True)
class VehicleTable:
    """One row a vehicle: what it reported in this stage, and before the candidate came.

    Attributes:
        candidate: (N,) drawn for the candidate, or for the shadow in a stage without candidates; the rest is control.
        now: (N,) by column of `COLUMNS`, since the stage began.
        before: (N,) the same of the time before, for the rates' columns.
    """

    candidate: Flags
    now: Mapping[str, NDArray[np.float64]]
    before: Mapping[str, NDArray[np.float64]]

    def of(self, rows: NDArray[np.int64]) -> VehicleTable:
        """Some of its vehicles."""
        now, before = ({name: column[rows] for name, column in each.items()} for each in (self.now, self.before))
        return VehicleTable(self.candidate[rows], now, before)

    def events(self, quantity: Quantity) -> Draw:
        """See `Reports`."""
        count, candidate = self.now[quantity.count], self.candidate
        had = (count >= quantity.least) & (count >= quantity.share * self.now["drives"])
        hit, drawn = int(np.count_nonzero(had & candidate)), int(candidate.sum())
        return Draw(hit, drawn, int(had.sum()) - hit, len(candidate) - drawn)

    def rates(self, quantity: Quantity) -> Rates:
        """See `Reports`."""
        count, exposure = quantity.count, quantity.exposure
        return Rates(
            self.candidate,
            self.now[count],
            self.now[exposure],
            self.before[count],
            self.before[exposure],
            rare=quantity.rare,
        ).driven()

    def levels(self, quantity: Quantity) -> Floats:
        """See `Reports`."""
        exposure = self.now[quantity.exposure]
        measured = self.candidate & (exposure > 0)
        shares: Floats = self.now[quantity.count][measured] / exposure[measured]
        return shares

    def evidence(self, hours: float) -> Evidence:
        """See `Reports`."""
        drives, candidate = self.now["drives"], self.candidate
        return Evidence(
            hours=hours,
            vehicles=int(np.count_nonzero(candidate & (drives > 0))),
            controls=int(np.count_nonzero(~candidate & (drives > 0))),
            drives=int(drives[candidate].sum()),
            control_drives=int(drives[~candidate].sum()),
            silent=int(np.count_nonzero(self.now["silent"])),
        )
