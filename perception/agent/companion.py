"""Which results belong to what drives, which to its shadow, and how far the two agree on the same frames."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from perception.agreement import agreed_on
from perception.pipeline import FrameResult, Status
from perception.record import RunHeader
from perception.results import Result

MOST_WAITING = 64
"""Results that wait for the shadow's: a shadow that is further behind is not compared."""


class ShadowReport(BaseModel):
    """What a shadow said beside what drove.

    Attributes:
        package_sha256: what ran in shadow.
        compared: objects, or cells of masks, that the two said about the same frames, counted for each of them.
        agreed: of them said by both.
        shed: frames on which the shadow said nothing, for want of slack.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    package_sha256: str
    compared: int = Field(ge=0)
    agreed: int = Field(ge=0)
    shed: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays which part in a run; read from its header.

    Attributes:
        drives: name of the model whose package the run is about; empty where there is one model.
        shadows: names of the models that run in slack.
        shadow: the first of them and its package's sha256; None where there is none.
        own_score: whether the run reports objects from a score of its own on, and not from the ModelSpec's.
    """

    drives: str
    shadows: frozenset[str]
    shadow: tuple[str, str] | None
    own_score: bool

    @classmethod
    def of(cls, header: RunHeader) -> Cast:
        """As `tollgate run` and `tollgate replay` write their headers."""
        found, named = header.options.get("packages"), header.options.get("shadows")
        packages = (
            {name: ids for name, ids in found.items() if isinstance(ids, list)} if isinstance(found, dict) else {}
        )
        shadows = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
        drives = [name for name, ids in packages.items() if header.package_sha256 in ids and name not in shadows]
        first = next(((name, str(packages[name][0])) for name in shadows if packages.get(name)), None)
        return cls(next(iter(drives), ""), frozenset(shadows), first, header.options.get("score") is not None)


class Companion:
    """Holds what drives against its shadow. What drives comes first: a shadow runs when everything else is done."""

    def __init__(self, name: str, package_sha256: str) -> None:
        """A shadow by its model's name."""
        self.name = name
        self._package_sha256 = package_sha256
        self._waiting: dict[tuple[str, int], Result] = {}
        self._frames = self._seen = self._compared = self._agreed = 0

    def drove(self, outcome: FrameResult) -> None:
        """What drives said about a frame."""
        self._frames += 1
        if outcome.result is None or outcome.status is Status.STALE:
            return
        self._waiting[outcome.frame.camera_id, outcome.frame.frame_id] = outcome.result
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def shadowed(self, outcome: FrameResult) -> None:
        """What the shadow said about a frame. Masks of another size, or boxes beside a mask, cannot be compared."""
        if outcome.result is None:
            return
        self._seen += 1
        reference = self._waiting.pop((outcome.frame.camera_id, outcome.frame.frame_id), None)
        if reference is None:
            return
        try:
            said = agreed_on(reference, outcome.result)
        except ValueError:
            return
        self._compared += said.told
        self._agreed += 2 * said.agreed

    def report(self) -> ShadowReport:
        """What came of it so far."""
        return ShadowReport(
            package_sha256=self._package_sha256,
            compared=self._compared,
            agreed=self._agreed,
            shed=max(0, self._frames - self._seen),
        )
