"""Keys are encrypted, readable by their owner alone, never overwritten; and a signer may live elsewhere."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.signer import CryptoSigner

from perception.errors import ReleaseError
from perception.release_client import read_public_key
from safety_gates.keys import make_key, new_passphrase, open_signer, read_signer, signer_named, uri_of_file
from tests.conftest import PASSPHRASE
from tests.safety_gates.builders import snapshot


def _pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_private_key_is_encrypted_and_its_owners_alone(tmp_path):
    private = tmp_path / "keys" / "signer.pem"
    key = make_key(private, PASSPHRASE)
    assert private.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.with_suffix(".pub").stat().st_mode) == 0o644
    assert read_signer(private).public_key.keyid == read_public_key(private.with_suffix(".pub")).keyid == key.keyid


@pytest.mark.parametrize("name", ["signer.pem", "signer.pub"])
def test_a_key_is_never_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(ReleaseError, match=f"{name}: exists; a key is never overwritten"):
        make_key(tmp_path / "signer.pem", PASSPHRASE)
    assert snapshot(tmp_path) == before


def test_a_wrong_passphrase_does_not_open_a_key(tmp_path, monkeypatch):
    make_key(tmp_path / "signer.pem", PASSPHRASE)
    monkeypatch.setenv("TOLLGATE_PASSPHRASE", "of somebody else entirely")
    with pytest.raises(ReleaseError, match="the passphrase does not open this key"):
        read_signer(tmp_path / "signer.pem")


def test_without_a_passphrase_and_a_terminal_it_says_what_to_set(tmp_path, monkeypatch):
    make_key(tmp_path / "signer.pem", PASSPHRASE)
    monkeypatch.delenv("TOLLGATE_PASSPHRASE")
    for ask in (new_passphrase, lambda: read_signer(tmp_path / "signer.pem")):
        with pytest.raises(ReleaseError, match="no passphrase: set TOLLGATE_PASSPHRASE, or run at a terminal"):
            ask()


def test_a_short_passphrase_makes_no_key(monkeypatch):
    monkeypatch.setenv("TOLLGATE_PASSPHRASE", "short")
    with pytest.raises(ReleaseError, match="passphrase: got 5 characters, expected at least 12"):
        new_passphrase()


def test_a_private_key_that_others_may_read_is_refused(tmp_path):
    make_key(tmp_path / "signer.pem", PASSPHRASE)
    (tmp_path / "signer.pem").chmod(0o644)
    with pytest.raises(ReleaseError, match=r"others may read this private key \(mode 644\); run: chmod 600"):
        read_signer(tmp_path / "signer.pem")


def test_what_is_no_ed25519_private_key_is_refused(tmp_path):
    path = tmp_path / "key.pem"
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_signer(path)
    path.touch(mode=0o600)
    with pytest.raises(ReleaseError, match="no private key in PEM"):
        read_signer(path)
    path.write_bytes(_pem(generate_private_key(public_exponent=65537, key_size=2048)))
    with pytest.raises(ReleaseError, match="expected an ed25519 private key"):
        read_signer(path)


class TestUris:
    def test_an_encrypted_file_signs(self, tmp_path):
        key = make_key(tmp_path / "a key with spaces.pem", PASSPHRASE)
        signature = open_signer(uri_of_file(tmp_path / "a key with spaces.pem"), key).sign(b"payload")
        key.verify_signature(signature, b"payload")

    def test_a_key_in_the_environment_signs(self, monkeypatch):
        private = Ed25519PrivateKey.generate()
        key = CryptoSigner(private).public_key
        monkeypatch.setenv("TARGETS_KEY", _pem(private).decode())
        key.verify_signature(open_signer("env:TARGETS_KEY", key).sign(b"payload"), b"payload")

    def test_a_signer_is_named_by_file_or_by_uri_with_its_public_half(self, tmp_path, monkeypatch):
        key = make_key(tmp_path / "signer.pem", PASSPHRASE)
        assert signer_named(str(tmp_path / "signer.pem"), None).public_key.keyid == key.keyid
        private = Ed25519PrivateKey.generate()
        monkeypatch.setenv("SIGNER_KEY", _pem(private).decode())
        with pytest.raises(ReleaseError, match=r"env:SIGNER_KEY: names a key by URI, .* add --public-key PUB"):
            signer_named("env:SIGNER_KEY", None)
        with pytest.raises(ReleaseError, match="is not the private half of key"):
            signer_named("env:SIGNER_KEY", tmp_path / "signer.pub")

    def test_an_environment_without_the_key_is_told(self):
        key = CryptoSigner(Ed25519PrivateKey.generate()).public_key
        with pytest.raises(ReleaseError, match="environment variable NOT_THERE: not set"):
            open_signer("env:NOT_THERE", key)

    def test_the_private_half_of_another_key_is_refused(self, monkeypatch):
        monkeypatch.setenv("TARGETS_KEY", _pem(Ed25519PrivateKey.generate()).decode())
        key = CryptoSigner(Ed25519PrivateKey.generate()).public_key
        with pytest.raises(ReleaseError, match="is not the private half of key"):
            open_signer("env:TARGETS_KEY", key)

    @pytest.mark.parametrize("uri", ["hsm:2?label=targets", "abacus:1"])
    def test_a_token_that_is_not_there_is_told_in_one_line(self, uri):
        key = CryptoSigner(Ed25519PrivateKey.generate()).public_key
        with pytest.raises(ReleaseError, match=r"no signer \(.*\); check the URI, the token") as refusal:
            open_signer(uri, key)
        assert "\n" not in str(refusal.value)
