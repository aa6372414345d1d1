"""`tollgate gate` from the command line: verdicts as exit codes, evidence re-used, every misuse one line."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files

import pytest
import yaml

from perception.cli import main
from safety_gates.gates import latency
from tests.safety_gates.builders import SHIFTED, package, snapshot

DEADLINE_S = {"limit": 33.0, "unit": "s"}


@pytest.fixture
def bench(tmp_path, labelled_drive, timed_drive):
    """A folder with a right package, its float twin, and a drive; calls the verb on them."""
    package(tmp_path / "package")
    package(tmp_path / "float")
    for source, name in zip((*labelled_drive, timed_drive[0]), ("pictures", "labels", "timed"), strict=True):
        shutil.copytree(source, tmp_path / name)
    default = (files("safety_gates") / "policies" / "default.yaml").read_text()
    (tmp_path / "small_objects.yaml").write_text(default.replace("least_height_px: 25", "least_height_px: 10"))
    return Bench(tmp_path)


class Bench:
    def __init__(self, folder):
        self.folder = folder

    def gate(self, *words, trial="package", labels=True, reference=True):
        words = ["gate", str(self.folder / trial), "--recording", str(self.folder / "pictures"), "--quiet", *words]
        words += ["--timing-recording", str(self.folder / "timed"), "--first-release"]
        if "--policy" not in words:
            words += ["--policy", str(self.folder / "small_objects.yaml")]
        words += ["--labels", str(self.folder / "labels")] * labels
        words += ["--reference", str(self.folder / "float")] * reference
        return main(words)

    def judgement(self):
        return json.loads((self.folder / "judgement.json").read_text())

    def outcomes(self):
        return {verdict["claim"]: verdict["outcome"] for verdict in self.judgement()["verdicts"]}

    def policy(self, **change):
        limit = {
            "claim": "latency.deadline",
            "gate": "latency",
            "quantity": "total_p99",
            "comparison": "at_most",
            "limit": "profile.deadline_ms",
            "unit": "ms",
            "why": "late is lost",
            "source": "a test",
            "owner": "tests",
        }
        path = self.folder / "policy.yaml"
        path.write_text(
            yaml.safe_dump({"format": "tollgate-policy/1", "name": "of a test", "limits": [{**limit, **change}]})
        )
        return str(path)


def test_a_right_package_passes_everything_and_exits_with_0(bench):
    assert bench.gate() == 0
    judgement = bench.judgement()
    assert judgement["outcome"] == "PASSED"
    assert set(bench.outcomes().values()) == {"PASSED"}
    not_had = {f"calibration.{name}" for name in ("frames", "apart", "covers")} | {"regression.release"}
    left_out = set(judgement["left_out"])
    assert not_had | {"accuracy.miou", "parity.mask_agreement"} <= left_out
    assert all("mask" in claim or "miou" in claim or claim in not_had for claim in left_out)
    assert (bench.folder / "report.html").exists()
    assert sorted(path.name for path in bench.folder.iterdir() if path.name.startswith(".")) == []


def test_a_harmed_package_fails_and_exits_with_1(bench):
    package(bench.folder / "harmed", bias=SHIFTED)
    assert bench.gate(trial="harmed") == 1
    assert bench.judgement()["outcome"] == "FAILED"
    assert bench.outcomes()["accuracy.ap50"] == "FAILED"
    assert bench.outcomes()["latency.deadline"] == "PASSED"


def test_what_cannot_be_decided_exits_with_3(bench):
    assert bench.gate(labels=False, reference=False) == 3
    assert bench.outcomes()["accuracy.ap50"] == "INCONCLUSIVE"
    assert bench.outcomes()["parity.agreement"] == "INCONCLUSIVE"
    assert bench.judgement()["outcome"] == "INCONCLUSIVE"


def test_json_prints_the_judgement_and_nothing_else(bench, capsys):
    assert bench.gate("--json", "--policy", bench.policy()) == 0
    assert json.loads(capsys.readouterr().out) == bench.judgement()


def test_evidence_is_re_used_and_only_what_went_stale_is_measured_again(bench, capsys, monkeypatch):
    monkeypatch.setattr(latency, "share_of_others", lambda _: None)  # among other programs it is measured again
    words = ["gate", str(bench.folder / "package"), "--recording", str(bench.folder / "pictures")]
    words += ["--labels", str(bench.folder / "labels")]
    assert main(words) == 3
    first = bench.judgement()["evidence"]
    assert "no evidence yet" in capsys.readouterr().out
    assert main(words) == 3
    said = capsys.readouterr().out
    assert "accuracy of cells: evidence" in said
    assert bench.judgement()["evidence"]["latency"] == first["latency"]
    (bench.folder / "labels" / "000000.txt").write_text("car 0 0 0 0 0 16 16 1 1 1 0 1 5 0\n")
    assert main(words) == 3
    said = capsys.readouterr().out
    assert "accuracy of cells: measuring (labels: 000000.txt changed)" in said
    assert "latency of cells: evidence" in said
    assert bench.judgement()["evidence"]["accuracy"] != first["accuracy"]


def test_a_flipped_byte_of_evidence_never_passes_it_is_measured_again(bench, capsys):
    policy = bench.policy()
    words = ["gate", str(bench.folder / "package"), "--recording", str(bench.folder / "pictures"), "--policy", policy]
    assert main(words) == 0
    capsys.readouterr()
    (arrays,) = (bench.folder / "evidence").glob("*.npz")
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    assert main(words) == 0
    assert "latency of cells: measuring" in (said := capsys.readouterr().out)
    assert "was altered" in said


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--policy", "none.yaml"], "none.yaml: no readable policy"),
        (["--class-map", "none.yaml"], "none.yaml: no readable class map"),
        (["--reference", "none"], "none: no engine package"),
        (["--recording", "none"], "none: does not exist"),
        (["--labels", "none"], "none: "),
    ],
)
def test_bad_input_is_one_line_exits_with_2_and_changes_nothing(bench, capsys, words, match):
    before = snapshot(bench.folder)
    base = {"--recording": "pictures", "--labels": "labels", "--reference": "float"}
    given = {option: str(bench.folder / name) for option, name in base.items()} | {words[0]: words[1]}
    assert main(["gate", str(bench.folder / "package"), *(word for pair in given.items() for word in pair)]) == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert snapshot(bench.folder) == before


def test_a_policy_in_a_wrong_unit_is_refused_before_any_work(bench, capsys):
    policy = bench.policy(**DEADLINE_S)
    assert bench.gate("--policy", policy) == 2
    assert "got unit 's', total_p99 is in 'ms'" in capsys.readouterr().err
    assert not (bench.folder / "evidence").exists()


def test_a_package_with_one_byte_flipped_is_refused(bench, capsys):
    path = bench.folder / "package" / "engine.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert bench.gate() == 2
    assert "engine.onnx: got sha256" in capsys.readouterr().err
    assert not (bench.folder / "evidence").exists()


def test_an_unreadable_frame_ends_it_without_a_judgement(bench, capsys):
    (bench.folder / "pictures" / "000200.png").write_bytes(b"no picture")
    assert bench.gate() == 2
    assert "000200.png" in capsys.readouterr().err
    assert not (bench.folder / "judgement.json").exists()


def test_an_output_folder_that_cannot_be_written_is_told(bench, capsys):
    (bench.folder / "file").write_text("in the way")
    assert bench.gate("--evidence", str(bench.folder / "file" / "evidence")) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (bench.folder / "judgement.json").exists()


def test_only_the_first_frames_are_tried_when_asked(bench):
    assert bench.gate("--frames", "20") == 3
    assert next(v for v in bench.judgement()["verdicts"] if v["claim"] == "regression.reference")["samples"] == 20
