"""The parity gate: does the engine say what the float model says, on the same frames.

What was validated is the float model. Detections are compared at the score threshold of the ModelSpec, as whoever uses
them sees them: an object agrees where both report it with the same class and an overlap (IoU) of at least 0.5. Scores
and boxes of those that agree may still differ, and that is measured too. Objects of one frame agree and differ
together, so the intervals count frames as clusters. Needs no labels; needs a reference.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.agreement import overlaps_of
from perception.package import EnginePackage
from perception.results import Detections, Result, SegmentationMap
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Look, Observation
from safety_gates.statistics import bootstrap_intervals, clustered_proportion_interval
from safety_gates.trial import Trial
from safety_gates.verdict import Measured

OVERLAP = 0.5
SAME = "engine and ModelSpec are the same, byte for byte"
COUNTS = ("agreed", "missed", "ghosts", "equal", "pixels")
SUMS = {"score_difference": "score_difference_sum", "box_difference": "box_difference_sum"}
QUANTITIES: Mapping[str, Quantity] = {
    "agreement": Quantity(
        "ratio", "at_least", "detection", "share of the reference's objects that the engine reports too"
    ),
    "ghosts": Quantity(
        "ratio", "at_most", "detection", "share of the engine's objects that the reference does not report"
    ),
    "score_difference": Quantity(
        "ratio", "at_most", "detection", "how far apart the scores of objects are that both report, on average"
    ),
    "box_difference": Quantity(
        "ratio", "at_most", "detection", "1 − overlap (IoU) of the boxes of objects that both report, on average"
    ),
    "mask_agreement": Quantity(
        "ratio", "at_least", "segmentation", "share of the pixels that both give the same class"
    ),
}


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two models' objects in one frame.

    Attributes:
        pairs: (P, 2) index of an object of the reference, index of the engine's object that agrees with it.
        missed: indices of the reference's objects without a partner.
        ghosts: indices of the engine's objects without a partner.
    """

    pairs: NDArray[np.intp]
    missed: NDArray[np.intp]
    ghosts: NDArray[np.intp]


class ParityGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def looks(self, trial: Trial) -> Sequence[Look]:
        """The results of both packages."""
        return () if trial.case.reference is None else trial.results_looks()

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Compare both packages' results frame by frame."""
        reference = trial.case.reference
        if reference is None:
            return Unmeasured("there is no float model to compare with; give it with --reference FLOAT_PACKAGE")
        wanted = trial.conditions("parity", looks_at=("recording", "reference"), settings={"overlap": OVERLAP})
        return trial.obtain(wanted, lambda: _observe(trial, reference))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Shares of objects, or of pixels."""
        counts = {name: np.asarray(array, np.int64) for name, array in evidence.arrays.items() if name in COUNTS}
        if evidence.evidence.values["task"] == "segmentation":
            shares = {"mask_agreement": (counts["equal"], counts["pixels"], "frames")}
        else:
            agreed, missed, ghosts = counts["agreed"], counts["missed"], counts["ghosts"]
            shares = {"agreement": (agreed, agreed + missed, "objects"), "ghosts": (ghosts, agreed + ghosts, "objects")}
        return {
            name: _difference(evidence, SUMS[name]) if name in SUMS else _share(*shares[name], evidence.sha256)
            for name in wanted
        }


def paired(reference: Detections, engine: Detections) -> Pairing:
    """Pair objects of equal class: the reference's best score first, with the largest overlap that is still free.

    Counts what `compile.accuracy.agreement` counts, and says which objects they are.
    """
    overlap = overlaps_of(reference.boxes_px, engine.boxes_px)
    overlap[reference.class_ids[:, None] != engine.class_ids[None, :]] = 0.0
    pairs: list[tuple[int, int]] = []
    for index in range(len(reference) if len(engine) else 0):
        partner = int(overlap[index].argmax())
        if overlap[index, partner] >= OVERLAP:
            overlap[:, partner] = 0.0
            pairs.append((index, partner))
    found = np.array(pairs, np.intp).reshape(-1, 2)
    missed = np.setdiff1d(np.arange(len(reference)), found[:, 0])
    return Pairing(found, missed, np.setdiff1d(np.arange(len(engine)), found[:, 1]))


def reported(package: EnginePackage, results: Sequence[Result]) -> list[Detections]:
    """The detections that whoever uses the package sees: those from the spec's score threshold on."""
    threshold = package.spec.decoding.score_threshold
    return [result.at_least(threshold) for result in results if isinstance(result, Detections)]


def says_the_same(package: EnginePackage, rival: EnginePackage) -> bool:
    """Whether two packages hold the same engine, fed and read the same way: no frame can tell them apart."""
    return (package.engine_sha256, package.spec) == (rival.engine_sha256, rival.spec)


def differences(evidence: KeptEvidence) -> NDArray[np.float64]:
    """(F,) how much the two models differ in each frame: objects that only one reports, or the share of pixels."""
    arrays = {name: np.asarray(array, np.float64) for name, array in evidence.arrays.items()}
    if evidence.evidence.values["task"] == "segmentation":
        return 1 - arrays["equal"] / arrays["pixels"]
    return arrays["missed"] + arrays["ghosts"]


def _observe(trial: Trial, reference: EnginePackage) -> Observation:
    package = trial.case.package
    task = package.spec.task
    logs = [trial.result_log(each) for each in (reference, package)]
    if task == "segmentation":
        arrays = _compare_maps(logs[0].results, logs[1].results)
    else:
        arrays = _compare_detections(reported(reference, logs[0].results), reported(package, logs[1].results))
    same = says_the_same(package, reference)
    return Observation(len(logs[0].frames), {"task": task, "same": same}, arrays)


def _compare_detections(
    reference: Sequence[Detections], engine: Sequence[Detections]
) -> dict[str, NDArray[np.generic]]:
    frames = [(paired(theirs, ours), theirs, ours) for theirs, ours in zip(reference, engine, strict=True)]
    scores = [ours.scores[p.pairs[:, 1]] - theirs.scores[p.pairs[:, 0]] for p, theirs, ours in frames]
    boxes = [1 - _overlaps_of_pairs(p, theirs, ours) for p, theirs, ours in frames]
    return {
        "agreed": np.array([len(pairing.pairs) for pairing, _, _ in frames], np.int64),
        "missed": np.array([len(pairing.missed) for pairing, _, _ in frames], np.int64),
        "ghosts": np.array([len(pairing.ghosts) for pairing, _, _ in frames], np.int64),
        "score_difference": np.concatenate([np.zeros(0, np.float32), *scores]),
        "box_difference": np.concatenate([np.zeros(0), *boxes]),
        "score_difference_sum": np.array([np.abs(each).sum() for each in scores], np.float64),
        "box_difference_sum": np.array([each.sum() for each in boxes], np.float64),
    }


def _overlaps_of_pairs(pairing: Pairing, theirs: Detections, ours: Detections) -> NDArray[np.float64]:
    between = overlaps_of(theirs.boxes_px, ours.boxes_px)
    of_pairs: NDArray[np.float64] = between[pairing.pairs[:, 0], pairing.pairs[:, 1]]
    return of_pairs


def _compare_maps(reference: Sequence[Result], engine: Sequence[Result]) -> dict[str, NDArray[np.generic]]:
    maps = [
        _of_one_size(theirs, ours)
        for theirs, ours in zip(reference, engine, strict=True)
        if isinstance(theirs, SegmentationMap) and isinstance(ours, SegmentationMap)
    ]
    return {
        "equal": np.array([np.sum(theirs == ours) for theirs, ours in maps], np.int64),
        "pixels": np.array([theirs.size for theirs, _ in maps], np.int64),
    }


def _of_one_size(first: SegmentationMap, second: SegmentationMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two maps cell by cell, or pixel by pixel of the source where their grids differ."""
    if first.class_ids.shape == second.class_ids.shape:
        return first.class_ids, second.class_ids
    return first.at_source_size(), second.at_source_size()


def _share(good: NDArray[np.int64], total: NDArray[np.int64], sampled: str, sha256: str) -> Measured:
    """The share over all frames with its interval; where pixels are counted, the frames are the samples."""
    count = int(total.sum())
    samples = len(total) if sampled == "frames" else count
    if count == 0:
        note = f"no {sampled} to compare; record scenes that hold some"
        return Measured(None, 0, sampled, note=note, evidence=sha256)
    interval = clustered_proportion_interval(good, total)
    return Measured(float(good.sum() / count), samples, sampled, interval, evidence=sha256)


def _difference(evidence: KeptEvidence, sums: str) -> Measured:
    """A mean over the objects both report; frames are drawn whole: what shifts one box of a frame shifts others."""
    total, count = np.asarray(evidence.arrays[sums], np.float64), np.asarray(evidence.arrays["agreed"], np.int64)
    objects = int(count.sum())
    if objects == 0:
        note = "the two models report no object in common"
        return Measured(None, 0, "objects", note=note, evidence=evidence.sha256)

    if evidence.evidence.values["same"]:
        return Measured(0.0, objects, "objects", note=SAME, evidence=evidence.sha256)

    def mean(draws: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = int(draws @ count)
        return np.array([draws @ total / drawn if drawn else np.nan])

    (interval,) = bootstrap_intervals(mean, len(count))
    return Measured(float(total.sum() / objects), objects, "objects", interval, evidence=evidence.sha256)
