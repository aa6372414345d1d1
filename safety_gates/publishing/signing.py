"""Signing metadata with the keys that the root names, and refusing where too few of them are at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed

from perception.errors import ReleaseError
from safety_gates.publishing.keyring import Keyring
from safety_gates.publishing.keyring import Role as RoleName

EXPIRES_AFTER_DAYS: dict[str, float] = {"root": 365, "targets": 90, "snapshot": 14, "timestamp": 7}

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """This machine's clock, in whole seconds as TUF has them."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def signers_of(keyring: Keyring, root: Metadata[Root], role: RoleName) -> list[Signer]:
    """The signers of the keys that the root names for a role.

    Raises:
        ReleaseError: none of them is in the keyring, or one cannot be had.
    """
    wanted = set(root.signed.roles[role].keyids)
    entries = [entry for entry in keyring.of(role) if entry.key_id in wanted]
    if not entries:
        raise ReleaseError(
            f"{keyring.folder}: holds no key that the root names for {role}; use the keyring of this repository"
        )
    return [keyring.signer(entry) for entry in entries]


def sign(metadata: Metadata[Any], signers: Iterable[Signer], *, now: Now) -> None:
    """Let metadata expire anew and sign it with these keys alone.

    Raises:
        ReleaseError: a key does not sign.
    """
    signed: Signed = metadata.signed
    signed.expires = now() + timedelta(days=EXPIRES_AFTER_DAYS[signed.type])
    metadata.signatures.clear()
    for signer in signers:
        try:
            metadata.sign(signer, append=True)
        except RepositoryError as error:
            reason = " ".join(str(error.__cause__ or error).split()) or type(error.__cause__).__name__
            raise ReleaseError(
                f"{signed.type}: key {signer.public_key.keyid[:16]}… does not sign ({reason}); nothing was published"
            ) from error


def sign_root(root: Metadata[Root], keyring: Keyring, *, signed_before: Metadata[Root] | None, now: Now) -> None:
    """Sign with every root key at hand, of the root before and of this one.

    Raises:
        ReleaseError: the threshold of either is not reached.
    """
    trusted = [root] if signed_before is None else [signed_before, root]
    wanted = {key_id for metadata in trusted for key_id in metadata.signed.roles["root"].keyids}
    signers, absent = [], []
    for entry in keyring.of("root"):
        if entry.key_id not in wanted:
            continue
        try:
            signers.append(keyring.signer(entry))
        except ReleaseError as error:
            absent.append(str(error))
    sign(root, signers, now=now)
    for metadata in trusted:
        role = metadata.signed.roles["root"]
        have = len(set(role.keyids) & set(root.signatures))
        if have < role.threshold:
            raise ReleaseError(
                f"root: {have} of the {role.threshold} keys needed are at hand; bring the others together "
                f"({'; '.join(absent) or 'none of them is in this keyring'})"
            )
