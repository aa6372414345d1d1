"""One pass over the recording serves everything that looks at each of its frames."""

from __future__ import annotations

from contextlib import closing

import pytest

from perception.sources.table import open_source
from safety_gates import looks, reading
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.gates import latency
from safety_gates.gates.latency import LatencyGate
from safety_gates.judge import judge
from safety_gates.looks import stretches
from safety_gates.policy import Policy, load_policy
from safety_gates.trial import Trial
from tests.safety_gates.builders import QUIET, null_package, package, patient_profile

SHARED = ("accuracy.ap50", "regression.reference", "parity.agreement", "determinism.reload", "evaluation.distinct")


@pytest.fixture
def opened(monkeypatch):
    """The recordings that a trial has opened to read their frames, one entry each time."""
    paths = []
    monkeypatch.setattr(reading, "open_source", lambda path: paths.append(path) or open_source(path))
    return paths


@pytest.fixture
def case(tmp_path, short_drive):
    pictures, labels = short_drive
    ours, twin = package(tmp_path / "package"), package(tmp_path / "float")
    return Case(ours, pictures, labels=labels, reference=twin, first_release=True)


def _policy(*claims):
    limits = tuple(limit for limit in load_policy(None).limits if limit.claim in claims)
    return Policy(name="of a test", limits=limits)


def test_five_gates_decode_the_recording_once(tmp_path, case, opened):
    judge(Trial(case, Shelf(tmp_path / "evidence"), QUIET), _policy(*SHARED))
    assert opened == [case.recording]


def test_only_what_lacks_evidence_looks_again(tmp_path, case, opened):
    shelf = Shelf(tmp_path / "evidence")
    first = judge(Trial(case, shelf, QUIET), _policy(*SHARED))
    shelf.discard(first.exhibits["determinism"].sha256)
    again = judge(Trial(case, shelf, QUIET), _policy(*SHARED))
    assert len(opened) == 2
    same = {name for name in first.exhibits if first.exhibits[name].sha256 == again.exhibits[name].sha256}
    assert same == {"accuracy", "regression", "parity", "calibration"}


def test_what_one_pass_measured_equals_what_each_measures_alone(tmp_path, case):
    together = judge(Trial(case, Shelf(tmp_path / "together"), QUIET), _policy(*SHARED))
    for claim in SHARED:
        alone = judge(Trial(case, Shelf(tmp_path / claim), QUIET), _policy(claim))
        (verdict,) = alone.verdicts
        twin = next(each for each in together.verdicts if each.requirement.claim == claim)
        assert (verdict.outcome, verdict.measured.got) == (twin.outcome, twin.measured.got)


def test_frames_come_in_odd_stretches_and_none_is_lost(monkeypatch, short_drive):
    with closing(open_source(short_drive[0])) as source:
        frames = list(source.frames())
    monkeypatch.setattr(looks, "STRETCH_BYTES", 4 * frames[0].pixels.nbytes)
    seen = list(stretches(iter(frames)))
    assert [frame for stretch in seen for frame in stretch] == frames
    assert [len(stretch) for stretch in seen] == [5] * (len(frames) // 5)


@pytest.mark.parametrize(("service_ms", "played"), [(0.0, 20), (1.0, 60)])
def test_latency_ends_at_its_first_look_only_where_no_frame_was_late(
    tmp_path, monkeypatch, short_drive, service_ms, played
):
    monkeypatch.setattr(latency, "samples_for_percentile", lambda *_: 20)
    profile = patient_profile()
    if service_ms:
        deadline = profile.deadline.model_copy(update={"value": 0.5})
        stage = deadline.model_copy(update={"value": 0.1})
        budget = profile.budget.model_copy(update={"preprocess": stage, "infer": stage, "postprocess": stage})
        profile = profile.model_copy(update={"deadline": deadline, "budget": budget})
    trial = Trial(
        Case(null_package(tmp_path / "package", service_ms=service_ms, profile=profile), short_drive[0]),
        Shelf(tmp_path / "evidence"),
        QUIET,
    )
    kept = LatencyGate().measure(trial)
    assert kept.evidence.samples == played
    assert LatencyGate().read(kept, ["missed"])["missed"].interval.confidence == 0.975


def test_latency_on_recordings_named_for_it_plays_all_of_them(tmp_path, monkeypatch, short_drive):
    monkeypatch.setattr(latency, "samples_for_percentile", lambda *_: 20)
    engine = null_package(tmp_path / "package", service_ms=0.0, profile=patient_profile())
    case = Case(engine, short_drive[0], timing=(short_drive[0],))
    kept = LatencyGate().measure(Trial(case, Shelf(tmp_path / "evidence"), QUIET))
    assert kept.evidence.samples == 60
    assert LatencyGate().read(kept, ["missed"])["missed"].interval.confidence == 0.95


@pytest.mark.parametrize(("quantity", "limit", "frames"), [("missed", 0.001, 4380), ("total_p99", 33.0, 437)])
def test_a_stricter_limit_wants_more_frames_before_the_first_look(tmp_path, short_drive, quantity, limit, frames):
    trial = Trial(Case(package(tmp_path / "package"), short_drive[0]), Shelf(tmp_path / "evidence"), QUIET)
    asked = next(each for each in load_policy(None).limits if each.gate == "latency" and each.quantity == quantity)
    trial.policy = Policy(name="of a test", limits=(asked.model_copy(update={"limit": limit}),))
    kept = LatencyGate().measure(trial)
    assert kept.evidence.conditions.settings["enough"] == frames
