"""What goes wrong around a network rather than in it: time, repetition, calibration, memory, papers, cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from safety_gates.case import Case
from safety_gates.verdict import Outcome
from tests.compile.builders import road_picture, write_drive, write_pictures
from tests.mutation.bench import Bench, PlantedFault, calibration_of, darker, quick_cameras
from tests.safety_gates.builders import BIAS, BUILD, detector_file, null_package, spec

RATE_HZ, DEADLINE_MS = 200.0, 15.0
BLIND = {"quantity": "blind_ghosts"}
LONGEST = {"quantity": "total_max", "limit": 15.0}
SEEING_THINGS = BIAS + np.array([0, 0, 0, 0, 0.8, 0.8, 0], np.float32)


def of_kind(kind: str, *, frames: int = 60) -> Callable[[Bench], Case]:
    """A sound package but for its engine."""
    return lambda bench: Case(bench.package(kind=kind), bench.drive(frames=frames))


def timed(kind: str) -> Callable[[Bench], Case]:
    """The same with a camera that does not wait, on a short drive again and again: a thousand frames."""

    def plant(bench: Bench) -> Case:
        package = bench.package(kind=kind, profile=quick_cameras(RATE_HZ, deadline_ms=DEADLINE_MS))
        drive = bench.drive(frames=50)
        return Case(package, drive, timing=(drive,) * 20)

    return plant


def overloaded(bench: Bench) -> Case:
    """An engine that keeps every budget of its own and is a tenth slower than its camera."""
    profile = quick_cameras(RATE_HZ, deadline_ms=1000.0)
    return Case(null_package(bench.folder / "package", service_ms=1.1e3 / RATE_HZ, profile=profile), bench.drive())


def calibrated(
    *, frames: int = 20, copies: Callable[[np.ndarray], np.ndarray] | None = None, night: bool = False, drive: int = 2
) -> Callable[[Bench], Case]:
    """An INT8 package calibrated on one drive and judged on another.

    Args:
        frames: that calibrated.
        copies: what calibrated are the judging frames, each put through this.
        night: judge in the dark.
        drive: which drive judges; 1 is the one that calibrated.
    """

    def plant(bench: Bench) -> Case:
        own = write_drive(bench.folder / "monday", seed=1, count=24)
        seen = [road_picture(1000 * drive + number) for number in range(40)]
        judging = write_pictures(bench.folder / "tuesday", darker(seen) if night else seen)
        if copies is not None:
            own = write_pictures(bench.folder / "copies", [copies(picture) for picture in seen[:24]])
        document = calibration_of(own, range(frames))
        return Case(bench.package(precision="int8", calibration=document), judging)

    return plant


def as_jpeg(picture: np.ndarray) -> np.ndarray:
    """Saved again with losses: not one pixel need be equal."""
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], cv2.IMREAD_COLOR)


def repeated(bench: Bench) -> Case:
    """One evaluation frame stands twice in the recording."""
    pictures = [road_picture(number) for number in range(40)]
    return Case(bench.package(), write_pictures(bench.folder / "drive", [*pictures, pictures[7]]))


def silent(bench: Bench) -> Case:
    """An INT8 package that does not say what calibrated it."""
    return Case(bench.package(precision="int8"), bench.drive())


def altered(bench: Bench) -> Case:
    """The engine's file changes after the package was opened."""
    case = Case(bench.package(), bench.drive())
    path = case.package.folder / "engine.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    return case


def without_licence(bench: Bench) -> Case:
    """Nobody wrote down under which licence the model comes."""
    return Case(bench.package(model_spec=spec().model_copy(update={"licence": "unknown"})), bench.drive())


def without_toolchain(bench: Bench) -> Case:
    """The manifest does not say what compiled the engine."""
    return Case(bench.package(build={**BUILD, "libraries": {}}), bench.drive())


def seeing_things(bench: Bench) -> Case:
    """A network that is sure of cars where nothing can be seen."""
    return Case(bench.package(engine=detector_file(bias=SEEING_THINGS)), bench.drive())


MACHINE_FAULTS = (
    PlantedFault("a sleep of 20 ms in one frame of a thousand", "latency.deadline", timed("stalling"), change=LONGEST),
    PlantedFault("an engine a tenth slower than its camera", "latency.missed", overloaded, because="overtaken"),
    PlantedFault("results that move by a bit with every call", "determinism.repeat", of_kind("wandering", frames=61)),
    PlantedFault("results that depend on what was seen before", "determinism.repeat", of_kind("remembering")),
    PlantedFault("another engine at every start", "determinism.reload", of_kind("dicing")),
    PlantedFault("calibrated on the evaluation set", "calibration.apart", calibrated(drive=1)),
    PlantedFault("calibrated on copies of the evaluation set", "calibration.apart", calibrated(copies=as_jpeg)),
    PlantedFault("calibrated by day, judged by night", "calibration.covers", calibrated(night=True)),
    PlantedFault("calibrated on eight frames", "calibration.frames", calibrated(frames=8)),
    PlantedFault(
        "nothing told about the calibration",
        "calibration.apart",
        silent,
        outcome=Outcome.INCONCLUSIVE,
        because="does not say what calibrated it",
    ),
    PlantedFault("an evaluation frame that counts twice", "evaluation.distinct", repeated, because="0040"),
    PlantedFault("a leak of one page a frame", "resources.growth", of_kind("leaking")),
    PlantedFault("300 MB more than needed", "resources.memory", of_kind("hoarding"), change={"limit": 300.0}),
    PlantedFault("an altered engine", "provenance.bytes", altered, because="engine.onnx"),
    PlantedFault("no licence", "provenance.licence", without_licence),
    PlantedFault("no word of the toolchain", "provenance.build", without_toolchain, because="libraries"),
    PlantedFault("a network that sees cars in the dark", "faults.ghosts", seeing_things, because="black", change=BLIND),
    PlantedFault("an engine that stays dazzled", "faults.recovery", of_kind("dazzled"), because="black"),
)
"""Faults of packages and recordings: each needs nothing but its case."""

_SOUND, _CALIBRATED = of_kind("onnxrt"), calibrated()
TWINS: Mapping[str, Callable[[Bench], Case]] = {
    fault.claim: _CALIBRATED if fault.claim.startswith("calibration") else _SOUND
    for fault in MACHINE_FAULTS
    if not fault.claim.startswith("latency")
}
"""Claim → the same case without a fault; what is timed has its own test."""

HEALTH_FAULTS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "black": ("faults.flagged", {"lit_share": 0.0}),
    "saturated": ("faults.flagged", {"saturated_share": 2.0}),
    "torn": ("faults.flagged", {"torn_share": 2.0}),
    "dropped": ("faults.flagged", {"gap_periods": 1e9}),
    "clock jump": ("faults.flagged", {"clock_jump_ns": 1 << 60}),
    "frozen": ("faults.flagged", {"frozen_after": 100}),
}
"""Fault of a camera → the claim that breaks, and the limits of a camera health that is blind to it."""
