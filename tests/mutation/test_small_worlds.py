"""Faults whose proof needs hundreds of frames, a clock, or masks: planted in worlds small enough to draw."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.engines.table import ENGINES
from perception.package import EnginePackage, write_package
from safety_gates.case import Case
from safety_gates.evidence import KeptEvidence, Shelf
from safety_gates.gates.streaming import StreamingGate
from safety_gates.policy import load_policy
from safety_gates.trial import Trial
from safety_gates.verdict import Outcome, Verdict, judged
from tests.mutation.models import blind_below, blind_without_black
from tests.mutation.road import verdicts
from tests.mutation.table import Caught, check_page
from tests.safety_gates.builders import (
    QUIET,
    RIGHT,
    detector_file,
    mask_drive,
    mask_package,
    package,
    steady_drive,
)

ONE_CLASS_LOST = RIGHT * np.array([1, 1, 1, 1, 1, 1, 0], np.float32)[:, None]
SLOW_S = 0.08
SMALL = {"slices": {"least_objects": 30, "least_height_px": 10}}


class SlowEngine(OnnxRuntimeEngine):
    """As right as any, and far behind the camera."""

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        time.sleep(SLOW_S)
        return super().infer(feeds)


class FlickeringEngine(OnnxRuntimeEngine):
    """Says nothing of one picture in three, as its pixels happen to be; always in time."""

    def infer(self, feeds: Tensors) -> Tensors:
        """See `Engine.infer`."""
        blank = zlib.crc32(feeds["images"].tobytes()) % 3 == 0
        return {name: tensor * (not blank) for name, tensor in super().infer(feeds).items()}


@dataclass(frozen=True, slots=True)
class World:
    """Drives that every fault is tried on."""

    cells: tuple[Path, Path]
    moving: tuple[Path, Path]
    masks: tuple[Path, Path]


def _repacked(right: EnginePackage, folder: Path, engine: bytes, *, kind: str = "onnxrt") -> EnginePackage:
    files = {name: (right.folder / name).read_bytes() for name in right.manifest.files}
    files[right.manifest.engine.file] = engine
    entry = right.manifest.engine.model_copy(update={"kind": kind})
    return write_package(folder, files, name="harmed", engine=entry, build=right.manifest.build)


def _on_cells(world: World, folder: Path, engine: bytes | None, **roles: EnginePackage) -> Case:
    right = package(folder / "right")
    tried = right if engine is None else _repacked(right, folder / "tried", engine)
    pictures, labels = world.cells
    return Case(tried, pictures, labels=labels, reference=package(folder / "float"), **roles)


def _updated(world: World, folder: Path, engine: bytes | None) -> Case:
    return _on_cells(world, folder, engine, last_release=package(folder / "released"))


def _masks(world: World, folder: Path, *, swapped: bool) -> Case:
    pictures, masks = world.masks
    reference = mask_package(folder / "float")
    return Case(mask_package(folder / "tried", swapped=swapped), pictures, labels=masks, reference=reference)


Plant = Callable[[World, Path], Case]
FAULTS: dict[tuple[str, str], tuple[Plant, Plant]] = {
    ("one class lost since the last release", "regression.release"): (
        lambda w, f: _updated(w, f, detector_file(ONE_CLASS_LOST)),
        lambda w, f: _updated(w, f, None),
    ),
    ("one class lost", "slices.recall"): (
        lambda w, f: _on_cells(w, f, detector_file(ONE_CLASS_LOST)),
        lambda w, f: _on_cells(w, f, None),
    ),
    ("blind to dark pictures", "slices.loss"): (
        lambda w, f: _on_cells(w, f, blind_below(detector_file(), mean=24 / 255)),
        lambda w, f: _on_cells(w, f, None),
    ),
    ("blind in haze: no pixel is black", "robustness.worst"): (
        lambda w, f: _on_cells(w, f, blind_without_black(detector_file(), least=0.5 / 255)),
        lambda w, f: _on_cells(w, f, None),
    ),
    ("classes of masks swapped", "accuracy.miou"): (
        lambda w, f: _masks(w, f, swapped=True),
        lambda w, f: _masks(w, f, swapped=False),
    ),
    ("classes of masks swapped against float", "parity.mask_agreement"): (
        lambda w, f: _masks(w, f, swapped=True),
        lambda w, f: _masks(w, f, swapped=False),
    ),
    ("classes of masks swapped, worst class", "accuracy.worst_mask"): (
        lambda w, f: _masks(w, f, swapped=True),
        lambda w, f: _masks(w, f, swapped=False),
    ),
    ("classes of masks swapped, loss to float", "regression.reference_mask"): (
        lambda w, f: _masks(w, f, swapped=True),
        lambda w, f: _masks(w, f, swapped=False),
    ),
}
SLOW = ("an engine that is only slow", "streaming.loss")
LATE = ("the same on a recording without labels", "streaming.loss")


@pytest.fixture(scope="module")
def world(tmp_path_factory, labelled_drive):
    """Drawn once."""
    folder = tmp_path_factory.mktemp("world")
    moving = steady_drive(folder / "moving", frames=80, rate_hz=100.0, moved_px=0.5)
    return World(labelled_drive, moving, mask_drive(folder / "masks", frames=40))


@pytest.fixture(scope="module")
def table():
    """The table as it grows."""
    return {}


@pytest.mark.parametrize(("fault", "aimed"), FAULTS)
def test_the_gate_catches_the_fault_and_passes_the_unharmed_twin(world, table, tmp_path, fault, aimed):
    harmed, unharmed = FAULTS[fault, aimed]
    found = _verdict(harmed(world, tmp_path / "harmed"), tmp_path / "harmed", aimed)
    table[fault] = Caught(fault, aimed, f"{found.measured.got:.3f}, limit {found.requirement.limit:g}", ())
    assert found.outcome is Outcome.FAILED, (found.measured, found.why)
    twin = _verdict(unharmed(world, tmp_path / "twin"), tmp_path / "twin", aimed)
    assert twin.outcome is Outcome.PASSED, (twin.measured, twin.why)


def test_a_slow_engine_loses_streaming_accuracy_and_no_other(world, table, tmp_path, monkeypatch):
    drive, labels = world.moving
    right = package(tmp_path / "right")
    monkeypatch.setitem(ENGINES, "slow", (__name__, SlowEngine.__name__))
    slow = _repacked(right, tmp_path / "slow", detector_file(), kind="slow")
    quick, late = (
        Case(each, drive, labels=labels, reference=package(tmp_path / "float"), timing=(drive,))
        for each in (right, slow)
    )
    twin, found = _streaming(quick, tmp_path / "quick"), _streaming(late, tmp_path / "late")
    table[SLOW[0]] = Caught(*SLOW, f"{found.measured.got:.3f}, limit {found.requirement.limit:g}", ())
    assert found.outcome is Outcome.FAILED, (found.measured, found.why)
    assert twin.outcome is Outcome.PASSED, (twin.measured, twin.why)
    offline = verdicts(late, Shelf(tmp_path / "late"), ("accuracy.ap50", "parity.agreement"))
    assert {verdict.outcome for verdict in offline.values()} == {Outcome.PASSED}


def test_without_labels_lateness_is_lost_and_flicker_is_not(world, table, tmp_path, monkeypatch):
    drive, _ = world.moving
    right = package(tmp_path / "right")
    monkeypatch.setitem(ENGINES, "slow", (__name__, SlowEngine.__name__))
    monkeypatch.setitem(ENGINES, "flickering", (__name__, FlickeringEngine.__name__))
    slow, flickering = (
        _repacked(right, tmp_path / kind, detector_file(), kind=kind) for kind in ("slow", "flickering")
    )
    found, twin = (
        _streaming(Case(each, drive), tmp_path / f"{each.folder.name}-evidence") for each in (slow, flickering)
    )
    table[LATE[0]] = Caught(*LATE, f"{found.measured.got:.3f}, limit {found.requirement.limit:g}", ())
    assert found.outcome is Outcome.FAILED, (found.measured, found.why)
    assert twin.outcome is Outcome.PASSED, (twin.measured, twin.why)
    flicker = verdicts(Case(flickering, drive), Shelf(tmp_path / "flickering-evidence"), ("temporal.flicker",))
    assert flicker["temporal.flicker"].measured.got > 0.25


def test_the_table_in_the_docs_names_every_fault(table):
    if len(table) < len(FAULTS) + 2:
        pytest.skip("not every fault was planted in this run")
    check_page("Small worlds", table)


def _verdict(case: Case, folder: Path, claim: str) -> Verdict:
    return verdicts(case, Shelf(folder / "evidence"), (claim,), **SMALL)[claim]


def _streaming(case: Case, folder: Path) -> Verdict:
    """The verdict as if nobody else had used the processors: on a busy machine slowness decides nothing."""
    trial = Trial(case, Shelf(folder), QUIET)
    kept = StreamingGate().measure(trial)
    values = {**kept.evidence.values, "only_slower": False}
    alone = KeptEvidence(kept.evidence.model_copy(update={"values": values}), kept.arrays, kept.sha256)
    policy = load_policy(None)
    (requirement,) = (
        each for each in policy.requirements(case.package.profile, "detection") if each.claim == "streaming.loss"
    )
    return judged(requirement, StreamingGate().read(alone, [requirement.quantity])[requirement.quantity])
