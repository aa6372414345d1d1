"""The signature of a source model: who vouches for the ONNX file that a package was compiled from.

What is read is an in-toto statement in a DSSE envelope, bare or inside a Sigstore bundle: what `model_signing sign key`
writes (OpenSSF Model Signing v1.0), and what any in-toto tool does. A statement vouches for the digests of its subjects
and, as Model Signing has it, for those under `predicate.resources`.

Source: OpenSSF Model Signing v1.0; in-toto attestation framework, Statement v1; DSSE 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.exceptions import VerificationError as CannotVerify
from securesystemslib.signer import Signature, SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.errors import VerificationError
from perception.release_client import PAYLOAD_TYPE

MOST_BYTES = 4 << 20
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Signature(_Fields):
    sig: Base64Bytes


class _Envelope(_Fields):
    payload: Base64Bytes
    payload_type: str = Field(alias="payloadType")
    signatures: tuple[_Signature, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class SourceSignature:
    """An envelope and the key that should have signed it, both read, nothing verified."""

    path: Path
    envelope: _Envelope
    key: SSlibKey

    @classmethod
    def read(cls, path: Path, key: Path) -> SourceSignature:
        """Read a signature and a public key in PEM.

        Raises:
            VerificationError: unreadable, no envelope, or no public key.
        """
        try:
            content = path.read_bytes()[:MOST_BYTES]
            fields = json.loads(content)
            fields = fields.get("dsseEnvelope", fields) if isinstance(fields, dict) else fields
            envelope = _Envelope.model_validate(fields)
        except (OSError, ValueError) as error:
            reason = complaints_of(error) if isinstance(error, ValidationError) else str(error)
            raise VerificationError(
                f"{path}: no signature ({reason}); expected a DSSE envelope or a Sigstore bundle with one"
            ) from error
        return cls(path, envelope, _public_key(key))

    def vouches_for(self, sha256: str) -> None:
        """Verify the signature, then that its statement names this digest.

        Raises:
            VerificationError: by another key, altered, or of another file.
        """
        payload = self.envelope.payload
        signed = Envelope(payload, self.envelope.payload_type, {}).pae()
        if not any(self._signs(each.sig, signed) for each in self.envelope.signatures):
            raise VerificationError(f"{self.path}: is not signed by the given key, or was altered; get it again")
        named = set(_digests(payload)) if self.envelope.payload_type == PAYLOAD_TYPE else set()
        if sha256 not in named:
            raise VerificationError(
                f"{self.path}: vouches for {', '.join(sorted(each[:16] for each in named)) or 'nothing'}…, the package "
                f"was compiled from {sha256[:16]}…; sign that model, or compile the signed one"
            )

    def _signs(self, signature: bytes, signed: bytes) -> bool:
        try:
            self.key.verify_signature(Signature(self.key.keyid, signature.hex()), signed)
        except (UnverifiedSignatureError, CannotVerify):
            return False
        return True


def _public_key(path: Path) -> SSlibKey:
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError(f"{path}: no public key in PEM ({error}); give the signer's public key") from error


def _digests(payload: bytes) -> Iterator[str]:
    """Every sha256 that an in-toto statement vouches for; none where it is no statement."""
    try:
        statement: Any = json.loads(payload)
    except ValueError:
        return
    if not isinstance(statement, dict) or statement.get("_type") != STATEMENT_TYPE:
        return
    predicate = statement.get("predicate")
    resources = predicate.get("resources", []) if isinstance(predicate, dict) else []
    for entry in [*statement.get("subject", []), *resources]:
        digest = entry.get("digest") if isinstance(entry, dict) else None
        if isinstance(digest, dict):
            digest = digest.get("sha256")
        if isinstance(digest, str):
            yield digest
