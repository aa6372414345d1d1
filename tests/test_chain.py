"""The whole chain on the bundled samples, as a user types it: every step refuses what was not vouched for."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from perception.cli import main

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples"
MODEL, DRIVE, CALIBRATION = SAMPLES / "models" / "sample_detector.onnx", SAMPLES / "drive", SAMPLES / "calibration"

PROFILE = "arm_cpu" if platform.machine() == "aarch64" else "x86_cpu"

POLICY = """
format: tollgate-policy/1
name: a few frames
limits:
  - {claim: accuracy.ap50, gate: accuracy, quantity: ap50, comparison: at_least, limit: 0.30, unit: ratio,
     why: it must find something, source: this test, owner: tests}
  - {claim: parity.agreement, gate: parity, quantity: agreement, comparison: at_least, limit: 0.90, unit: ratio,
     why: it must be the model that was trained, source: this test, owner: tests}
  - {claim: provenance.bytes, gate: provenance, quantity: altered_files, comparison: at_most, limit: 0, unit: count,
     why: evidence speaks of bytes, source: this test, owner: tests}
"""


def tollgate(*words: object) -> int:
    """The command line, without progress."""
    return main([*map(str, words), "--quiet"])


def reference_in(repository: Path) -> dict[str, Any] | None:
    """Of the one release in a repository, as it was signed."""
    (index,) = repository.glob("targets/releases/*/*.index.json")
    found: dict[str, Any] | None = json.loads(index.read_text())["reference"]
    return found


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with float, package, report, keys and release, made by the verbs."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "policy.yaml").write_text(POLICY)
    compiled = tollgate(
        *("compile", MODEL, "--profile", PROFILE, "--calibration", CALIBRATION, "--frames", "16"),
        *("--precision", "fp32", "--output", folder / "package", "--reference-output", folder / "float"),
    )
    gated = tollgate(
        *("gate", folder / "package", "--recording", DRIVE, "--labels", DRIVE, "--reference", folder / "float"),
        *("--frames", "40", "--policy", folder / "policy.yaml", "--report", folder / "report.html"),
    )
    keyed = tollgate("release", "keys", "create", "--output", folder / "keys", "--repository", folder / "repository")
    signed = tollgate(
        *("release", "sign", folder / "package", "--judgement", folder / "judgement.json"),
        *("--key", folder / "keys" / "signer.pem", "--output", folder / "release"),
    )
    assert (compiled, gated, keyed, signed) == (0, 0, 0, 0)
    return folder


def test_a_vehicle_gets_the_release_from_the_repository_and_keeps_it_after_a_drive(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, vehicle = tmp_path / "repository", tmp_path / "vehicle"
    shutil.copytree(chain / "repository", repository)
    where = ("--repository", repository, "--keys", chain / "keys")
    terms = ("--latency-ms", 60_000, "--commit-frames", 4, "--commit-late", 1)
    scenes = ("--frames-of", DRIVE, "--reference-frames", 120)
    assert tollgate("release", "publish", chain / "release", *where, *scenes, *terms, "--offer") == 0
    assert reference_in(repository)["output"]["frames"] == 120
    assert tollgate("release", "verify", repository, "--root", repository / "metadata" / "1.root.json") == 0
    me = ("--root", repository / "metadata" / "1.root.json", "--profile", PROFILE, "--vehicle-id", "V1", "--once")
    assert tollgate("agent", vehicle, "--repository", repository, *me) == 0
    assert tollgate("replay", vehicle / "active", DRIVE, "--frames", 4, "--agent", vehicle) == 0
    assert tollgate("agent", vehicle, "--repository", repository, *me) == 0
    capsys.readouterr()
    assert tollgate("agent", vehicle, "--status") == 0
    assert "committed" in capsys.readouterr().out
    assert 'tollgate_agent_last_pass_seconds{outcome="COMMITTED"}' in (vehicle / "metrics.prom").read_text()


def test_a_recording_too_short_for_a_reference_is_said_when_it_is_published(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(chain / "repository", repository)
    where = ("--repository", repository, "--keys", chain / "keys", "--frames-of", DRIVE, "--reference-frames", 8)
    assert main([*map(str, ("release", "publish", chain / "release", *where))]) == 0
    assert "no reference: 8 frames, expected at least 100" in " ".join(capsys.readouterr().out.split())
    assert reference_in(repository) is None


def test_a_release_runs_where_its_key_is_required(chain: Path, tmp_path: Path) -> None:
    key = chain / "keys" / "signer.pub"
    log = tmp_path / "log.jsonl"
    assert tollgate("replay", chain / "release", DRIVE, "--frames", 4, "--require-release", key, "--log", log) == 0
    assert log.read_text().count("\n") == 6


def test_the_package_alone_does_not_run_where_a_release_is_required(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = chain / "keys" / "signer.pub"
    assert tollgate("replay", chain / "package", DRIVE, "--frames", 4, "--require-release", key) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_flipped_byte_in_a_release_stops_it_everywhere(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = tmp_path / "release"
    shutil.copytree(chain / "release", release)
    engine = release / "package" / "engine.onnx"
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    key = chain / "keys" / "signer.pub"
    for words in (
        ("release", "verify", release, "--key", key),
        ("replay", release, DRIVE, "--frames", 1, "--require-release", key),
        ("replay", release / "package", DRIVE, "--frames", 1),
        ("gate", release / "package", "--recording", DRIVE, "--frames", 1, "--report", tmp_path / "report.html"),
    ):
        assert tollgate(*words) == 2, words
        assert "engine.onnx" in capsys.readouterr().err
    assert sorted(child.name for child in tmp_path.iterdir()) == ["release"]


def test_two_replays_of_one_recording_give_the_same_results(chain: Path, tmp_path: Path) -> None:
    summaries = []
    for name in ("first", "second"):
        log = tmp_path / f"{name}.jsonl"
        assert tollgate("replay", chain / "package", DRIVE, "--frames", 20, "--log", log) == 0
        summaries.append(log.read_text().splitlines()[-1])
    assert summaries[0] == summaries[1]


def test_a_package_that_was_not_gated_is_not_signed(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("release", "sign", chain / "float", "--judgement", chain / "judgement.json")
    code = tollgate(*words, "--key", chain / "keys" / "signer.pem", "--output", tmp_path / "release")
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
