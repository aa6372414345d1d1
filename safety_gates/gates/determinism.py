"""The determinism gate: does the same engine say the same about the same frames, bit for bit.

In lock-step, three times over the whole recording: once as every other gate sees it, once after the engine was opened
anew, and once more with that engine, a stretch of frames at a time. What differs by a single bit differs: an engine
whose results cannot be repeated cannot be questioned after an accident, and a gate's verdict on it speaks of one run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from compile.accuracy import LOWEST_SCORE
from perception.errors import SourceError
from perception.frame import Frame
from perception.pipeline import open_pipeline
from perception.results import Detections, Result
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Look, Observation, See
from safety_gates.trial import Trial
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

    def looks(self, trial: Trial) -> Sequence[Look]:
        """The results that every gate shares, and those of an engine opened anew."""
        return (trial.results_look(trial.case.package), _Repeated(trial))

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Digest every result of three passes."""
        return trial.obtain_look(_Repeated(trial))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """How many frames differ between two passes."""
        return {name: _changed(evidence, *COMPARED[name]) for name in wanted}


def changed_frames(evidence: KeptEvidence, before: str, after: str) -> NDArray[np.bool_]:
    """(F,) whether the results of two passes differ: `first`, `reloaded`, `repeated`."""
    differs: NDArray[np.bool_] = np.any(evidence.arrays[before] != evidence.arrays[after], axis=1)
    return differs


class _Repeated:
    """What the engine says when it is opened anew, and when it sees the same stretch of frames again."""

    def __init__(self, trial: Trial) -> None:
        self.wanted = trial.conditions("determinism", settings={"lowest_score": LOWEST_SCORE})
        self._trial = trial
        self._reloaded: list[bytes] = []
        self._repeated: list[bytes] = []

    @contextmanager
    def opened(self) -> Iterator[See]:
        """See `Look.opened`."""
        with open_pipeline(self._trial.case.package, score_threshold=LOWEST_SCORE) as pipeline:

            def see(frames: Sequence[Frame]) -> None:
                for seen in (self._reloaded, self._repeated):
                    results = (pipeline.step(frame).result for frame in frames)
                    seen.extend(_digest(result) for result in results if result is not None)

            yield see

    def observation(self) -> Observation:
        """See `Look.observation`."""
        package = self._trial.case.package
        log = self._trial.result_log(package)
        if len(log.results) != len(self._reloaded):
            counts = f"{len(log.results)} and {len(self._reloaded)}"
            name = self._trial.recording.name
            raise SourceError(f"{name}: gave {counts} frames in two passes; leave it alone, gate again")
        arrays: dict[str, NDArray[np.generic]] = {
            "first": _rows([_digest(result) for result in log.results]),
            "reloaded": _rows(self._reloaded),
            "repeated": _rows(self._repeated),
            "frame_name": np.array([frame.name for frame in log.frames], np.str_),
        }
        return Observation(len(log.results), {"task": package.spec.task}, arrays)


def _rows(digests: Sequence[bytes]) -> Digests:
    """(F, 32) sha256 of each result's bytes."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


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
