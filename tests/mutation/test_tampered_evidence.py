"""Whoever alters a package, its evidence or its data never gets a PASSED out of it; whoever is interrupted goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from perception.cli import main
from perception.errors import EvidenceError, ReleaseError
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.gates.gate import Unmeasured
from safety_gates.judge import judge
from safety_gates.keys import make_key, read_signer
from safety_gates.policy import Policy, load_policy
from safety_gates.release import sign_release
from safety_gates.trial import Trial
from safety_gates.verdict import Outcome
from tests.conftest import PASSPHRASE
from tests.safety_gates.builders import QUIET, drive, null_package, package, patient_profile

CLAIMS = ("accuracy.ap50", "determinism.reload")


@pytest.fixture
def policy():
    """Two claims that rest on the same results."""
    return Policy(name="of a test", limits=tuple(each for each in load_policy(None).limits if each.claim in CLAIMS))


@pytest.fixture
def case(tmp_path):
    """A sound package and a drive of its own, to be altered."""
    pictures, labels = drive(tmp_path / "drive", frames=60)
    return Case(package(tmp_path / "package"), pictures, labels=labels)


def flip(path: Path, position: float = 0.5) -> None:
    """One bit of one byte."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def shelf_of(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "evidence")


def test_the_unharmed_twin_passes(tmp_path, case, policy):
    judgement = judge(Trial(case, shelf_of(tmp_path), QUIET), policy)
    assert judgement.outcome is Outcome.PASSED


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_byte_of_any_evidence_file_takes_down_what_rests_on_it(tmp_path, case, policy, suffix, position):
    shelf = shelf_of(tmp_path)
    exhibits = judge(Trial(case, shelf, QUIET), policy).exhibits
    results = exhibits["accuracy"].evidence.rests_on
    assert results == exhibits["determinism"].evidence.rests_on
    victim = shelf.read(results[0])
    flip(shelf.folder / (f"{victim.sha256}.json" if suffix == ".json" else victim.evidence.arrays.file), position)
    for kept in exhibits.values():
        with pytest.raises(EvidenceError, match="was altered"):
            shelf.read(kept.sha256)
        assert shelf.find(kept.evidence.conditions)[0] is None


def test_a_release_of_tampered_evidence_is_refused(tmp_path, case):
    words = ["gate", str(case.package.folder), "--recording", str(case.recording), "--labels", str(case.labels)]
    path = tmp_path / "policy.yaml"
    limits = [each.model_dump(mode="json") for each in load_policy(None).limits if each.claim in CLAIMS]
    path.write_text(yaml.safe_dump({"format": "tollgate-policy/1", "name": "of a test", "limits": limits}))
    assert main([*words, "--policy", str(path), "--quiet"]) == 0
    private = tmp_path / "keys" / "signer.pem"
    make_key(private, PASSPHRASE)
    for number, evidence in enumerate(sorted((tmp_path / "evidence").iterdir())):
        kept = evidence.read_bytes()
        flip(evidence)
        with pytest.raises(ReleaseError, match="not released"):
            sign_release(case.package, tmp_path / "judgement.json", read_signer(private), output=tmp_path / str(number))
        evidence.write_bytes(kept)
    assert sign_release(case.package, tmp_path / "judgement.json", read_signer(private), output=tmp_path / "good")


@pytest.mark.parametrize("victim", ["recording", "labels", "package"])
def test_what_changes_while_it_is_tried_decides_nothing_and_leaves_no_evidence(tmp_path, case, policy, victim):
    trial = Trial(case, shelf_of(tmp_path), QUIET)
    folder = {"recording": case.recording, "labels": case.labels, "package": case.package.folder}[victim]
    changed = max(folder.iterdir())
    kept = changed.read_bytes()
    changed.write_bytes(kept + b"\n")  # behind the end of a picture, a label or the YAML of a profile: read as before
    judgement = judge(trial, policy)
    touched = {verdict.requirement.claim for verdict in judgement.verdicts if verdict.outcome is not Outcome.PASSED}
    assert touched == ({"accuracy.ap50"} if victim == "labels" else set(CLAIMS))
    assert all("while it was tried" in verdict.why for verdict in judgement.verdicts if verdict.measured.got is None)
    assert isinstance(judgement.exhibits["accuracy"], Unmeasured)
    changed.write_bytes(kept)
    assert trial.shelf.find(trial.conditions("accuracy", looks_at=("recording", "labels")))[0] is None


def test_evidence_of_another_machine_is_refused_with_the_reason(tmp_path, case, policy):
    trial = Trial(case, shelf_of(tmp_path), QUIET)
    kept = judge(trial, policy).exhibits["determinism"]
    elsewhere = kept.evidence.conditions.model_copy(update={"machine": {**trial.machine, "cpu.model": "another"}})
    found, why = trial.shelf.find(elsewhere)
    assert found is None
    assert why == f"machine: cpu.model was {trial.machine['cpu.model']}, is another"


def test_evidence_of_an_edited_gate_is_stale(tmp_path, case, policy):
    trial = Trial(case, shelf_of(tmp_path), QUIET)
    kept = judge(trial, policy).exhibits["determinism"]
    version, code = kept.evidence.conditions.tollgate.split("+")
    edited = kept.evidence.conditions.model_copy(update={"tollgate": f"{version}+{code[::-1]}"})
    assert "made by tollgate" in trial.shelf.find(edited)[1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_gate_goes_on_where_it_was(tmp_path, capsys, how):
    pictures, _ = drive(tmp_path / "drive", frames=60)
    slow = null_package(tmp_path / "package", service_ms=30.0, profile=patient_profile())
    claims = ("determinism.reload", "latency.infer_budget")
    limits = [each.model_dump(mode="json") for each in load_policy(None).limits if each.claim in claims]
    policy = tmp_path / "policy.yaml"
    fields = {"format": "tollgate-policy/1", "name": "of a test", "limits": limits}
    policy.write_text(yaml.safe_dump(fields))
    words = ["gate", str(slow.folder), "--recording", str(pictures), "--policy", str(policy)]
    process = subprocess.Popen([sys.executable, "-m", "perception.cli", *words], stdout=subprocess.DEVNULL)
    first = _wait_for_evidence(tmp_path / "evidence")
    os.kill(process.pid, how)
    assert process.wait(timeout=60) != 0
    assert not (tmp_path / "judgement.json").exists()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"evidence {first[:12]} is re-used" in said
    assert "results of null: evidence" in said
    assert "latency of null: measuring (no evidence yet)" in said


def _wait_for_evidence(folder: Path) -> str:
    """Digest of the first evidence that is whole."""
    for _ in range(600):
        if found := [path.stem for path in folder.glob("[0-9a-f]*.json")]:
            return found[0]
        time.sleep(0.1)
    raise TimeoutError(f"{folder}: no evidence within a minute")
