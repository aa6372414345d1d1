from __future__ import annotations

import pytest

from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.gates.latency import LatencyGate
from safety_gates.looks import Observation
from safety_gates.trial import Trial
from tests.safety_gates.builders import QUIET, package


@pytest.mark.parametrize(("share_of_others", "again"), [(0.0, False), (None, False), (0.05, False), (0.06, True)])
def test_latency_measured_among_other_programs_is_measured_again(tmp_path, short_drive, share_of_others, again):
    pictures, _ = short_drive
    case = Case(package(tmp_path / "package"), pictures, command="tollgate gate")
    trial = Trial(case, Shelf(tmp_path / "evidence"), QUIET)
    first = LatencyGate().measure(trial)
    values = {**first.evidence.values, "share_of_others": share_of_others}
    trial.shelf.discard(first.sha256)
    kept = trial.measure(first.evidence.conditions, lambda: Observation(first.evidence.samples, values, first.arrays))
    later = Trial(case, trial.shelf, QUIET)
    assert (LatencyGate().measure(later).sha256 != kept.sha256) is again
