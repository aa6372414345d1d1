"""What is tried: a package, what it is held against, and the data it is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perception.errors import LabelError, PackageError
from perception.package import EnginePackage
from perception.sources.table import kind_and_path
from safety_gates.source_signature import SourceSignature
from safety_gates.truth import Truth, read_truth, require_labelled_frame

SOAK_FRAMES = 1000


@dataclass(frozen=True, slots=True)
class Case:
    """What the command line asked to try.

    Attributes:
        package: the package on trial.
        recording: the frames.
        labels: ground truth of the recording; None where there is none.
        class_map: YAML that says which of the model's classes answers to which label; None where the names are equal.
        reference: the float package; None where there is none.
        last_release: the package that was released before this one; None where there is none, or none was given.
        first_release: whoever asks says that nothing was released before.
        frames: only the first so many frames of the recording; None for all.
        timing: recordings on all of whose frames latency is measured; none for the frames of `recording`. A few
            labelled pictures cannot carry a 99th percentile, a long drive without labels can.
        soak_frames: for so many frames memory is watched, and for more while its growth is undecided.
        source_signature: who vouches for the model that was compiled; None where no signature was given.
        command: the command line, for the evidence.
    """

    package: EnginePackage
    recording: Path
    labels: Path | None = None
    class_map: Path | None = None
    reference: EnginePackage | None = None
    last_release: EnginePackage | None = None
    first_release: bool = False
    frames: int | None = None
    timing: tuple[Path, ...] = ()
    soak_frames: int = SOAK_FRAMES
    source_signature: SourceSignature | None = None
    command: str = ""


def path_of(recording: Path) -> Path:
    """Where a recording lies, whatever kind its prefix says it is."""
    return kind_and_path(recording)[1]


def truth_of(case: Case) -> Truth | None:
    """Ground truth of a case; None where no labels were given.

    Raises:
        LabelError: unreadable, of another recording, or of classes that model or map do not know.
    """
    if case.labels is None:
        if case.class_map is not None:
            raise LabelError(f"{case.class_map}: a class map without labels does nothing; give --labels PATH too")
        return None
    truth = read_truth(case.labels, case.class_map, case.package.spec)
    require_labelled_frame(truth, case.recording, case.frames)
    return truth


def require_one_model(case: Case) -> None:
    """What is compared must be of the same model.

    Raises:
        PackageError: reference or last release is of another model, or there is a last release of the first.
    """
    ours = case.package.spec
    for other in (case.reference, case.last_release):
        if other is not None and (ours.task, ours.classes) != (other.spec.task, other.spec.classes):
            raise PackageError(
                f"{other.folder}: is a {other.spec.task} model of {len(other.spec.classes)} classes, the package on "
                f"trial is a {ours.task} model of {len(ours.classes)}; give a package of the same model"
            )
    if case.first_release and case.last_release is not None:
        raise PackageError(
            f"{case.last_release.folder}: is given as the last release of what is said to be the first; say one"
        )
