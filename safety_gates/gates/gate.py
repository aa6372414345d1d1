"""The protocol every gate follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from safety_gates.evidence import KeptEvidence
    from safety_gates.trial import Trial
    from safety_gates.verdict import LeftOut, Measured

Comparison = Literal["at_least", "at_most"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something a gate measures.

    Attributes:
        unit: in which it is measured; "ratio" is a share in 0..1, "count" a whole number.
        comparison: the only sensible direction of a limit on it.
        task: kind of model it makes sense for; None for every kind.
        meaning: one line for documents and reports.
    """

    unit: str
    comparison: Comparison
    task: str | None
    meaning: str

    def applies_to(self, task: str) -> bool:
        """Whether a model of this task has the quantity."""
        return self.task in (None, task)


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Why a gate has no evidence, and what to give it."""

    why: str


class Gate(Protocol):
    """Measures once; reads its quantities from the evidence as often as asked: now, and when a release is signed."""

    @property
    def quantities(self) -> Mapping[str, Quantity]:
        """What it can measure, by name."""

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Evidence for this trial, re-used where nothing it is bound to changed.

        Raises:
            TollgateError: the recording, the labels or the engine fail.
        """

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured | LeftOut]:
        """The quantities in `wanted` from evidence alone: no engine, no recording. Equal evidence, equal figures.

        `LeftOut` only where the evidence shows that this package does not have the quantity.
        """
