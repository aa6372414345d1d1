"""The determinism gate: does the same engine say the same about the same frames, bit for bit.

In lock-step, three times over the whole recording: once as every other gate sees it, once after the engine was opened
anew, and once more with that engine. What differs by a single bit differs: an engine whose results cannot be repeated
cannot be questioned after an accident, and a gate's verdict on it speaks of one run only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from compile.accuracy import LOWEST_SCORE
from perception.errors import SourceError
from perception.pipeline import Pipeline, open_pipeline
from perception.results import Detections, Result
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.result_log import ResultLog
from safety_gates.trial import Observation, Trial
from safety_gates.verdict import Measured

NAMED = 3  # of the frames that differ, so many by name
QUANTITIES: Mapping[str, Quantity] = {
    "changed_on_reload": Quantity(
        "count", "at_most", None, "frames whose result differs after the engine was opened anew"
    ),
    "changed_on_repeat": Quantity(
        "count", "at_most", None, "frames whose result differs when the same engine sees the recording again"
    ),
}
COMPARED = {"changed_on_reload": ("first", "reloaded"), "changed_on_repeat": ("reloaded", "repeated")}
Digests = NDArray[np.uint8]


class DeterminismGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Digest every result of three passes."""
        wanted = trial.conditions("determinism", settings={"lowest_score": LOWEST_SCORE})
        return trial.obtain(wanted, lambda: _observe(trial))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """How many frames differ between two passes."""
        return {name: _changed(evidence, *COMPARED[name]) for name in wanted}


def changed_frames(evidence: KeptEvidence, before: str, after: str) -> NDArray[np.bool_]:
    """(F,) whether the results of two passes differ: `first`, `reloaded`, `repeated`."""
    differs: NDArray[np.bool_] = np.any(evidence.arrays[before] != evidence.arrays[after], axis=1)
    return differs


def _observe(trial: Trial) -> Observation:
    package = trial.case.package
    log = ResultLog.from_arrays(trial.results(package).arrays, package.spec.task)
    first = _digests(log.results)
    with open_pipeline(package, score_threshold=LOWEST_SCORE) as pipeline:
        reloaded, repeated = (
            _pass(trial, pipeline, f"results of {package.manifest.name}, {which}") for which in ("reloaded", "repeated")
        )
    if not len(first) == len(reloaded) == len(repeated):
        counts = f"{len(first)}, {len(reloaded)} and {len(repeated)}"
        raise SourceError(f"{trial.recording.name}: gave {counts} frames in three passes; leave it alone, gate again")
    names = [frame.name for frame in log.frames]
    arrays = {"first": first, "reloaded": reloaded, "repeated": repeated, "frame_name": np.array(names, np.str_)}
    return Observation(len(first), {"task": package.spec.task}, arrays)


def _pass(trial: Trial, pipeline: Pipeline, what: str) -> Digests:
    with trial.frames(what) as frames:
        return _digests(result for frame in frames if (result := pipeline.step(frame).result) is not None)


def _digests(results: Iterable[Result]) -> Digests:
    """(F, 32) sha256 of each result's bytes."""
    return np.array([np.frombuffer(_digest(result), np.uint8) for result in results], np.uint8).reshape(-1, 32)


def _digest(result: Result) -> bytes:
    digest = hashlib.sha256()
    arrays = (
        (result.boxes_px, result.scores, result.class_ids) if isinstance(result, Detections) else (result.class_ids,)
    )
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _changed(evidence: KeptEvidence, before: str, after: str) -> Measured:
    where = np.flatnonzero(changed_frames(evidence, before, after))
    names = [str(evidence.arrays["frame_name"][index]) for index in where[:NAMED]]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    note = f"frames {', '.join(names)}{more}" if names else ""
    return Measured(float(len(where)), evidence.evidence.samples, "frames", note=note, evidence=evidence.sha256)
