"""A vehicle opens only what verifies: each test is an attack, or the accident that looks like one."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from perception.errors import VerificationError
from perception.release_client import read_public_key, verify_release
from tests.perception.builders import null_package


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


class Factory:
    """Signs releases, good and bad, without the factory's own code: the client is held against the standards alone."""

    def __init__(self, folder):
        self.folder = folder
        self.signer = CryptoSigner.generate_ed25519()
        self.public_key = self.signer.public_key

    def release(self, name="release", *, service_ms=0.0, **changes):
        """A release folder; `changes` replace fields of the statement or its predicate before it is signed."""
        folder = self.folder / name
        return self.package_at(folder, lambda package: null_package(package, service_ms=service_ms), **changes)

    def package_at(self, folder, make_package, **changes):
        """A release around the package that `make_package` writes."""
        make_package(folder / "package")
        (folder / "judgement.json").write_text('{"outcome": "PASSED"}')
        (folder / "report.html").write_text("<p>PASSED</p>")
        self.sign(folder, self.statement(folder, **changes))
        return folder

    def statement(self, folder, **changes):
        predicate = {
            "result": "PASSED",
            "configuration": [self._resource(folder, name) for name in ("judgement.json", "report.html")],
            "passedTests": ["latency.deadline"],
            "warnedTests": [],
            "failedTests": [],
        }
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [self._resource(folder, f"package/{path.name}") for path in (folder / "package").iterdir()],
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "predicate": predicate,
        }
        for field, value in changes.items():
            (predicate if field in predicate else statement)[field] = value
        return statement

    def sign(self, folder, statement, *, signer=None, payload_type="application/vnd.in-toto+json"):
        envelope = Envelope(json.dumps(statement).encode(), payload_type, {})
        envelope.sign(signer or self.signer)
        (folder / "statement.dsse.json").write_text(json.dumps(envelope.to_dict()))

    @staticmethod
    def _resource(folder, name):
        return {"name": name, "digest": {"sha256": _sha256((folder / name).read_bytes())}}


@pytest.fixture
def factory(tmp_path):
    return Factory(tmp_path)


def _snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _refused(factory, release, match):
    before = _snapshot(factory.folder)
    with pytest.raises(VerificationError, match=match) as refusal:
        verify_release(release, factory.public_key)
    assert "\n" not in str(refusal.value)
    assert _snapshot(factory.folder) == before


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit_envelope(release, edit):
    path = release / "statement.dsse.json"
    envelope = json.loads(path.read_text())
    edit(envelope)
    path.write_text(json.dumps(envelope))


def test_a_whole_release_opens_and_says_who_signed_what(factory):
    release = verify_release(factory.release(), factory.public_key)
    assert release.package.manifest.name == "null"
    assert release.claims == ("latency.deadline",)
    assert release.key_id == factory.public_key.keyid


@pytest.mark.parametrize("name", ["engine.json", "model_spec.yaml", "profile.yaml", "manifest.json"])
def test_a_flipped_byte_in_the_package_is_refused(factory, name):
    release = factory.release()
    _flip_a_byte(release / "package" / name)
    _refused(factory, release, f"package/{name}: got sha256 .* the signed statement says")


@pytest.mark.parametrize("name", ["judgement.json", "report.html"])
def test_an_edited_judgement_or_report_is_refused(factory, name):
    release = factory.release()
    (release / name).write_text("all is well")
    _refused(factory, release, f"{name}: got sha256")


def test_a_swapped_package_is_refused_though_it_is_whole_in_itself(factory):
    release = factory.release()
    shutil.rmtree(release / "package")
    null_package(release / "package", service_ms=5.0)
    _refused(factory, release, "got sha256 .* the signed statement says")


def test_the_statement_of_another_package_is_refused_though_it_is_well_signed(factory):
    release, other = factory.release(), factory.release("other", service_ms=5.0)
    shutil.copy(other / "statement.dsse.json", release / "statement.dsse.json")
    _refused(factory, release, "got sha256 .* the signed statement says")


def test_a_signature_by_another_key_is_refused(factory):
    release = factory.release()
    factory.sign(release, factory.statement(release), signer=CryptoSigner.generate_ed25519())
    _refused(factory, release, "signed by key .* this machine trusts")


def test_a_signature_by_another_key_under_the_trusted_name_is_refused(factory):
    release = factory.release()
    impostor = CryptoSigner.generate_ed25519(keyid=factory.public_key.keyid)
    factory.sign(release, factory.statement(release), signer=impostor)
    _refused(factory, release, "does not match the statement")


def test_an_unsigned_statement_is_refused(factory):
    release = factory.release()
    _edit_envelope(release, lambda envelope: envelope.update(signatures=[]))
    _refused(factory, release, "is not signed")


def test_a_statement_edited_after_signing_is_refused(factory):
    release = factory.release(result="FAILED")

    def turn_to_passed(envelope):
        payload = base64.b64decode(envelope["payload"]).replace(b"FAILED", b"PASSED")
        envelope["payload"] = base64.b64encode(payload).decode()

    _edit_envelope(release, turn_to_passed)
    _refused(factory, release, "does not match the statement")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_statement_is_refused(factory, kept):
    release = factory.release()
    path = release / "statement.dsse.json"
    path.write_bytes(path.read_bytes()[:kept])
    _refused(factory, release, "no whole DSSE envelope")


def test_a_truncated_engine_is_refused(factory):
    release = factory.release()
    path = release / "package" / "engine.json"
    path.write_bytes(path.read_bytes()[:-1])
    _refused(factory, release, r"engine\.json: got sha256")


def test_a_statement_too_large_to_be_one_is_refused_before_it_is_parsed(factory):
    release = factory.release()
    (release / "statement.dsse.json").write_bytes(b"[" * (2 << 20))
    _refused(factory, release, "got 2097152 bytes, expected at most 1048576")


@pytest.mark.parametrize("result", ["FAILED", "WARNED"])
def test_a_result_other_than_passed_is_refused_though_it_is_well_signed(factory, result):
    _refused(factory, factory.release(result=result), f"the result inside is {result}, expected PASSED")


@pytest.mark.parametrize("field", ["failedTests", "warnedTests"])
def test_a_passed_result_that_lists_a_failed_test_is_refused(factory, field):
    _refused(factory, factory.release(**{field: ["accuracy.ap50"]}), r"accuracy\.ap50 did not pass")


def test_a_passed_result_without_a_passed_test_is_refused(factory):
    _refused(factory, factory.release(passedTests=[]), "names no test that passed")


def test_a_statement_that_does_not_vouch_for_the_judgement_is_refused(factory):
    _refused(factory, factory.release(configuration=[]), r"does not vouch for judgement\.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://slsa.dev/provenance/v1"),
        ("subject", []),
    ],
)
def test_a_statement_of_another_kind_is_refused(factory, field, value):
    _refused(factory, factory.release(**{field: value}), "no in-toto test result")


def test_a_payload_of_another_type_is_refused(factory):
    release = factory.release()
    factory.sign(release, factory.statement(release), payload_type="application/json")
    _refused(factory, release, "got payload type 'application/json'")


def test_a_subject_named_twice_is_refused(factory):
    release = factory.release()
    statement = factory.statement(release)
    statement["subject"].append(dict(statement["subject"][0], digest={"sha256": "0" * 64}))
    factory.sign(release, statement)
    _refused(factory, release, "names a file twice")


@pytest.mark.parametrize(
    ("place", "match"),
    [("extra.bin", r"extra\.bin does not belong"), ("package/extra.so", r"package/extra\.so is not signed")],
)
def test_an_extra_file_is_refused(factory, place, match):
    release = factory.release()
    (release / place).write_text("anything")
    _refused(factory, release, match)


def test_a_signed_package_that_contradicts_its_own_manifest_is_refused(factory):
    release = factory.release()
    (release / "package" / "engine.json").write_text("{}")
    factory.sign(release, factory.statement(release))
    _refused(factory, release, "signed, but no package that opens")


@pytest.mark.parametrize("name", ["statement.dsse.json", "judgement.json", "report.html", "package"])
def test_a_missing_part_is_refused(factory, name):
    release = factory.release()
    path = release / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    _refused(factory, release, f"{name} is missing")


def test_a_missing_package_file_is_refused(factory):
    release = factory.release()
    (release / "package" / "profile.yaml").unlink()
    _refused(factory, release, r"package/profile\.yaml is signed but missing")


def test_a_folder_that_is_none_is_refused(factory):
    _refused(factory, factory.folder / "nowhere", "no release")


def test_a_public_key_is_read_from_pem(factory):
    path = factory.folder / "key.pub"
    path.write_bytes(factory.public_key._crypto_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert read_public_key(path).keyid == factory.public_key.keyid
    assert verify_release(factory.release(), path).key_id == factory.public_key.keyid


def test_a_key_that_is_missing_or_of_another_kind_is_refused(factory):
    path = factory.folder / "key.pub"
    with pytest.raises(VerificationError, match="cannot be read"):
        read_public_key(path)
    path.write_text("no key")
    with pytest.raises(VerificationError, match="no public key in PEM"):
        read_public_key(path)
    rsa = generate_private_key(public_exponent=65537, key_size=2048).public_key()
    path.write_bytes(rsa.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(VerificationError, match="expected an ed25519 public key"):
        read_public_key(path)
