"""What the TensorRT benchmark claims and refuses, on a machine without a GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from perception.agent.index import CommitRule, OnDeviceBuild, Tolerance
from perception.release_client import verify_release
from safety_gates.publishing.releases import Terms
from scripts.tensorrt_bench import lean
from scripts.tensorrt_bench.cases import PRECISIONS, Case, cases_in
from scripts.tensorrt_bench.compiled import claim
from scripts.tensorrt_bench.device import built_on_device
from scripts.tensorrt_bench.lean_worker import REFUSED, main
from tests.conftest import PASSPHRASE
from tests.perception.builders import MODELS, detector_package

SPECS = Path(__file__).resolve().parents[2] / "specs"


class Rows:
    """In the place of the book, which asks the GPU."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, float | None]] = {}

    def row(self, name, value, *, unit, samples, limit=None, better="lower"):
        assert unit
        assert samples
        assert better == "lower"
        self.rows[name] = (value, limit)


def candidate(name: str, ratio: float | None, loss: float = 0.0) -> dict:
    latency = None if ratio is None else {"p50_ms": ratio, "samples": 60, "times_float": {"median": ratio}}
    return {"name": name, "latency": latency, "loss": loss}


def answer(chosen: str) -> dict:
    rows = [candidate("fp32", 1.0), candidate("int8-plain", 0.8, 0.03), candidate("fp16", 0.5)]
    rows += [candidate("int8-plain, where it pays", 0.45, 0.004), candidate("int8-minmax", None)]
    return {"decision": {"chosen": chosen, "why": "", "candidates": rows}, "search": {"build_seconds": [60.0, 70.0]}}


@pytest.mark.parametrize(
    ("chosen", "ratio", "loss"),
    [("fp16", 1.0, 0.0), ("int8-plain", 1.6, 0.03), ("int8-plain, where it pays", 0.9, 0.004), ("fp32", 2.0, 0.0)],
)
def test_what_ships_is_held_against_the_fastest_plain_plan(chosen, ratio, loss):
    book = Rows()
    claim("yolox", answer(chosen), 200.0, book)
    words = "yolox, compile: time of what ships over the fastest of FP32, FP16 and all-INT8 (fp16)"
    assert book.rows[words] == (pytest.approx(ratio), 1.0)
    assert book.rows["yolox, compile: score lost"] == (loss, 0.01)
    assert book.rows["yolox, compile: plans built"] == (2, None)
    assert book.rows["yolox, compile: time of all builds"] == (130.0, None)
    assert book.rows["yolox, compile: from the command to the package"] == (200.0, 360.0)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    shutil.copy(SPECS / "yolox_nano_416.yaml", tmp_path)
    return Case("yolox_nano_416", tmp_path, tmp_path, tmp_path / "plans")


def test_a_forged_release_is_refused_before_a_runtime_is_imported(tmp_path, case, monkeypatch, capsys):
    monkeypatch.setattr(lean, "profile_here", lambda: "x86_h100")
    signer = CryptoSigner.generate_ed25519()
    release = lean.write_release(tmp_path / "release", b"a plan of some bytes", case, signer)
    key = tmp_path / "key.json"
    lean.write_key(key, signer)
    assert verify_release(release, signer.public_key).package.engine_bytes == b"a plan of some bytes"
    with pytest.raises(ModuleNotFoundError):  # verified: it goes on to the runtime, which is not here
        main(str(release), str(key), "feeds.npz", "answers.npz")
    lean._flip_one_bit(release / "package" / "engine.plan")
    assert main(str(release), str(key), "feeds.npz", "answers.npz") == REFUSED
    assert "refused: " in capsys.readouterr().out


def test_cases_are_the_models_that_are_there_and_float_plans_come_from_the_float_network(tmp_path):
    for name in ("yolox_nano_416", "nanodet_m_416"):
        shutil.copy(SPECS / f"{name}.yaml", tmp_path)
    (tmp_path / "yolox_nano_416.onnx").write_bytes(b"")
    (case,) = cases_in(tmp_path, tmp_path / "plans")
    assert case.name == "yolox_nano_416"
    names = {precision: case.model(precision).name for precision in (*PRECISIONS, "fp16-compatible")}
    assert names["fp16"] == names["fp32"] == names["fp16-compatible"] == "yolox_nano_416.onnx"
    assert names["int8"] == "yolox_nano_416.int8.onnx"


def test_what_an_agent_built_is_claimed_by_its_evidence(tmp_path, capsys, monkeypatch):
    """The whole chain, with the builder that a CPU has."""
    monkeypatch.setenv("TOLLGATE_PASSPHRASE", PASSPHRASE)
    book = Rows()
    book.out, book.raw = tmp_path / "out", {}
    package = detector_package(tmp_path / "package")
    limits = Tolerance(relative_error=0.02, disagreement=0.05, latency_p90_ms=60_000)
    terms = Terms(limits, CommitRule(), OnDeviceBuild(kind="onnxrt"))
    built_on_device(package.folder, MODELS.parent / "drive", book, terms)
    told = "sample_detector, built on the vehicle: relative_error against what was recorded before its release"
    assert book.rows[told][0] <= book.rows[told][1] == 0.02
    evidence = book.raw["evidence of what was built on the vehicle"]
    assert evidence["engine_sha256"] != package.engine_sha256
    assert "ON_TRIAL" in capsys.readouterr().out  # the second pass builds nothing
    refused = Terms(limits.model_copy(update={"latency_p90_ms": 1e-6}), CommitRule(), OnDeviceBuild(kind="onnxrt"))
    with pytest.raises(RuntimeError, match=r"tollgate agent: ended with 1: REFUSED .*latency_p90: got"):
        built_on_device(package.folder, MODELS.parent / "drive", book, refused)
