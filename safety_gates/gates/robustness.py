"""The robustness gate: how much accuracy is left when the picture is spoilt.

Noise, blur, wrong exposure, low contrast, hard compression, fog, rain and a dirty lens, each at severities 1 to 5
(`safety_gates.corruptions`), on a subset of the labelled frames that is spread evenly over the recording: the setting
`pictures` says how many. The drop is relative to the same frames unspoilt, whose results are those every gate shares.

`mean_drop` is one less relative performance under corruption (rPC of Michaelis et al. 2019, arXiv:1907.07484), over all
kinds and severities. `worst_drop` is that of the kind that costs most, over its severities; the intervals of all kinds
hold at once (Bonferroni, Dunn 1961). Spoilt frames are drawn together with their unspoilt twins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from compile.accuracy import LOWEST_SCORE, DetectionMatches, MaskMatches
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import Pipeline, open_pipeline, threads_of
from perception.results import Result
from safety_gates.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.accuracy import matched
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Observation
from safety_gates.statistics import (
    LEAST_FRAMES,
    bootstrap_draws,
    intervals_of_shares,
    simultaneous_confidence,
)
from safety_gates.trial import Trial
from safety_gates.truth import Truth
from safety_gates.verdict import Measured
from safety_gates.worst import Part, worst_of

QUANTITIES: Mapping[str, Quantity] = {
    "mean_drop": Quantity("ratio", "at_most", None, "share of AP50 or mIoU lost on spoilt pictures, mean of all kinds"),
    "worst_drop": Quantity("ratio", "at_most", None, "share of AP50 or mIoU lost on spoilt pictures, worst kind"),
}
SETTINGS = {"pictures": 32.0}
CELLS = tuple((kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES)
Matches = DetectionMatches | MaskMatches


class RobustnessGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES
    settings = SETTINGS

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Run spoilt frames through the package and match them with the labels."""
        truth = trial.truth
        if truth is None:
            return Unmeasured("there is no ground truth; give it with --labels PATH")
        settings: dict[str, JsonValue] = {name: trial.setting("robustness", name) for name in SETTINGS}
        settings["class_map"] = truth.class_map.model_dump(mode="json")
        wanted = trial.conditions("robustness", looks_at=("recording", "labels"), settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial, truth))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Mean and worst drop with their intervals."""
        readers = {"mean_drop": _mean_drop, "worst_drop": _worst_drop}
        return {name: readers[name](evidence) for name in wanted}


def drops_of(evidence: KeptEvidence) -> NDArray[np.float64]:
    """(kinds, severities) share of the figure lost; below 0 where a spoilt picture is read better."""
    drops: NDArray[np.float64] = _drops(np.asarray(evidence.arrays["figures"], np.float64)[None])[0]
    return drops


def _drops(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, kinds, severities) from (R, 1 + cells), the unspoilt figure first; NaN where that one is 0."""
    clean = np.where(figures[:, :1] > 0, figures[:, :1], np.nan)
    shape = (-1, len(CORRUPTIONS), len(SEVERITIES))
    drops: NDArray[np.float64] = (1 - figures[:, 1:] / clean).reshape(shape)
    return drops


def _observe(trial: Trial, truth: Truth) -> Observation:
    package = trial.case.package
    log = trial.result_log(package)
    truths = truth.of_all(log.frames)
    labelled = [position for position, each in enumerate(truths) if each is not None]
    chosen = _spread(labelled, int(trial.setting("robustness", "pictures")))
    results: list[list[Result]] = [[log.results[i] for i in chosen], *([] for _ in CELLS)]
    with ExitStack() as opened, trial.reader.frames(f"{len(chosen)} frames spoilt in {len(CELLS)} ways") as frames:
        spoilt_results = opened.enter_context(_lanes(package))
        for frame, position in _chosen(frames, chosen):
            for cell, result in enumerate(spoilt_results(frame, position), start=1):
                if result is not None:
                    results[cell].append(result)
    kept_truths = [truths[i] for i in chosen]
    matches = [matched(each, kept_truths, truth.class_map, package.spec, ious=1) for each in results]
    draws = bootstrap_draws(len(chosen), simultaneous_confidence(len(CORRUPTIONS)))
    once = np.ones((1, len(chosen)), np.int64)
    arrays: dict[str, NDArray[np.generic]] = {
        "figures": np.array([_figures(each, once)[0] for each in matches]),
        "drawn": np.stack([_figures(each, draws) for each in matches], axis=1).astype(np.float32),
    }
    names: list[JsonValue] = [log.frames[i].name for i in chosen]
    values: dict[str, JsonValue] = {"task": package.spec.task, "of": len(log.frames), "frames": names}
    return Observation(len(chosen), values, arrays)


def _spread(positions: Sequence[int], most: int) -> list[int]:
    """At most so many of the positions, evenly from first to last."""
    places = np.linspace(0, len(positions) - 1, min(most, len(positions)))
    return [positions[round(place)] for place in places.tolist()]


def _chosen(frames: Iterable[Frame], chosen: Sequence[int]) -> Iterator[tuple[Frame, int]]:
    """The chosen frames with their positions; reading stops behind the last."""
    wanted = set(chosen)
    for position, frame in enumerate(frames):
        if position in wanted:
            yield frame, position
        if position == chosen[-1]:
            return


@contextmanager
def _lanes(package: EnginePackage) -> Iterator[Callable[[Frame, int], Iterator[Result | None]]]:
    """What a package says of a frame spoilt in each of `CELLS`, in their order; the picture's number decides the grain.

    On a CPU one thread for each of several engines gets more done than several threads for one, since pictures are
    spoilt in between. Answers do not hang on the number of threads; times, which do, are measured elsewhere.
    """
    count = 1 if package.manifest.engine.kind == "tensorrt" else threads_of(package.profile)
    idle: SimpleQueue[Pipeline] = SimpleQueue()
    with ExitStack() as opened:
        for _ in range(count):
            idle.put(opened.enter_context(open_pipeline(package, score_threshold=LOWEST_SCORE, threads=1)))
        pool = opened.enter_context(ThreadPoolExecutor(count))

        def spoilt_result(frame: Frame, number: int, cell: tuple[str, int]) -> Result | None:
            pixels, pipeline = corrupted(frame.pixels, *cell, number=number), idle.get()
            try:
                return pipeline.step(replace(frame, pixels=pixels)).result
            finally:
                idle.put(pipeline)

        yield lambda frame, number: pool.map(partial(spoilt_result, frame, number), CELLS)


def _figures(matches: Matches, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R,) AP50 or mIoU of each of (R, F) draws."""
    if isinstance(matches, DetectionMatches):
        return matches.ap50_of_draws(draws)
    return np.array([matches.accuracy(draw).miou for draw in draws])


def _mean_drop(evidence: KeptEvidence) -> Measured:
    frames = evidence.evidence.samples
    drawn = _drops(np.asarray(evidence.arrays["drawn"], np.float64)).mean(axis=(1, 2))
    (interval,) = intervals_of_shares(drawn[:, None], frames, lowest=-1.0)
    got = float(drops_of(evidence).mean())
    return Measured(
        got, frames, "frames", interval, note=_note(evidence), remedy=_remedy(frames), evidence=evidence.sha256
    )


def _worst_drop(evidence: KeptEvidence) -> Measured:
    frames = evidence.evidence.samples
    drawn = _drops(np.asarray(evidence.arrays["drawn"], np.float64)).mean(axis=2)
    intervals = intervals_of_shares(drawn, frames, simultaneous_confidence(len(CORRUPTIONS)), lowest=-1.0)
    rows = zip(CORRUPTIONS, drops_of(evidence).mean(axis=1), intervals, strict=True)
    parts = [Part(kind, float(drop), frames, interval) for kind, drop, interval in rows]
    measured = worst_of(parts, "at_most", sampled="frames", least=LEAST_FRAMES, evidence=evidence.sha256)
    return replace(measured, samples=frames, remedy=_remedy(frames))


def _note(evidence: KeptEvidence) -> str:
    clean = float(np.asarray(evidence.arrays["figures"])[0])
    return f"{clean:.3f} on the same frames unspoilt, {evidence.evidence.samples} of {evidence.evidence.values['of']}"


def _remedy(frames: int) -> str:
    return f"label at least {LEAST_FRAMES} frames" if frames < LEAST_FRAMES else "raise measuring: robustness: pictures"
