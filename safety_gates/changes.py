"""Whether packages and data are still what they were when a trial began; what changed meanwhile proves nothing.

Evidence is bound to digests that are taken first, and frames are read later. Between the two a file can change, and
then the evidence would speak of bytes that nobody measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.errors import EvidenceError, SourceError, TollgateError
from perception.package import EnginePackage, open_package
from safety_gates.conditions import Conditions, DataSet, Subject
from safety_gates.evidence import KeptEvidence, Shelf
from safety_gates.gates.gate import Unmeasured

COMPARES_THE_PACKAGE_ITSELF = "provenance"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is no longer what it was.

    Attributes:
        reason: what, in words.
        touches: whether evidence bound to these conditions rests on it.
    """

    reason: str
    touches: Callable[[Conditions], bool]


def why_void(conditions: Conditions, changes: Sequence[Change]) -> str | None:
    """The first change that evidence bound to `conditions` rests on, or None."""
    return next((change.reason for change in changes if change.touches(conditions)), None)


def package_changes(
    package: EnginePackage, reference: EnginePackage | None, last_release: EnginePackage | None = None
) -> Iterator[Change]:
    """How the folders differ from what was opened; the provenance gate looks for itself and fails."""
    if (reason := _difference(package)) is not None:
        yield Change(reason, lambda conditions: conditions.measurement != COMPARES_THE_PACKAGE_ITSELF)
    if reference is not None and (reason := _difference(reference)) is not None:
        yield Change(reason, lambda conditions: conditions.reference is not None)
    if last_release is not None and (reason := _difference(last_release)) is not None:
        released = Subject.of(last_release)
        yield Change(
            reason, lambda conditions: conditions.measurement == "regression" or conditions.subject == released
        )


def data_changes(data_set: DataSet | None, paths: Sequence[Path]) -> Iterator[Change]:
    """How the files at `paths` differ from the data set they were; nothing where there are none."""
    if data_set is None or not paths:
        return
    try:
        reason = data_set.difference(DataSet.together([DataSet.of(path, SourceError) for path in paths]))
    except SourceError as error:
        reason = str(error)
    if reason is not None:
        yield Change(
            f"{data_set.name}: {reason}", lambda conditions: data_set in (conditions.recording, conditions.labels)
        )


def discard_void(made: Sequence[KeptEvidence], shelf: Shelf, changes: Sequence[Change]) -> None:
    """Take what was measured while its subject changed off the shelf: nobody may find it again."""
    for kept in made:
        if why_void(kept.evidence.conditions, changes) is not None:
            shelf.discard(kept.sha256)


def confirmed(exhibit: KeptEvidence | Unmeasured, shelf: Shelf, changes: Sequence[Change]) -> KeptEvidence | Unmeasured:
    """The exhibit as it lies on the shelf, every byte compared once more; or why it decides nothing."""
    if isinstance(exhibit, Unmeasured):
        return exhibit
    if (reason := why_void(exhibit.evidence.conditions, changes)) is not None:
        return Unmeasured(f"{reason} while it was tried; leave it alone and measure again")
    try:
        return shelf.read(exhibit.sha256)
    except EvidenceError as error:
        return Unmeasured(str(error))


def _difference(package: EnginePackage) -> str | None:
    try:
        again = open_package(package.folder)
    except TollgateError as error:
        return f"the package changed ({error})"
    return None if again.sha256 == package.sha256 else f"{package.folder}: another package took its place"
