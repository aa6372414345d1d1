"""Only what passed, on exactly these bytes, is signed; what an edited judgement says does not count."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.dsse import Envelope

from perception.cli import main
from perception.errors import ReleaseError, VerificationError
from perception.package import open_package
from perception.release_client import read_public_key, verify_release
from safety_gates.keys import make_key, read_signer
from safety_gates.release import sign_release
from tests.conftest import PASSPHRASE
from tests.safety_gates.builders import SHIFTED, package, snapshot

POLICY = """
format: tollgate-policy/1
name: of a test
limits:
- {claim: accuracy.ap50, gate: accuracy, quantity: ap50, comparison: at_least, limit: 0.5, unit: ratio,
   why: w, source: s, owner: o}
- {claim: provenance.licence, gate: provenance, quantity: unknown_licences, comparison: at_most, limit: 0, unit: count,
   why: w, source: s, owner: o}
"""


def _gate(folder, drive, trial, *words):
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    pictures, labels = drive
    given = ["--recording", str(pictures), "--labels", str(labels), "--policy", str(policy), "--quiet"]
    return main(["gate", str(folder / trial), *given, *words])


@pytest.fixture(scope="module")
def judged(tmp_path_factory, short_drive):
    """A package that passed, a harmed one that failed, and keys; copied by each test."""
    folder = tmp_path_factory.mktemp("judged")
    package(folder / "package")
    package(folder / "harmed", bias=SHIFTED)
    assert _gate(folder, short_drive, "harmed") == 1
    (folder / "judgement.json").rename(folder / "failed.json")
    (folder / "report.html").rename(folder / "failed.html")
    assert _gate(folder, short_drive, "package") == 0
    make_key(folder / "keys" / "signer.pem", PASSPHRASE)
    return folder


@pytest.fixture
def bench(judged, tmp_path):
    return Bench(shutil.copytree(judged, tmp_path / "bench"))


class Bench:
    def __init__(self, folder):
        self.folder = folder
        self.release = folder / "release"

    def sign(self, trial="package", judgement="judgement.json"):
        return sign_release(
            open_package(self.folder / trial),
            self.folder / judgement,
            read_signer(self.folder / "keys" / "signer.pem"),
            output=self.release,
        )

    def refused(self, match, **which):
        before = snapshot(self.folder)
        with pytest.raises(ReleaseError, match=match) as refusal:
            self.sign(**which)
        assert "\n" not in str(refusal.value)
        assert snapshot(self.folder) == before

    def edit(self, change):
        path = self.folder / "judgement.json"
        judgement = json.loads(path.read_text())
        change(judgement)
        path.write_text(json.dumps(judgement))


def test_what_passed_is_released_and_verifies_with_the_public_key(bench):
    bench.sign()
    release = verify_release(bench.release, bench.folder / "keys" / "signer.pub")
    assert release.package.sha256 == open_package(bench.folder / "package").sha256
    assert release.claims == ("accuracy.ap50", "provenance.licence")
    assert sorted(path.name for path in bench.release.iterdir()) == [
        "judgement.json",
        "package",
        "report.html",
        "statement.dsse.json",
    ]


def test_the_statement_is_in_toto_as_the_standard_has_it(bench):
    bench.sign()
    document = json.loads((bench.release / "statement.dsse.json").read_text())
    statement = json.loads(base64.b64decode(document["payload"]))
    assert document["payloadType"] == "application/vnd.in-toto+json"
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == "PASSED"
    assert {entry["name"] for entry in statement["subject"]} == {
        f"package/{path.name}" for path in (bench.folder / "package").iterdir()
    }
    names = [entry["name"] for entry in statement["predicate"]["configuration"]]
    assert names == ["policy", "judgement.json", "report.html", "evidence/accuracy", "evidence/provenance"]
    key = read_public_key(bench.folder / "keys" / "signer.pub")
    assert list(Envelope.from_dict(document).verify([key], 1)) == [key.keyid]


def test_a_failed_judgement_is_not_released(bench):
    bench.refused("only a PASSED package is released: accuracy.ap50 is FAILED", trial="harmed", judgement="failed.json")


def test_an_inconclusive_judgement_is_not_released(bench, short_drive):
    assert _gate(bench.folder, short_drive, "package", "--frames", "1") == 3
    bench.refused("only a PASSED package is released: accuracy.ap50 is INCONCLUSIVE")


def test_the_judgement_of_another_package_does_not_count(bench):
    bench.refused("the judgement is of package .* gate this package", trial="harmed")


def test_a_judgement_edited_to_passed_does_not_count(bench):
    shutil.copy(bench.folder / "failed.json", bench.folder / "judgement.json")

    def pass_everything(judgement):
        judgement["outcome"] = "PASSED"
        for verdict in judgement["verdicts"]:
            verdict["outcome"] = "PASSED"

    bench.edit(pass_everything)
    bench.refused("claim accuracy.ap50: the judgement says PASSED, its evidence says FAILED", trial="harmed")


def test_a_judgement_pointed_at_evidence_of_another_package_does_not_count(bench):
    passed = json.loads((bench.folder / "judgement.json").read_text())["evidence"]
    failed = json.loads((bench.folder / "failed.json").read_text())
    failed.update(outcome="PASSED", evidence=passed)
    (bench.folder / "judgement.json").write_text(json.dumps(failed))
    bench.refused("is evidence of another package", trial="harmed")


def test_a_claim_dropped_from_the_judgement_does_not_count(bench):
    bench.edit(lambda judgement: judgement["verdicts"].pop())
    bench.refused("claim provenance.licence: the judgement says nothing, its evidence says PASSED")


def test_evidence_with_a_byte_flipped_does_not_count(bench):
    sha256 = json.loads((bench.folder / "judgement.json").read_text())["evidence"]["accuracy"]
    path = bench.folder / "evidence" / f"{sha256}.json"
    path.write_bytes(path.read_bytes().replace(b'"samples": 60', b'"samples": 90'))
    bench.refused("not released: .* was altered: measure again")


def test_missing_evidence_is_not_overlooked(bench):
    shutil.rmtree(bench.folder / "evidence")
    bench.refused("not released: .* evidence cannot be read")
    bench.edit(lambda judgement: judgement["evidence"].pop("accuracy"))
    bench.refused("the judgement rests on no evidence for accuracy")


def test_a_policy_emptied_after_the_fact_is_refused(bench):
    bench.edit(lambda judgement: judgement["policy"].update(limits=[]))
    bench.refused("not released: policy in the judgement: has no limit")


def test_a_report_that_was_edited_is_not_released(bench):
    (bench.folder / "report.html").write_text("<p>all is well</p>")
    bench.refused("is not the report of this judgement")
    (bench.folder / "report.html").unlink()
    bench.refused("no report")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "tollgate-judgement/1"}'])
def test_what_is_no_judgement_is_refused(bench, content):
    (bench.folder / "judgement.json").write_text(content)
    bench.refused("no judgement")


def test_a_release_is_never_overwritten(bench):
    bench.sign()
    bench.refused("exists; a release is never overwritten")


def test_a_package_that_changes_between_opening_and_signing_is_not_released(bench):
    opened = open_package(bench.folder / "package")
    (bench.folder / "package" / "engine.onnx").write_bytes(b"something else")
    signer = read_signer(bench.folder / "keys" / "signer.pem")
    before = snapshot(bench.folder)
    with pytest.raises(VerificationError, match=r"package/engine\.onnx: got sha256"):
        sign_release(opened, bench.folder / "judgement.json", signer, output=bench.release)
    assert snapshot(bench.folder) == before


class TestVerb:
    def test_keys_sign_verify_from_the_command_line(self, bench, capsys):
        folder = bench.folder
        assert main(["release", "keys", "--output", str(folder / "new")]) == 0
        words = ["--judgement", str(folder / "judgement.json"), "--key", str(folder / "new" / "signer.pem")]
        assert main(["release", "sign", str(folder / "package"), *words, "--output", str(bench.release)]) == 0
        assert "2 claims passed" in capsys.readouterr().out
        verify = ["release", "verify", str(bench.release), "--key", str(folder / "new" / "signer.pub"), "--json"]
        assert main(verify) == 0
        assert json.loads(capsys.readouterr().out)["claims"] == ["accuracy.ap50", "provenance.licence"]

    def test_a_pipeline_signs_with_a_key_from_its_secret_store(self, bench, capsys, monkeypatch):
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        monkeypatch.setenv("SIGNER_KEY", pem.decode())
        public = bench.folder / "signer.pub"
        public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        words = ["--judgement", str(bench.folder / "judgement.json"), "--output", str(bench.release)]
        sign = ["release", "sign", str(bench.folder / "package"), *words, "--key", "env:SIGNER_KEY"]
        assert main(sign) == 2
        assert "add --public-key PUB" in capsys.readouterr().err
        assert not bench.release.exists()
        assert main([*sign, "--public-key", str(public)]) == 0
        assert verify_release(bench.release, public).package.sha256 == open_package(bench.folder / "package").sha256

    def test_the_switches_may_stand_before_the_action(self, bench, capsys):
        assert main(["release", "--json", "keys", "--output", str(bench.folder / "new")]) == 0
        assert json.loads(capsys.readouterr().out)["public_key"].endswith("signer.pub")

    def test_a_release_that_does_not_verify_exits_with_2_in_one_line(self, bench, capsys):
        bench.sign()
        (bench.release / "report.html").write_text("<p>better</p>")
        code = main(["release", "verify", str(bench.release), "--key", str(bench.folder / "keys" / "signer.pub")])
        said = capsys.readouterr().err
        assert code == 2
        assert said.startswith("tollgate release: ")
        assert said.count("\n") == 1

    def test_a_refused_release_exits_with_2_and_leaves_nothing(self, bench, capsys):
        words = ["--judgement", str(bench.folder / "failed.json"), "--key", str(bench.folder / "keys" / "signer.pem")]
        code = main(["release", "sign", str(bench.folder / "harmed"), *words, "--output", str(bench.release)])
        assert code == 2
        assert "only a PASSED package is released" in capsys.readouterr().err
        assert not bench.release.exists()
