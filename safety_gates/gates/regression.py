"""The non-regression gate: is the engine as right as what it replaces, on the same frames.

Two comparisons: with the float model it was compiled from, and with the package that was released before it. Both are
paired: every draw of the bootstrap takes the same frames for both sides, so what makes a frame hard cancels out and a
small loss shows on few frames. A claim passes only if the whole interval of the loss lies inside the limit.

An engine of exactly the same bytes, fed and read by the same ModelSpec, loses nothing by construction: then the loss is
a plain fact without an interval. Who releases for the first time says so (`--first-release`) and is not asked what was
lost against a release; silence is INCONCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import DetectionMatches, MaskMatches
from compile.average_precision import GroupMatches
from compile.pixel_overlap import GroupPixels
from perception.package import EnginePackage
from safety_gates.evidence import KeptEvidence, strings
from safety_gates.gates.accuracy import accuracy_of, groups_in
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.gates.parity import SAME, says_the_same
from safety_gates.looks import Look, Observation
from safety_gates.statistics import LEAST_FRAMES, bootstrap_draws, intervals_of_shares
from safety_gates.trial import Trial
from safety_gates.verdict import LeftOut, Measured

RIVALS = {"reference": "the float model", "release": "the last release"}
FIRST_RELEASE = "nothing was released before: said with --first-release"
ABSENT = {
    "reference": "there is no float model to compare with; give it with --reference FLOAT_PACKAGE",
    "release": "the last release was not given; give it with --last-release PACKAGE, or say --first-release",
}
Draws = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of accuracy: of which kind of model, what it is called, and how it is read from all its matches."""

    task: str
    words: str
    of: Callable[[Any, Draws | None], float]


FIGURES: Mapping[str, _Figure] = {
    "ap50": _Figure("detection", "AP50", lambda matches, draws: matches.ap50(draws)),
    "ap50_95": _Figure("detection", "AP50-95", lambda matches, draws: matches.accuracy(draws).ap50_95),
    "miou": _Figure("segmentation", "mIoU", lambda matches, draws: matches.accuracy(draws).miou),
}
QUANTITIES: Mapping[str, Quantity] = {
    f"{name}_loss_to_{rival}": Quantity("ratio", "at_most", figure.task, f"{figure.words} lost against {words}")
    for rival, words in RIVALS.items()
    for name, figure in FIGURES.items()
}


class RegressionGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def looks(self, trial: Trial) -> Sequence[Look]:
        """The results of the package and of its rivals."""
        return () if trial.truth is None else trial.results_looks()

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Join the accuracy of the package with that of its rivals."""
        case = trial.case
        rivals = {"reference": case.reference, "release": case.last_release}
        kept = {"engine": accuracy_of(trial, case.package)}
        kept |= {name: accuracy_of(trial, rival) for name, rival in rivals.items() if rival is not None}
        found = {name: each for name, each in kept.items() if isinstance(each, KeptEvidence)}
        if len(found) < len(kept):
            return next(each for each in kept.values() if isinstance(each, Unmeasured))
        if len(found) == 1 and not case.first_release:
            return Unmeasured("; ".join(ABSENT.values()))
        settings: dict[str, JsonValue] = {f"accuracy of {name}": each.sha256 for name, each in found.items()}
        settings["first_release"] = case.first_release
        wanted = trial.conditions("regression", looks_at=("recording", "labels", "reference"), settings=settings)
        same: list[JsonValue] = [
            name for name, rival in rivals.items() if rival is not None and says_the_same(case.package, rival)
        ]
        packages = {name: each for name, each in {"engine": case.package, **rivals}.items() if each is not None}
        return trial.obtain(wanted, lambda: _observe(trial, packages, same))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured | LeftOut]:
        """Losses with their paired intervals; none to a release where nothing was released before."""
        return {name: _read(evidence, *name.split("_loss_to_")) for name in wanted}


def _observe(trial: Trial, packages: Mapping[str, EnginePackage], same: list[JsonValue]) -> Observation:
    sides = {name: accuracy_of(trial, each) for name, each in packages.items()}
    found = {name: each for name, each in sides.items() if isinstance(each, KeptEvidence)}
    ours = found["engine"].evidence
    arrays = {f"{side}_{name}": array for side, each in found.items() for name, array in each.arrays.items()}
    kept = {name: ours.values[name] for name in ("task", "groups")}
    return Observation(ours.samples, {**kept, "sides": [*found], "same": same}, arrays)


def _read(evidence: KeptEvidence, figure: str, rival: str) -> Measured | LeftOut:
    settings, values = evidence.evidence.conditions.settings, evidence.evidence.values
    if rival == "release" and settings["first_release"]:
        return LeftOut(FIRST_RELEASE)
    if rival not in strings(values["sides"]):
        return Measured(None, 0, "frames", note=ABSENT[rival], evidence=evidence.sha256)
    frames = evidence.evidence.samples
    if rival in strings(values["same"]):
        return Measured(0.0, frames, "frames", note=SAME, evidence=evidence.sha256)
    ours, theirs = (side_of(evidence, side, figure) for side in ("engine", rival))
    draws = bootstrap_draws(frames)
    drawn = theirs.drawn(draws) - ours.drawn(draws)
    (interval,) = intervals_of_shares(drawn[:, None], frames, lowest=-1.0)
    note = f"{FIGURES[figure].words} {theirs.got:.3f} → {ours.got:.3f}"
    remedy = f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else ""
    return Measured(
        theirs.got - ours.got, frames, "frames", interval, note=note, remedy=remedy, evidence=evidence.sha256
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One figure of one side of a comparison."""

    matches: DetectionMatches | MaskMatches
    figure: str

    @property
    def got(self) -> float:
        """Over all frames."""
        return FIGURES[self.figure].of(self.matches, None)

    def drawn(self, draws: Draws) -> NDArray[np.float64]:
        """(R,) over each of (R, F) draws of frames; NaN where nothing is labelled in them."""
        if isinstance(self.matches, DetectionMatches):
            matches = self.matches
            return matches.ap50_of_draws(draws) if self.figure == "ap50" else matches.ap50_95_of_draws(draws)
        return np.array([FIGURES[self.figure].of(self.matches, draw) for draw in draws])


def side_of(evidence: KeptEvidence, side: str, figure: str) -> Side:
    """A figure of the matches that were kept under the name of a side."""
    frames, prefix = evidence.evidence.samples, f"{side}_"
    names = strings(evidence.evidence.values["groups"])
    if FIGURES[figure].task == "detection":
        return Side(DetectionMatches(groups_in(evidence.arrays, names, GroupMatches, prefix), frames), figure)
    return Side(MaskMatches(groups_in(evidence.arrays, names, GroupPixels, prefix), frames), figure)
