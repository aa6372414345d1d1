"""Keys to sign with: ed25519, PEM, the private half readable by its owner alone. A key is never overwritten."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from perception.errors import ReleaseError
from perception.files import cannot_write

PRIVATE_KEY, PUBLIC_KEY = "signer.pem", "signer.pub"
READABLE_BY_OTHERS = 0o077


def make_keys(folder: Path) -> tuple[Path, Path]:
    """A new ed25519 key pair: private key (mode 0600) and public key, both PEM.

    Raises:
        ReleaseError: one of the files exists; a key is never overwritten.
        OutputError: the folder cannot be written.
    """
    private, public = folder / PRIVATE_KEY, folder / PUBLIC_KEY
    for path in (private, public):
        if path.exists():
            raise ReleaseError(f"{path}: exists; a key is never overwritten, choose another --output")
    key = Ed25519PrivateKey.generate()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
        try:
            public_bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            _write_new(public, public_bytes, mode=0o644)
        except BaseException:
            private.unlink()
            raise
    except OSError as error:
        raise cannot_write(folder, error) from error
    return private, public


def read_signer(path: Path) -> CryptoSigner:
    """The signer of a private key file.

    Raises:
        ReleaseError: unreadable, readable by others, encrypted, or no ed25519 private key.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseError(
            f"{path}: cannot be read ({error.strerror}); make keys with: tollgate release keys"
        ) from error
    if mode & READABLE_BY_OTHERS:
        raise ReleaseError(f"{path}: others may read this private key (mode {mode & 0o777:o}); run: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ReleaseError(
            f"{path}: no unencrypted private key in PEM; make one with: tollgate release keys"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{path}: got {type(key).__name__}, expected an ed25519 private key")
    return CryptoSigner(key)


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that must not exist: whole under a temporary name, then linked, which never overwrites."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        os.link(name, path)
    finally:
        Path(name).unlink()
