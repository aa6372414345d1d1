"""The calibration gate: may the frames that calibrated INT8 speak for the frames that judge it, and are the two apart.

Accuracy on frames that calibrated proves nothing, whether they are the same, saved again, or a moment later. Ranges
learnt by day say nothing of the night. The package keeps a digest and a thumbnail of every calibration frame; here they
are held against every frame of the recording: equal pixels, thumbnails that show the same, brightness and contrast
outside of what calibrated. A float engine has no calibration set; its evaluation frames are still looked at for copies.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from compile.coverage import MARGIN, brightness_of
from compile.recordings import NEAR_DUPLICATE, THUMBNAIL_PX, SurveyedFrame, distances, stacked, surveyed
from hw_profiles.yaml_files import complaints_of
from perception.errors import PackageError, SourceError
from perception.package import EnginePackage
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Look, Observation, See
from safety_gates.statistics import proportion_interval
from safety_gates.trial import Trial
from safety_gates.verdict import LeftOut, Measured

CALIBRATION = "calibration.json"
CALIBRATED = frozenset({"int8", "mixed"})
NAMED = 3
QUANTITIES: Mapping[str, Quantity] = {
    "frames": Quantity("count", "at_least", None, "distinct frames that calibrated the engine"),
    "shared_frames": Quantity("count", "at_most", None, "evaluation frames that are, or look like, calibration frames"),
    "uncovered": Quantity(
        "ratio", "at_most", None, "share of evaluation frames darker, brighter, flatter or richer than what calibrated"
    ),
    "repeated_frames": Quantity("count", "at_most", None, "evaluation frames that repeat another, pixel for pixel"),
}


class _Frame(BaseModel):
    """What the gate needs of a frame in `calibration.json`; the thumbnail is base64, 18 rows of 32 grey levels."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    pixels_sha256: str
    contrast: float
    thumbnail: str


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    frames: tuple[_Frame, ...]


class CalibrationGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def looks(self, trial: Trial) -> Sequence[Look]:
        """Every frame in small; nothing where the package does not say what calibrated it."""
        try:
            return (_Survey(trial),)
        except PackageError:
            return ()

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Hold every frame of the recording against every calibration frame."""
        try:
            return trial.obtain_look(_Survey(trial))
        except PackageError as error:
            return Unmeasured(str(error))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured | LeftOut]:
        """Counts with the frames by name; the share that is not covered with its interval."""
        found: dict[str, Measured | LeftOut] = {"repeated_frames": _named(evidence, "repeated")}
        if not len(evidence.arrays["calibration_brightness"]):
            floats = LeftOut("a float engine was not calibrated")
            return {**dict.fromkeys(wanted, floats), **{name: found[name] for name in wanted if name in found}}
        calibrated = len(evidence.arrays["calibration_brightness"])
        found["frames"] = Measured(float(calibrated), calibrated, "frames", evidence=evidence.sha256)
        found["shared_frames"] = _named(evidence, "shared")
        found["uncovered"] = _uncovered(evidence)
        return {name: found[name] for name in wanted}


def calibration_frames(package: EnginePackage) -> tuple[SurveyedFrame, ...]:
    """What calibrated a package, distinct frames only; none for a float engine.

    Raises:
        PackageError: the package was calibrated and does not say on what.
    """
    if package.manifest.engine.precision not in CALIBRATED:
        return ()
    if CALIBRATION not in package.manifest.files:
        raise PackageError(f"the package does not say what calibrated it (no {CALIBRATION}); compile it again")
    try:
        document = _Document.model_validate(package.document(CALIBRATION))
        frames = {each.pixels_sha256: _surveyed(each) for each in document.frames}
    except (ValidationError, binascii.Error, ValueError) as error:
        reason = complaints_of(error) if isinstance(error, ValidationError) else str(error)
        raise PackageError(f"{CALIBRATION}: keeps no thumbnails ({reason}); compile the package again") from error
    return tuple(frames.values())


def _surveyed(frame: _Frame) -> SurveyedFrame:
    grey = np.frombuffer(base64.b64decode(frame.thumbnail, validate=True), np.uint8).reshape(THUMBNAIL_PX[::-1])
    return SurveyedFrame(
        source=0,
        camera_id="",
        frame_id=0,
        name=frame.name,
        pixels_sha256=frame.pixels_sha256,
        thumbnail=grey.astype(np.float32),
        contrast=frame.contrast,
        structure=1.0,
    )


class _Survey:
    """Every frame of the recording in small, beside the frames that calibrated."""

    def __init__(self, trial: Trial) -> None:
        self.wanted = trial.conditions("calibration", settings={"near_duplicate": NEAR_DUPLICATE, "margin": MARGIN})
        self._name = trial.recording.name
        self._calibrated = calibration_frames(trial.case.package)
        self._judging: list[SurveyedFrame] = []

    @contextmanager
    def opened(self) -> Iterator[See]:
        """See `Look.opened`."""
        yield lambda frames: self._judging.extend(surveyed(frame, 0) for frame in frames)

    def observation(self) -> Observation:
        """See `Look.observation`."""
        judging, calibrated = self._judging, self._calibrated
        if not judging:
            raise SourceError(f"{self._name}: has no frames, expected at least 1; choose another recording")
        nearest = _nearest(judging, calibrated)
        equal = {frame.pixels_sha256 for frame in calibrated}
        arrays: dict[str, NDArray[np.generic]] = {
            "frame_name": np.array([frame.name for frame in judging], np.str_),
            "nearest": nearest,
            "shared": (nearest < NEAR_DUPLICATE) | [frame.pixels_sha256 in equal for frame in judging],
            "repeated": _repeated(judging),
            **_described("evaluation", judging),
            **_described("calibration", calibrated),
        }
        return Observation(len(judging), {"calibration_frames": [frame.name for frame in calibrated]}, arrays)


def _repeated(judging: Sequence[SurveyedFrame]) -> NDArray[np.bool_]:
    """(F,) whether an earlier frame has the same pixels."""
    first = {frame.pixels_sha256: index for index, frame in reversed(list(enumerate(judging)))}
    return np.array([first[frame.pixels_sha256] != index for index, frame in enumerate(judging)], np.bool_)


def _nearest(judging: Sequence[SurveyedFrame], calibrated: Sequence[SurveyedFrame]) -> NDArray[np.float32]:
    """(F,) mean difference of each frame's thumbnail to the nearest that calibrated, in grey levels."""
    if not calibrated:
        return np.full(len(judging), np.inf, np.float32)
    thumbnails = stacked(calibrated)
    return np.array([distances(frame.thumbnail, thumbnails).min() for frame in judging], np.float32)


def _described(which: str, frames: Sequence[SurveyedFrame]) -> dict[str, NDArray[np.generic]]:
    return {
        f"{which}_brightness": np.array([brightness_of(frame) for frame in frames], np.float32),
        f"{which}_contrast": np.array([frame.contrast for frame in frames], np.float32),
    }


def _named(evidence: KeptEvidence, which: str) -> Measured:
    where = np.flatnonzero(evidence.arrays[which])
    names = [str(evidence.arrays["frame_name"][index]) for index in where[:NAMED]]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    note = f"frames {', '.join(names)}{more}" if names else ""
    return Measured(float(len(where)), evidence.evidence.samples, "frames", note=note, evidence=evidence.sha256)


def _uncovered(evidence: KeptEvidence) -> Measured:
    outside = uncovered_frames(evidence)
    count, frames = int(outside.sum()), len(outside)
    return Measured(
        count / frames,
        frames,
        "frames",
        proportion_interval(count, frames),
        evidence=evidence.sha256,
        remedy="calibrate on frames as dark, bright, flat and rich as those that judge",
    )


def uncovered_frames(evidence: KeptEvidence) -> NDArray[np.bool_]:
    """(F,) evaluation frames whose brightness or contrast lies outside of what calibrated, by more than `MARGIN`."""
    outside = np.zeros(evidence.evidence.samples, np.bool_)
    for name in ("brightness", "contrast"):
        seen, asked = evidence.arrays[f"calibration_{name}"], evidence.arrays[f"evaluation_{name}"]
        outside |= (asked < seen.min() - MARGIN) | (asked > seen.max() + MARGIN)
    return outside
