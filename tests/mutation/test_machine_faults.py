"""Every planted fault is caught by the gate it is aimed at, and the unharmed twin passes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from perception import pipeline
from perception.camera_health import CameraHealth, HealthLimits
from perception.decoders import decoder, yolox
from perception.engines import null
from perception.engines.table import ENGINES
from safety_gates import open_loop, sbom
from safety_gates.case import SOAK_FRAMES
from safety_gates.gates import latency, sensor_faults
from safety_gates.report.words import SIGNS, with_unit
from safety_gates.verdict import Outcome
from tests.mutation import engines
from tests.mutation.bench import Bench, FakeClock
from tests.mutation.engines import FAULTY
from tests.mutation.machine_faults import HEALTH_FAULTS, LONGEST, MACHINE_FAULTS, TWINS, of_kind, timed
from tests.mutation.table import Caught, check_page

NEVER_LOOKS = ("duplicated", "reordered", "wrong size")
PLANTED = len(MACHINE_FAULTS) + len(HEALTH_FAULTS) + len(NEVER_LOOKS) + 3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def faulty_engines(monkeypatch, tmp_path):
    """The faulty kinds of engines exist here, and in every process that is started from here."""
    for kind, name in FAULTY.items():
        monkeypatch.setitem(ENGINES, kind, ("tests.mutation.engines", name))
    (tmp_path / "sitecustomize.py").write_text("from tests.mutation.engines import register\nregister()\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Whatever else runs on this machine takes no time: only the engines' own sleeping and waiting does."""
    clock = FakeClock()
    for module in (open_loop, pipeline, null, engines):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(latency, "share_of_others", lambda _: None)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def caught():
    """Every fault that was planted, and what its gate said, in the order of the tests."""
    return {}


def note(caught, fault, verdict):
    """Keep what the gate said of a fault for the page."""
    asked, measured = verdict.requirement, verdict.measured
    limit = f"{SIGNS[asked.comparison]} {with_unit(asked.limit, asked.unit)}"
    said = "not measured" if measured.got is None else f"{with_unit(measured.got, asked.unit)}, limit {limit}"
    caught[fault] = Caught(fault, asked.claim, said, ())


@pytest.mark.parametrize("planted", MACHINE_FAULTS, ids=lambda planted: planted.fault)
def test_a_planted_fault_is_caught(bench, caught, planted):
    verdict = bench.verdict(planted.plant(bench), planted.claim, planted.change)
    assert verdict.outcome is planted.outcome, verdict.why
    assert planted.because in verdict.why
    note(caught, planted.fault, verdict)


@pytest.mark.parametrize("claim", TWINS)
def test_the_unharmed_twin_passes(bench, claim):
    change = next(planted.change for planted in MACHINE_FAULTS if planted.claim == claim)
    verdict = bench.verdict(TWINS[claim](bench), claim, change)
    assert verdict.outcome is Outcome.PASSED, verdict.why


@pytest.mark.parametrize("change", [{}, LONGEST], ids=["p99", "the longest"])
def test_the_unharmed_twin_is_in_time(bench, change):
    verdict = bench.verdict(timed("onnxrt")(bench), "latency.deadline", change)
    assert verdict.outcome is Outcome.PASSED, verdict.why
    assert verdict.measured.samples == 1000


@pytest.mark.parametrize("fault", HEALTH_FAULTS)
def test_a_camera_health_that_is_blind_to_a_fault_is_caught(bench, caught, monkeypatch, fault):
    claim, blind = HEALTH_FAULTS[fault]
    monkeypatch.setattr(sensor_faults, "CameraHealth", partial(CameraHealth, limits=HealthLimits(**blind)))
    verdict = bench.verdict(of_kind("onnxrt")(bench), claim)
    assert verdict.outcome is Outcome.FAILED
    assert fault in verdict.why
    note(caught, f"a camera health that is blind to: {fault}", verdict)


@pytest.mark.parametrize("fault", NEVER_LOOKS)
def test_a_camera_health_that_never_looks_is_caught(bench, caught, monkeypatch, fault):
    monkeypatch.setattr(CameraHealth, "observe", lambda *_, **__: frozenset())
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.flagged")
    assert verdict.outcome is Outcome.FAILED
    assert fault in verdict.why
    note(caught, f"a camera health that never looks: {fault}", verdict)


def test_a_late_flag_is_caught(bench, caught, monkeypatch):
    late = partial(CameraHealth, limits=HealthLimits(frozen_after=5))
    monkeypatch.setattr(sensor_faults, "CameraHealth", late)
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.delay", {"limit": 2.0})
    assert verdict.outcome is Outcome.FAILED
    assert "frozen" in verdict.why
    note(caught, "a frozen camera that is flagged late", verdict)


def test_a_decoder_that_takes_any_number_is_caught(bench, caught, monkeypatch):
    for module in (decoder, yolox):
        monkeypatch.setattr(module, "finite", lambda values, _: values)
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.flagged")
    assert verdict.outcome is Outcome.FAILED
    assert "no numbers" in verdict.why
    note(caught, "a decoder that takes any number", verdict)


def test_a_runtime_without_a_bill_of_materials_is_caught(bench, caught, monkeypatch):
    monkeypatch.setattr(sbom, "GENERATOR", "no_such_generator")
    verdict = bench.verdict(of_kind("onnxrt")(bench), "provenance.sbom")
    assert verdict.outcome is Outcome.FAILED
    assert "pip install" in verdict.why
    note(caught, "a runtime without a bill of materials", verdict)


def test_the_page_names_every_planted_fault(caught):
    if len(caught) < PLANTED:
        pytest.skip(f"only {len(caught)} of {PLANTED} faults were planted in this run")
    check_page("Around the network", caught)


def test_memory_that_is_taken_once_in_the_middle_of_a_soak_is_no_leak(bench):
    verdict = bench.verdict(of_kind("settling")(bench), "resources.growth")
    assert verdict.outcome is Outcome.PASSED, (verdict.measured, verdict.why)
    assert verdict.measured.samples > SOAK_FRAMES
