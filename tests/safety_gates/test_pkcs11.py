"""A role's key in a PKCS#11 token: SoftHSM, which is a token in all but the hardware."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.signer import HSMSigner

from perception.cli import main
from perception.errors import ReleaseError
from safety_gates.keys import any_public_key
from safety_gates.publishing.audit import audit
from safety_gates.publishing.keyring import read_keyring
from safety_gates.publishing.repository import Change, change
from safety_gates.rollout.decision_log import read_log
from tests.perception.agent.fleet import Works
from tests.safety_gates.builders import package
from tests.safety_gates.rollout.field import STAGES

PIN, KEY_ID = "123456", 2
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with an ECDSA key, one a process, as SoftHSM wants it; lends URI and public key file."""
    tmp_path = tmp_path_factory.mktemp("token")
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield _token(tmp_path, monkeypatch)


def _token(tmp_path, monkeypatch):
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        absent = "softhsm2 is not installed; run: apt-get install softhsm2"
        pytest.fail(absent) if os.environ.get("TOLLGATE_CI") == "1" else pytest.skip(absent)
    pkcs11 = pytest.importorskip("pkcs11")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("PYKCS11LIB", module)
    monkeypatch.setenv("TOLLGATE_PIN", PIN)
    words = ["softhsm2-util", "--init-token", "--free", "--label", "targets", "--pin", PIN, "--so-pin", PIN]
    subprocess.run(words, check=True, capture_output=True)
    with pkcs11.lib(module).get_token(token_label="targets").open(rw=True, user_pin=PIN) as session:
        curve = pkcs11.util.ec.encode_named_curve_parameters("secp256r1")
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve}, local=True
        )
        parameters.generate_keypair(store=True, id=bytes([KEY_ID]), label="targets")
    uri, key = HSMSigner.import_(KEY_ID, "targets", secrets_handler=lambda _: PIN)
    pem = key._crypto_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "targets.pub").write_bytes(pem)
    return uri, tmp_path / "targets.pub"


def test_targets_can_be_signed_by_a_token(token, tmp_path, monkeypatch):
    works = Works.founded(tmp_path / "works")
    uri, public_key = token
    words = ["--repository", str(works.repository), "--keys", str(works.keyring.folder), "--quiet"]
    old = works.keyring.of("targets")[0].key_id
    assert main(["release", "keys", "rotate", old, *words, "--uri", uri, "--public-key", str(public_key)]) == 0
    keyring = read_keyring(works.keyring.folder)
    change(works.repository, keyring, Change(add={"note.txt": b"signed by a token"}))
    found = audit(works.repository, works.root)
    assert found.state.targets.signatures.keys() == {keyring.of("targets")[0].key_id}
    assert keyring.of("targets")[0].uri == uri
    monkeypatch.setenv("TOLLGATE_PIN", "not the PIN")
    before = works.state.version
    with pytest.raises(ReleaseError, match=r"targets: key .* does not sign|no signer") as refusal:
        change(works.repository, keyring, Change(add={"note.txt": b"again"}))
    assert "\n" not in str(refusal.value)
    assert works.state.version == before


def test_an_operators_key_may_be_in_a_token(token, tmp_path):
    uri, public_key = token
    (tmp_path / "stages.yaml").write_text(STAGES)
    folder, key = str(tmp_path / "rollout"), ["--key", uri, "--public-key", str(public_key), "--quiet"]
    words = ["--name", "n", "--candidate", f"new={'b' * 64}", "--control", f"old={'a' * 64}", *key]
    assert main(["rollout", "start", folder, *words, "--stages", str(tmp_path / "stages.yaml")]) == 0
    assert main(["rollout", "advance", folder, "--from", "shadow", "--reason", "seen", *key]) == 0
    log = read_log(tmp_path / "rollout")
    assert [entry.action for entry in log.entries] == ["start", "advance"]
    assert set(log.signers) == {any_public_key(public_key).keyid}


def test_an_attestation_is_signed_by_a_token_or_a_pipelines_secret(token, tmp_path, short_drive, monkeypatch):
    uri, public_key = token
    secret = Ed25519PrivateKey.generate()
    monkeypatch.setenv("SECRET", secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    public = secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "secret.pub").write_bytes(public)
    package(tmp_path / "package")
    words = ["gate", str(tmp_path / "package"), "--recording", str(short_drive[0]), "--quiet"]
    for number, (key, half) in enumerate(((uri, public_key), ("env:SECRET", tmp_path / "secret.pub"))):
        result = tmp_path / f"{number}.dsse.json"
        assert main([*words, "--attestation", str(result), "--key", key, "--public-key", str(half)]) == 3
        Envelope.from_dict(json.loads(result.read_bytes())).verify([any_public_key(half)], 1)
