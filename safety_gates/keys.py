"""Signing keys: encrypted files by default; the environment or a PKCS#11 token through securesystemslib's URIs.

A key is named by a URI, and whoever signs asks `open_signer` for it:

    encrypted:PATH       ed25519, PKCS#8 in PEM, encrypted with a passphrase; readable by its owner alone
    env:NAME             the same PEM, not encrypted, in an environment variable: for a pipeline's secret store
    hsm:…, awskms:… …    whatever securesystemslib knows (docs/releases.md)

A passphrase comes from TOLLGATE_PASSPHRASE, a token's PIN from TOLLGATE_PIN, or is asked for at a terminal.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signer, SSlibKey

from perception.errors import ReleaseError
from perception.files import write_new

PRIVATE_KEY, PUBLIC_KEY = "signer.pem", "signer.pub"
PASSPHRASE, PIN = "TOLLGATE_PASSPHRASE", "TOLLGATE_PIN"  # the variables' names
READABLE_BY_OTHERS = 0o077
SHORTEST_PASSPHRASE = 12


def new_passphrase() -> str:
    """The passphrase for keys about to be made: from the environment, or typed twice.

    Raises:
        ReleaseError: none, too short, or not the same twice.
    """
    passphrase = os.environ.get(PASSPHRASE)
    if passphrase is None:
        passphrase = _typed("new passphrase: ")
        if passphrase != _typed("once more: "):
            raise ReleaseError("the two passphrases differ; no key was made")
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ReleaseError(
            f"passphrase: got {len(passphrase)} characters, expected at least {SHORTEST_PASSPHRASE}; no key was made"
        )
    return passphrase


def ask_passphrase(what: str) -> str:
    """The passphrase of keys that exist; `what` says which."""
    return os.environ.get(PASSPHRASE) or _typed(f"passphrase of {what}: ")


def ask_pin(what: str) -> str:
    """The PIN of a token; `what` says which."""
    return os.environ.get(PIN) or _typed(f"{what}: ", PIN)


def make_key(private: Path, passphrase: str) -> SSlibKey:
    """A new ed25519 key in an encrypted file (mode 0600), and its public half beside it as `.pub`, both PEM.

    Raises:
        ReleaseError: one of the files exists; a key is never overwritten.
        OutputError: the folder cannot be written.
    """
    public = private.with_suffix(".pub")
    for path in (private, public):
        if path.exists():
            raise ReleaseError(f"{path}: exists; a key is never overwritten, choose another --output")
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase.encode())
    public_bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=0o600)
    try:
        write_new(public, public_bytes)
    except BaseException:
        private.unlink()
        raise
    return SSlibKey.from_crypto(key.public_key())


def read_signer(path: Path) -> CryptoSigner:
    """The signer of a private key file.

    Raises:
        ReleaseError: unreadable, readable by others, wrong passphrase, or no ed25519 private key.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); fetch the key from where it is kept, or make keys with: "
            "tollgate release keys create"
        ) from error
    if mode & READABLE_BY_OTHERS:
        raise ReleaseError(f"{path}: others may read this private key (mode {mode & 0o777:o}); run: chmod 600 {path}")
    encrypted = b"ENCRYPTED" in content.partition(b"\n")[0]
    return _signer_of(content, ask_passphrase(str(path)) if encrypted else None, where=str(path))


def open_signer(uri: str, public_key: Key) -> Signer:
    """The signer that a URI names.

    Raises:
        ReleaseError: it cannot be had, or is not the private half of `public_key`.
    """
    try:
        return Signer.from_priv_key_uri(uri, public_key, ask_pin)
    except ReleaseError:
        raise
    except Exception as error:  # each kind of signer raises errors of its own, and securesystemslib says so
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReleaseError(
            f"{uri}: no signer ({reason}); check the URI, the token, and what it needs installed"
        ) from error


def signer_named(key: str, public_key: Path | None) -> Signer:
    """The signer of a private key file, or of a URI whose public half stands in the file `public_key`.

    Raises:
        ReleaseError: it cannot be had; a URI without `public_key` is one reason.
    """
    if key.partition(":")[0] not in SIGNER_FOR_URI_SCHEME:
        return read_signer(Path(key))
    if public_key is None:
        raise ReleaseError(f"{key}: names a key by URI, expected its public half too; add --public-key PUB")
    return open_signer(key, any_public_key(public_key))


def any_public_key(path: Path) -> SSlibKey:
    """A public key of any kind that TUF knows, from a PEM file: tokens seldom hold ed25519.

    Raises:
        ReleaseError: unreadable, or of another kind.
    """
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read ({error.strerror}); expected a public key in PEM") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ReleaseError(f"{path}: no ed25519, ECDSA or RSA public key in PEM") from error


def uri_of_file(path: Path) -> str:
    """The URI of an encrypted key file."""
    return f"{EncryptedFileSigner.SCHEME}:{quote(str(path))}"


class EncryptedFileSigner(CryptoSigner):  # type: ignore[misc]  # securesystemslib is loaded without its types
    """`encrypted:PATH`."""

    SCHEME = "encrypted"

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> CryptoSigner:
        """See `Signer.from_priv_key_uri`; the passphrase is asked for as `read_signer` does."""
        path = unquote(priv_key_uri.partition(":")[2])
        return _half_of(public_key, read_signer(Path(path)), where=path)


class EnvironmentSigner(CryptoSigner):  # type: ignore[misc]
    """`env:NAME`."""

    SCHEME = "env"

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> CryptoSigner:
        """See `Signer.from_priv_key_uri`."""
        name = priv_key_uri.partition(":")[2]
        content = os.environ.get(name)
        if content is None:
            raise ReleaseError(f"environment variable {name}: not set, expected an ed25519 private key in PEM")
        return _half_of(
            public_key, _signer_of(content.encode(), None, where=f"environment variable {name}"), where=name
        )


SIGNER_FOR_URI_SCHEME.update({signer.SCHEME: signer for signer in (EncryptedFileSigner, EnvironmentSigner)})


def _half_of(public_key: Key, signer: CryptoSigner, *, where: str) -> CryptoSigner:
    if signer.public_key.keyval != public_key.keyval:
        raise ReleaseError(f"{where}: is not the private half of key {public_key.keyid[:16]}…; fetch the right one")
    return signer


def _signer_of(content: bytes, passphrase: str | None, *, where: str) -> CryptoSigner:
    try:
        key = load_pem_private_key(content, passphrase.encode() if passphrase is not None else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise ReleaseError(f"{where}: the passphrase does not open this key, or the file is damaged") from error
        raise ReleaseError(f"{where}: no private key in PEM; make one with: tollgate release keys create") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{where}: got {type(key).__name__}, expected an ed25519 private key")
    return CryptoSigner(key)


def _typed(prompt: str, variable: str = PASSPHRASE) -> str:
    if not sys.stdin.isatty():
        raise ReleaseError(f"no {variable.split('_')[1].lower()}: set {variable}, or run at a terminal")
    return getpass.getpass(prompt)
