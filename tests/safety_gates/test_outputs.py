"""What is written beside the report is understood by those it is written for: tools that are not ours."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError as CannotVerify
from securesystemslib.signer import SSlibKey

from perception.cli import main
from perception.files import sha256_of_bytes, sha256_of_file
from safety_gates.keys import make_key
from tests.conftest import PASSPHRASE
from tests.safety_gates.builders import BUILD, SHIFTED, package


@pytest.fixture(scope="module")
def gated(tmp_path_factory, short_drive):
    """A package with one claim failed and one undecided, and everything that `gate` can write about it."""
    folder = tmp_path_factory.mktemp("gated")
    package(folder / "package", bias=SHIFTED)
    pictures, labels = short_drive
    private = folder / "keys" / "signer.pem"
    make_key(private, PASSPHRASE)
    words = ["gate", str(folder / "package"), "--recording", str(pictures), "--labels", str(labels), "--quiet"]
    words += ["--junit", str(folder / "gate.xml"), "--markdown", str(folder / "gate.md")]
    words += ["--sbom", str(folder / "sbom.json"), "--attestation", str(folder / "result.dsse.json")]
    assert main([*words, "--key", str(private)]) == 1
    return folder


@pytest.fixture(scope="module")
def judgement(gated):
    return json.loads((gated / "judgement.json").read_text())


def outcomes(judgement, outcome):
    return [each["claim"] for each in judgement["verdicts"] if each["outcome"] == outcome]


def test_junit_holds_a_case_a_claim_and_every_claim_that_did_not_pass_is_red(gated, judgement):
    suite = ElementTree.parse(gated / "gate.xml").getroot().find("testsuite")
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert list(cases) == [each["claim"] for each in judgement["verdicts"]]
    assert [name for name, case in cases.items() if case.find("failure") is not None] == outcomes(judgement, "FAILED")
    undecided = [name for name, case in cases.items() if case.find("error") is not None]
    assert undecided == outcomes(judgement, "INCONCLUSIVE")
    assert undecided
    assert not suite.findall(".//skipped")
    assert (suite.get("tests"), suite.get("errors")) == (str(len(cases)), str(len(undecided)))


def test_every_undecided_claim_says_what_to_collect(judgement):
    undecided = [each for each in judgement["verdicts"] if each["outcome"] == "INCONCLUSIVE"]
    assert all(each["collect"] for each in undecided)
    late = next(each for each in undecided if each["claim"] == "latency.deadline")
    assert "give at least 368" in late["collect"]
    assert all(not each["collect"] for each in judgement["verdicts"] if each["outcome"] != "INCONCLUSIVE")


def test_markdown_names_the_verdict_first_and_every_claim_once_in_its_table(gated, judgement):
    text = (gated / "gate.md").read_text()
    assert text.startswith("## ✗ FAILED: cells for x86_cpu")
    rows = [line.split("|")[2].strip(" `") for line in text.splitlines() if line.startswith(("| ✓", "| ✗", "| ?"))]
    assert rows == [each["claim"] for each in judgement["verdicts"]]
    against = [line for line in text.splitlines() if line.startswith("- **")]
    assert len(against) == len(outcomes(judgement, "FAILED")) + len(outcomes(judgement, "INCONCLUSIVE"))
    assert text.index("- **FAILED**") < text.index("- **INCONCLUSIVE**")


def test_the_bill_of_materials_is_cyclonedx_and_lists_the_runtime(gated):
    document = json.loads((gated / "sbom.json").read_text())
    wanted = {"onnxruntime", "numpy", "tollgate"}
    some = [each for each in document["components"] if each["name"] in wanted]
    assert {each["name"] for each in some} == wanted
    few = {**document, "components": some, "dependencies": []}  # the schema's checker takes seconds for each dozen
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(few)) is None


def test_a_third_party_verifies_the_attestation(gated, judgement):
    envelope = Envelope.from_dict(json.loads((gated / "result.dsse.json").read_text()))
    key = SSlibKey.from_crypto(serialization.load_pem_public_key((gated / "keys" / "signer.pub").read_bytes()))
    envelope.verify([key], 1)
    message = json_format.Parse(envelope.payload, statement_pb2.Statement())
    subjects = list(message.subject)
    statement = Statement(subjects, message.predicate_type, json_format.MessageToDict(message.predicate))
    statement.validate()
    predicate = json.loads(envelope.payload)["predicate"]
    assert message.predicate_type == "https://in-toto.io/attestation/test-result/v0.1"
    assert predicate["result"] == "FAILED"
    assert predicate["failedTests"] == outcomes(judgement, "FAILED")
    assert predicate["warnedTests"] == outcomes(judgement, "INCONCLUSIVE")
    named = {each["name"]: each["digest"]["sha256"] for each in predicate["configuration"]}
    assert named["judgement.json"] == sha256_of_file(gated / "judgement.json")
    assert named["report.html"] == sha256_of_file(gated / "report.html")
    digests = {each.digest["sha256"] for each in message.subject}
    assert judgement["subject"]["package_sha256"] in digests


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_an_altered_attestation_is_not_verified(gated, part):
    fields = json.loads((gated / "result.dsse.json").read_text())
    place = fields if part == "payload" else fields["signatures"][0]
    content = bytearray(base64.b64decode(place[part]))
    content[len(content) // 2] ^= 1
    place[part] = base64.b64encode(bytes(content)).decode()
    key = SSlibKey.from_crypto(serialization.load_pem_public_key((gated / "keys" / "signer.pub").read_bytes()))
    with pytest.raises(CannotVerify):
        Envelope.from_dict(fields).verify([key], 1)


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A folder with a model, its signature, the signer's public key, and another key."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "model.onnx").write_bytes(b"a model")
    for name in ("signer", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(key.private_bytes(*private))
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
    words = ["sign", "key", str(folder / "model.onnx"), "--private_key", str(folder / "signer.pem")]
    words += ["--signature", str(folder / "model.sig")]
    program = "from model_signing._cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
    return folder


class TestSourceSignature:
    """Signed with the tool that OpenSSF gives to whoever trains models."""

    def _outcome(self, tmp_path, short_drive, signed, *, key="signer.pub", model=b"a model"):
        build = {**BUILD, "source": {"sha256": sha256_of_bytes(model)}}
        package(tmp_path / "package", build=build)
        words = ["gate", str(tmp_path / "package"), "--recording", str(short_drive[0]), "--quiet"]
        words += ["--policy", str(self._policy(tmp_path))]
        words += ["--source-signature", str(signed / "model.sig"), "--source-key", str(signed / key)]
        code = main(words)
        return code, json.loads((tmp_path / "judgement.json").read_text())["verdicts"][0]["why"]

    def _policy(self, tmp_path):
        path = tmp_path / "policy.yaml"
        path.write_text(
            "format: tollgate-policy/1\nname: signed models only\nlimits:\n"
            + "".join(
                f"- {{claim: {name}, gate: provenance, quantity: {name}, comparison: at_most, limit: 0, unit: count, "
                "why: a test, source: a test, owner: tests}\n"
                for name in ("bad_source_signatures", "unsigned_sources")
            )
        )
        return path

    def test_a_signed_model_passes(self, tmp_path, short_drive, signed):
        assert self._outcome(tmp_path, short_drive, signed)[0] == 0

    def test_another_signer_fails(self, tmp_path, short_drive, signed):
        code, why = self._outcome(tmp_path, short_drive, signed, key="other.pub")
        assert code == 1
        assert "is not signed by the given key" in why

    def test_the_signature_of_another_model_fails(self, tmp_path, short_drive, signed):
        code, why = self._outcome(tmp_path, short_drive, signed, model=b"another model")
        assert code == 1
        assert "the package was compiled from" in why

    def test_no_signature_fails_where_one_is_asked_for(self, tmp_path, short_drive):
        package(tmp_path / "package")
        words = ["gate", str(tmp_path / "package"), "--recording", str(short_drive[0]), "--quiet"]
        assert main([*words, "--policy", str(self._policy(tmp_path))]) == 1

    @pytest.mark.parametrize(
        ("words", "match"),
        [
            (["--source-signature", "none"], "got no key to verify it with"),
            (["--source-signature", "none", "--source-key", "none"], "none: no signature"),
            (["--attestation", "result.json"], "--attestation: got one of it and --key, expected both"),
            (["--key", "signer.pem"], "--attestation: got one of it and --key, expected both"),
            (["--attestation", "result.json", "--key", "env:NO_KEY"], "env:NO_KEY: names a key by URI"),
        ],
    )
    def test_half_of_what_is_needed_is_refused_before_any_work(self, tmp_path, short_drive, capsys, words, match):
        package(tmp_path / "package")
        assert main(["gate", str(tmp_path / "package"), "--recording", str(short_drive[0]), *words]) == 2
        said = capsys.readouterr().err
        assert match in said
        assert said.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["package"]
