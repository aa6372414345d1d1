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
from safety_gates.gates import latency, sensor_faults
from safety_gates.verdict import Outcome
from tests.mutation import engines
from tests.mutation.bench import Bench, FakeClock
from tests.mutation.engines import FAULTY
from tests.mutation.machine_faults import HEALTH_FAULTS, LONGEST, MACHINE_FAULTS, TWINS, of_kind, timed

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


@pytest.mark.parametrize("planted", MACHINE_FAULTS, ids=lambda planted: planted.fault)
def test_a_planted_fault_is_caught(bench, planted):
    verdict = bench.verdict(planted.plant(bench), planted.claim, planted.change)
    assert verdict.outcome is planted.outcome, verdict.why
    assert planted.because in verdict.why


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
def test_a_camera_health_that_is_blind_to_a_fault_is_caught(bench, monkeypatch, fault):
    claim, blind = HEALTH_FAULTS[fault]
    monkeypatch.setattr(sensor_faults, "CameraHealth", partial(CameraHealth, limits=HealthLimits(**blind)))
    verdict = bench.verdict(of_kind("onnxrt")(bench), claim)
    assert verdict.outcome is Outcome.FAILED
    assert fault in verdict.why


@pytest.mark.parametrize("fault", ["duplicated", "reordered", "wrong size"])
def test_a_camera_health_that_never_looks_is_caught(bench, monkeypatch, fault):
    monkeypatch.setattr(CameraHealth, "observe", lambda *_, **__: frozenset())
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.flagged")
    assert verdict.outcome is Outcome.FAILED
    assert fault in verdict.why


def test_a_late_flag_is_caught(bench, monkeypatch):
    late = partial(CameraHealth, limits=HealthLimits(frozen_after=5))
    monkeypatch.setattr(sensor_faults, "CameraHealth", late)
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.delay", {"limit": 2.0})
    assert verdict.outcome is Outcome.FAILED
    assert "frozen" in verdict.why


def test_a_decoder_that_takes_any_number_is_caught(bench, monkeypatch):
    for module in (decoder, yolox):
        monkeypatch.setattr(module, "finite", lambda values, _: values)
    verdict = bench.verdict(of_kind("onnxrt")(bench), "faults.flagged")
    assert verdict.outcome is Outcome.FAILED
    assert "no numbers" in verdict.why


def test_a_runtime_without_a_bill_of_materials_is_caught(bench, monkeypatch):
    monkeypatch.setattr(sbom, "GENERATOR", "no_such_generator")
    verdict = bench.verdict(of_kind("onnxrt")(bench), "provenance.sbom")
    assert verdict.outcome is Outcome.FAILED
    assert "pip install" in verdict.why
