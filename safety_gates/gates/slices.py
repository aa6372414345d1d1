"""The slice gate: an average hides the night, the far pedestrian, the half-hidden child; the worst slice decides.

Objects are looked for at the score threshold of the ModelSpec, as whoever uses the package sees them, and counted found
where a detection of their group overlaps them by at least 0.5, best score first, each detection finding one object.
Recall and not average precision, since what is detected wrongly has no distance and is not hidden.

Two figures: recall itself, which needs labels alone, and the recall lost against the float model on the same objects.
Many slices are looked at, so the intervals hold for all of them at once (Bonferroni, Dunn 1961): without it one slice
in twenty would fail by chance alone. To pass, all slices must pass, and that needs no correction (intersection-union
test, Berger 1982); it gets one all the same, since one interval serves both. Slices with fewer objects than the setting
`least_objects` decide nothing: they are named, and keep the claim INCONCLUSIVE. Objects lower than `least_height_px`
are in no slice: what nobody could be asked to find would be the worst slice of every engine. Of masks the accuracy gate
judges the worst class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.class_map import ClassMap
from compile.labels import LabelledFrame
from perception.agreement import overlaps_of
from perception.package import EnginePackage
from perception.results import Detections
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.gates.parity import SAME, says_the_same
from safety_gates.looks import Observation
from safety_gates.object_slices import Situated, groups_asked_for, order_of, slices_of
from safety_gates.statistics import clustered_proportion_interval, paired_loss_interval, simultaneous_confidence
from safety_gates.trial import Trial
from safety_gates.truth import Truth
from safety_gates.verdict import Measured
from safety_gates.worst import Part, bounded, worst_of

OVERLAP = 0.5
QUANTITIES: Mapping[str, Quantity] = {
    "worst_recall": Quantity("ratio", "at_least", "detection", "share of the objects found, worst slice"),
    "worst_loss": Quantity(
        "ratio", "at_most", "detection", "share of the objects lost against the float model, worst slice"
    ),
}
SETTINGS = {"least_objects": 30.0, "least_height_px": 25.0}
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """Objects of one slice frame by frame, each (F,).

    Attributes:
        labelled: objects asked for.
        found: those the engine finds.
        lost: those the reference finds and the engine does not; zeros without a reference.
        won: the other way round.
    """

    labelled: Counts
    found: Counts
    lost: Counts
    won: Counts


class SlicesGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES
    settings = SETTINGS

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Look for every labelled object in the results of package and reference, and count slice by slice."""
        truth = trial.truth
        if truth is None:
            return Unmeasured("there is no ground truth; give it with --labels PATH")
        settings: dict[str, JsonValue] = {name: trial.setting("slices", name) for name in SETTINGS}
        settings |= {"class_map": truth.class_map.model_dump(mode="json"), "overlap": OVERLAP}
        wanted = trial.conditions("slices", looks_at=("recording", "labels", "reference"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial, truth))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """The worst slice of each figure."""
        return {name: _worst(evidence, name) for name in wanted}


def slice_parts(evidence: KeptEvidence, quantity: str) -> tuple[Part, ...]:
    """Every slice's own figure, all intervals at once; none where there is no reference to lose against."""
    counts = slice_counts(evidence)
    least = float(str(evidence.evidence.conditions.settings["least_objects"]))
    confidence = simultaneous_confidence(len(counts))
    if quantity == "worst_recall":
        return tuple(bounded(_recall(name, each, confidence), least, (0.0, 1.0)) for name, each in counts.items())
    if evidence.evidence.conditions.reference is None:
        return ()
    return tuple(bounded(_loss(name, each, confidence), least, (-1.0, 1.0)) for name, each in counts.items())


def slice_counts(evidence: KeptEvidence) -> dict[str, SliceCounts]:
    """The counts that were kept, slice by slice in the order of their kinds."""
    names = evidence.evidence.values["slices"]
    table = np.asarray(evidence.arrays["counts"], np.int64)
    return {str(name): SliceCounts(*rows) for name, rows in zip(cast("list[str]", names), table, strict=True)}


def found_objects(
    result: Detections, truth: LabelledFrame, class_map: ClassMap, classes: Sequence[str]
) -> list[tuple[Situated, bool]]:
    """Every object that is asked for in a frame, and whether a detection of its group finds it."""
    found: list[tuple[Situated, bool]] = []
    for name, group in class_map.groups.items():
        asked = [each for each in truth.objects if name in groups_asked_for(each, class_map)]
        answers = np.isin(result.class_ids, [classes.index(each) for each in group.model])
        hits = _hits(result.boxes_px[answers], np.array([each.box_px for each in asked], np.float32).reshape(-1, 4))
        found += [(Situated(each, name, truth), bool(hit)) for each, hit in zip(asked, hits, strict=True)]
    return found


def _hits(boxes_px: NDArray[np.float32], asked_px: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(M,) which objects are found: boxes come best score first, each finds the free object it overlaps most."""
    overlap = overlaps_of(boxes_px, asked_px)
    hits = np.zeros(len(asked_px), np.bool_)
    for row in overlap if len(asked_px) else ():
        row[hits] = 0.0
        if row.max() >= OVERLAP:
            hits[row.argmax()] = True
    return hits


def _observe(trial: Trial, truth: Truth) -> Observation:
    case = trial.case
    ours = _found(trial, case.package, truth)
    theirs = ours if case.reference is None else _found(trial, case.reference, truth)
    least_px = trial.setting("slices", "least_height_px")
    counts: defaultdict[str, Counts] = defaultdict(lambda: np.zeros((4, len(ours)), np.int64))
    for position, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for (each, found), (_, reference_found) in zip(mine, other, strict=True):
            row = (1, found, reference_found and not found, found and not reference_found)
            for name in slices_of(each) if each.height_px >= least_px else ():
                counts[name][:, position] += row
    names = sorted(counts, key=order_of)
    table = np.array([counts[name] for name in names], np.int64).reshape(-1, 4, len(ours))
    same = case.reference is not None and says_the_same(case.package, case.reference)
    return Observation(len(ours), {"slices": [*names], "same": same}, {"counts": table})


def _found(trial: Trial, package: EnginePackage, truth: Truth) -> list[list[tuple[Situated, bool]]]:
    """The labelled frames' objects, each with whether the package finds it."""
    log, threshold = trial.result_log(package), package.spec.decoding.score_threshold
    pairs: Iterable[tuple[object, object]] = zip(log.results, truth.of_all(log.frames), strict=True)
    return [
        found_objects(result.at_least(threshold), labelled, truth.class_map, package.spec.classes)
        for result, labelled in pairs
        if isinstance(result, Detections) and isinstance(labelled, LabelledFrame)
    ]


def _recall(name: str, counts: SliceCounts, confidence: float) -> Part:
    objects = int(counts.labelled.sum())
    interval = clustered_proportion_interval(counts.found, counts.labelled, confidence)
    return Part(name, float(counts.found.sum() / objects), objects, interval)


def _loss(name: str, counts: SliceCounts, confidence: float) -> Part:
    objects = int(counts.labelled.sum())
    interval = paired_loss_interval(counts.lost, counts.won, counts.labelled, confidence)
    return Part(name, float((counts.lost.sum() - counts.won.sum()) / objects), objects, interval)


def _worst(evidence: KeptEvidence, quantity: str) -> Measured:
    if quantity == "worst_loss" and evidence.evidence.conditions.reference is None:
        note = "there is no float model to compare with; give it with --reference FLOAT_PACKAGE"
        return Measured(None, 0, "objects", note=note, evidence=evidence.sha256)
    if quantity == "worst_loss" and evidence.evidence.values["same"]:
        return Measured(0.0, evidence.evidence.samples, "frames", note=SAME, evidence=evidence.sha256)
    least = float(str(evidence.evidence.conditions.settings["least_objects"]))
    parts = slice_parts(evidence, quantity)
    comparison = QUANTITIES[quantity].comparison
    lower_px = float(str(evidence.evidence.conditions.settings["least_height_px"]))
    measured = worst_of(parts, comparison, sampled="objects", least=least, evidence=evidence.sha256)
    # An object stands in one slice of each kind; it is one sample all the same.
    samples = sum(part.samples for part in parts if part.name.startswith("class: "))
    return replace(measured, samples=samples, note=f"{measured.note}; objects under {lower_px:g} px left out")
