"""The vehicle's half of a release: believe nothing before it is verified.

A release is a folder::

    statement.dsse.json   an in-toto statement in a DSSE envelope: who vouches for which bytes, and how they were judged
    package/              the engine package
    judgement.json        the verdicts, with the digest of the evidence under each
    report.html           the same for people

The rules, in the order in which `verify_release` applies them; the first that is broken ends it:

1. The folder holds these four and nothing else.
2. The envelope is whole and carries a signature by a key that is trusted over its payload. Until here nothing of the
   payload is read.
3. The payload is an in-toto Statement v1 with a test result, and the result is PASSED with no failed or warned test.
4. The package's files are exactly the statement's subjects, each with the digest the statement says.
5. Judgement and report have the digests the statement says.
6. Only now is the package opened, which compares every byte with its manifest, whose digest must be the signed one.

Verifying only reads. What it returns is a type of its own: code that wants a verified package asks for it by type.

Source: in-toto attestation framework, Statement v1 and test-result v0.1; DSSE 1.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, UnverifiedSignatureError
from securesystemslib.signer import SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.errors import TollgateError, VerificationError
from perception.files import sha256_of_bytes, sha256_of_file
from perception.package import MANIFEST, EnginePackage, open_package

STATEMENT, PACKAGE, JUDGEMENT, REPORT = "statement.dsse.json", "package", "judgement.json", "report.html"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_STATEMENT_BYTES = 1 << 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Fields(BaseModel):
    """Unknown fields are ignored, as the framework's parsing rules ask."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DigestSet(_Fields):
    """Digests of one resource; only SHA-256 counts here."""

    sha256: Sha256


class Resource(_Fields):
    """A named file with its digest."""

    name: str
    digest: DigestSet


class TestResult(_Fields):
    """The predicate: how the subject was judged, and by what."""

    __test__ = False  # its name is the predicate's, pytest need not look into it

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[Resource, ...]
    passed_tests: tuple[str, ...] = Field(alias="passedTests", default=())
    warned_tests: tuple[str, ...] = Field(alias="warnedTests", default=())
    failed_tests: tuple[str, ...] = Field(alias="failedTests", default=())


class Statement(_Fields):
    """In-toto Statement v1 with a test result."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Resource, ...] = Field(min_length=1)
    predicate_type: Literal["https://in-toto.io/attestation/test-result/v0.1"] = Field(alias="predicateType")
    predicate: TestResult


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release whose signature, statement and every byte agreed when it was verified.

    Attributes:
        folder: where it lies.
        package: opened; its engine's bytes are those that were verified.
        claims: the claims it passed, by the names its policy gave them.
        key_id: which key signed it.
        statement_sha256: digest of the signed payload; names this release.
    """

    folder: Path
    package: EnginePackage
    claims: tuple[str, ...]
    key_id: str
    statement_sha256: str


def read_public_key(path: Path) -> SSlibKey:
    """An ed25519 public key from a PEM file.

    Raises:
        VerificationError: unreadable, no public key, or of another kind.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise VerificationError(f"{path}: cannot be read ({error.strerror}); expected a public key in PEM") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError(
            f"{path}: holds no public key in PEM; expected what `tollgate release keys` wrote"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError(f"{path}: got {type(key).__name__}, expected an ed25519 public key")
    return SSlibKey.from_crypto(key)


def verify_release(folder: Path, trusted: Path | SSlibKey | Mapping[str, SSlibKey]) -> VerifiedRelease:
    """Apply the rules of this module's docstring.

    Args:
        folder: the release.
        trusted: whom this vehicle trusts: a PEM file, a key, or keys by their ids, of which one suffices.

    Raises:
        VerificationError: the first rule that is broken; nothing was changed.
    """
    keys = _keys_by_id(trusted)
    _refuse_other_files(folder)
    payload, key = _signed_payload(folder / STATEMENT, keys)
    statement = _passed_statement(payload, folder / STATEMENT)
    signed = _digests_by_name(statement.subject, folder / STATEMENT)
    _compare_package(folder / PACKAGE, signed)
    _compare_documents(folder, _digests_by_name(statement.predicate.configuration, folder / STATEMENT))
    return VerifiedRelease(
        folder=folder,
        package=_opened(folder / PACKAGE, signed),
        claims=statement.predicate.passed_tests,
        key_id=key.keyid,
        statement_sha256=sha256_of_bytes(payload),
    )


def subject_name(package_file: str) -> str:
    """How a statement names a file of the package."""
    return f"{PACKAGE}/{package_file}"


def _refuse_other_files(folder: Path) -> None:
    expected = {STATEMENT, PACKAGE, JUDGEMENT, REPORT}
    try:
        present = {child.name for child in folder.iterdir()}
    except OSError as error:
        raise VerificationError(f"{folder}: no release ({error.strerror}); expected a folder") from error
    if missing := sorted(expected - present):
        raise VerificationError(f"{folder}: {', '.join(missing)} is missing; fetch the release again")
    if added := sorted(present - expected):
        raise VerificationError(f"{folder}: {', '.join(added)} does not belong to a release; fetch the release again")


def _keys_by_id(trusted: Path | SSlibKey | Mapping[str, SSlibKey]) -> Mapping[str, SSlibKey]:
    if isinstance(trusted, Mapping):
        return trusted
    key = read_public_key(trusted) if isinstance(trusted, Path) else trusted
    return {key.keyid: key}


def _signed_payload(path: Path, keys: Mapping[str, SSlibKey]) -> tuple[bytes, SSlibKey]:
    """The payload's bytes, once a trusted key's signature over them holds, and that key."""
    envelope = _envelope(path)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError(f"{path}: got payload type {envelope.payload_type!r}, expected {PAYLOAD_TYPE!r}")
    if not envelope.signatures:
        raise VerificationError(f"{path}: is not signed; sign it with: tollgate release sign")
    key = next((keys[key_id] for key_id in envelope.signatures if key_id in keys), None)
    if key is None:
        signers, wanted = (", ".join(f"{key_id[:16]}…" for key_id in ids) for ids in (envelope.signatures, keys))
        raise VerificationError(f"{path}: signed by key {signers}, this machine trusts {wanted or 'no key'}")
    try:
        envelope.verify([key], 1)
    except UnverifiedSignatureError as error:
        raise VerificationError(
            f"{path}: the signature of key {key.keyid[:16]}… does not match the statement: altered or forged; "
            "do not run this engine"
        ) from error
    payload: bytes = envelope.payload
    return payload, key


def _envelope(path: Path) -> Envelope:
    try:
        size_bytes = path.stat().st_size
        content = path.read_bytes() if size_bytes <= MOST_STATEMENT_BYTES else b""
    except OSError as error:
        raise VerificationError(f"{path}: cannot be read ({error.strerror}); fetch the release again") from error
    if size_bytes > MOST_STATEMENT_BYTES:
        raise VerificationError(f"{path}: got {size_bytes} bytes, expected at most {MOST_STATEMENT_BYTES}")
    try:
        return Envelope.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, FormatError) as error:
        raise VerificationError(
            f"{path}: no whole DSSE envelope ({size_bytes} bytes); fetch the release again"
        ) from error


def _passed_statement(payload: bytes, path: Path) -> Statement:
    try:
        statement = Statement.model_validate_json(payload)
    except ValidationError as error:
        raise VerificationError(f"{path}: no in-toto test result: {complaints_of(error)}") from error
    predicate = statement.predicate
    if predicate.result != "PASSED":
        raise VerificationError(
            f"{path}: the result inside is {predicate.result}, expected PASSED; do not run this engine"
        )
    if bad := predicate.failed_tests + predicate.warned_tests:
        raise VerificationError(f"{path}: {', '.join(bad)} did not pass; do not run this engine")
    if not predicate.passed_tests:
        raise VerificationError(f"{path}: names no test that passed, expected at least one")
    return statement


def _digests_by_name(resources: tuple[Resource, ...], path: Path) -> Mapping[str, str]:
    digests = {resource.name: resource.digest.sha256 for resource in resources}
    if len(digests) != len(resources):
        raise VerificationError(f"{path}: names a file twice; do not run this engine")
    return digests


def _compare_package(folder: Path, signed: Mapping[str, str]) -> None:
    """Compare without opening: nothing unsigned is parsed."""
    try:
        present = {subject_name(child.name) for child in folder.iterdir()}
    except OSError as error:
        raise VerificationError(f"{folder}: cannot be read ({error.strerror}); fetch the release again") from error
    if missing := sorted(set(signed) - present):
        raise VerificationError(f"{folder.parent}: {', '.join(missing)} is signed but missing; fetch the release again")
    if added := sorted(present - set(signed)):
        raise VerificationError(f"{folder.parent}: {', '.join(added)} is not signed; do not run this engine")
    for name, digest in signed.items():
        _compare(folder.parent / name, digest)


def _compare_documents(folder: Path, configuration: Mapping[str, str]) -> None:
    for name in (JUDGEMENT, REPORT):
        if name not in configuration:
            raise VerificationError(f"{folder / STATEMENT}: does not vouch for {name}; release the package again")
        _compare(folder / name, configuration[name])


def _compare(path: Path, signed_sha256: str) -> None:
    try:
        got = sha256_of_file(path)
    except OSError as error:
        raise VerificationError(f"{path}: cannot be read ({error.strerror}); fetch the release again") from error
    if got != signed_sha256:
        raise VerificationError(
            f"{path}: got sha256 {got[:16]}…, the signed statement says {signed_sha256[:16]}…; "
            "it was altered: fetch the release again"
        )


def _opened(folder: Path, signed: Mapping[str, str]) -> EnginePackage:
    """Open what was compared; the manifest is compared once more, with the bytes that were read for good."""
    try:
        package = open_package(folder)
    except TollgateError as error:
        raise VerificationError(f"signed, but no package that opens: {error}") from error
    if package.sha256 != signed.get(subject_name(MANIFEST)):
        raise VerificationError(f"{folder}: changed while it was being verified; do not run this engine")
    return package
