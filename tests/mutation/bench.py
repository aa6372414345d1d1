"""A place to plant faults: small drives, packages of a real detector, and the verdict of one claim on one case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compile.calibration import CalibrationSet
from compile.recordings import Recordings, survey
from hw_profiles.profile import Profile
from perception.files import json_bytes
from perception.model_spec import ModelSpec
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.judge import judge
from safety_gates.policy import Policy, load_policy
from safety_gates.trial import Trial
from safety_gates.verdict import Outcome, Verdict
from tests.safety_gates.builders import BUILD, QUIET, detector_file, drive, patient_profile, spec

UNSET: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class PlantedFault:
    """One fault, and the gate that must catch it.

    Attributes:
        fault: what is wrong, in words.
        claim: the claim of the default policy that must break.
        plant: makes the harmed case; gets the bench.
        outcome: what the gate must say of it.
        because: words of its reason.
        change: of the claim's limit, where the default is meant for another machine or model.
    """

    fault: str
    claim: str
    plant: Callable[[Bench], Case]
    outcome: Outcome = Outcome.FAILED
    because: str = ""
    change: Mapping[str, object] = field(default_factory=dict)


class Bench:
    """A folder for one fault or one twin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def drive(self, *, frames: int = 60, seed: int = 1) -> Path:
        """A picture folder of the toy world."""
        pictures, _ = drive(self.folder / f"drive_{frames}_{seed}", frames=frames, seed=seed)
        return pictures

    def package(
        self,
        *,
        engine: bytes | None = None,
        kind: str = "onnxrt",
        profile: Profile | None = None,
        model_spec: ModelSpec | None = None,
        build: Mapping[str, object] = BUILD,
        precision: str = "fp32",
        calibration: bytes | None = None,
    ) -> EnginePackage:
        """A package of the toy detector; every argument may plant a fault."""
        files = {
            "engine.onnx": detector_file() if engine is None else engine,
            SPEC: (model_spec or spec()).to_yaml().encode(),
            PROFILE: (profile or patient_profile()).to_yaml().encode(),
        }
        if calibration is not None:
            files["calibration.json"] = calibration
        entry = EngineEntry(kind=kind, file="engine.onnx", precision=precision)
        return write_package(self.folder / "package", files, name="cells", engine=entry, build=dict(build))

    def verdict(self, case: Case, claim: str, change: Mapping[str, object] = UNSET) -> Verdict:
        """What the gate says about one claim."""
        limits = [limit for limit in load_policy(None).limits if limit.claim == claim]
        policy = Policy(name="of a test", limits=tuple(each.model_copy(update=dict(change)) for each in limits))
        trial = Trial(case, Shelf(self.folder / "evidence"), QUIET)
        (verdict,) = judge(trial, policy.checked("of a test")).verdicts
        return verdict


def calibration_of(recording: Path, frames: Sequence[int]) -> bytes:
    """`calibration.json` of frames of a recording, as the compiler writes it."""
    seen = survey((recording,))
    chosen = tuple(seen[number] for number in frames)
    calibrated = CalibrationSet(Recordings((recording,), chosen), "even", len(seen), {})
    return json_bytes(calibrated.document())


def quick_cameras(rate_hz: float, *, deadline_ms: float) -> Profile:
    """The patient profile with one camera of this rate, and a deadline that means something."""
    profile = patient_profile()
    cameras = profile.cameras
    one = cameras.number.model_copy(update={"value": 1})
    rate = cameras.rate.model_copy(update={"value": rate_hz})
    stage = profile.budget.infer.model_copy(update={"value": deadline_ms / 3})
    return profile.model_copy(
        update={
            "cameras": cameras.model_copy(update={"number": one, "rate": rate}),
            "deadline": profile.deadline.model_copy(update={"value": deadline_ms}),
            "budget": profile.budget.model_copy(update={"preprocess": stage, "infer": stage, "postprocess": stage}),
        }
    )


class FakeClock:
    """Stands in for `time`: passes by a microsecond with every look, and by what is slept. Nothing else ran."""

    LOOK_NS = 1000

    def __init__(self) -> None:
        self._now_ns = 0

    def perf_counter_ns(self) -> int:
        """Nanoseconds of this clock."""
        self._now_ns += self.LOOK_NS
        return self._now_ns

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self._now_ns += round(seconds * 1e9)


def darker(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same road at night."""
    return [(picture // 8).astype(np.uint8) for picture in pictures]
