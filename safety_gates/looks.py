"""What several measurements look at is looked at once: each frame is decoded once, and every look takes it in turn.

Frames come in stretches of a few that memory holds: an engine that takes several in a row works undisturbed by the
threads of the others, which still spin for a moment after their last frame.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeAlias

from pydantic import JsonValue

from compile.accuracy import LOWEST_SCORE
from perception.errors import SourceError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import open_pipeline
from perception.results import Result
from safety_gates.conditions import Conditions
from safety_gates.evidence import ArrayMap
from safety_gates.result_log import FrameKey, ResultLog

STRETCH_BYTES, LONGEST_STRETCH = 64 << 20, 255
See: TypeAlias = Callable[[Sequence[Frame]], None]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a measurement gives."""

    samples: int
    values: Mapping[str, JsonValue]
    arrays: ArrayMap = field(default_factory=dict)


class Look(Protocol):
    """A measurement that wants to see every frame of the recording, in order."""

    @property
    def wanted(self) -> Conditions:
        """What its evidence is bound to."""

    def opened(self) -> AbstractContextManager[See]:
        """Get ready; what is lent takes one stretch of frames after another. Frames may be kept for a stretch only.

        Raises:
            TollgateError: the engine does not open.
        """

    def observation(self) -> Observation:
        """What was seen, once all frames were.

        Raises:
            SourceError: there was no frame.
        """


class ResultsLook:
    """What a package says about every frame, detections from `LOWEST_SCORE` on."""

    def __init__(self, package: EnginePackage, wanted: Conditions) -> None:
        """Look with the engine of `package`."""
        self.wanted = wanted
        self._package = package
        self._rows: list[tuple[FrameKey, Result | None]] = []

    @contextmanager
    def opened(self) -> Iterator[See]:
        """See `Look.opened`."""
        with open_pipeline(self._package, score_threshold=LOWEST_SCORE) as pipeline:
            yield lambda frames: self._rows.extend((FrameKey.of(each), pipeline.step(each).result) for each in frames)

    def observation(self) -> Observation:
        """See `Look.observation`."""
        return logged(self._rows, self._package, self.wanted)


def logged(rows: Sequence[tuple[FrameKey, Result | None]], package: EnginePackage, wanted: Conditions) -> Observation:
    """Results of frames as an observation.

    Raises:
        SourceError: there is none.
    """
    if not rows:
        name = "the recording" if wanted.recording is None else wanted.recording.name
        raise SourceError(f"{name}: has no frames, expected at least 1; choose another recording")
    known = [(key, result) for key, result in rows if result is not None]
    log = ResultLog(tuple(key for key, _ in known), tuple(result for _, result in known))
    return Observation(len(known), {"task": package.spec.task}, log.to_arrays(package.spec.task))


def stretches(frames: Iterator[Frame]) -> Generator[list[Frame]]:
    """The frames a few at a time; an odd number, so that what alternates from frame to frame shows when repeated."""
    for first in frames:
        most = min(LONGEST_STRETCH, STRETCH_BYTES // first.pixels.nbytes) | 1
        yield [first, *islice(frames, most - 1)]
