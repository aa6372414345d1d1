"""Making, rotating and revoking keys: the steps for which root keys come together."""

from __future__ import annotations

from pathlib import Path

from perception.agent.index import SIGNERS, Signers, parse_document
from perception.errors import ReleaseError
from perception.files import json_bytes
from safety_gates.keys import new_passphrase
from safety_gates.publishing.keyring import KeyEntry, Keyring, new_entry
from safety_gates.publishing.repository import (
    Change,
    State,
    change,
    create_repository,
    read_state,
    read_target,
    replace_keys,
)
from safety_gates.publishing.signing import Now, utc_now


def found(folder: Path, keyring: Keyring, *, threshold: int, now: Now = utc_now) -> State:
    """A new repository that trusts the keyring's keys, the statement signer's among them.

    Raises:
        ReleaseError: there is one already.
        OutputError: the folder cannot be written.
    """
    create_repository(folder, keyring, threshold=threshold, now=now)
    return change(folder, keyring, Change(add={SIGNERS: _signers_document(keyring.of("signer"))}), now=now)


def rotate(
    folder: Path, keyring: Keyring, old: KeyEntry, *, new: KeyEntry | None = None, now: Now = utc_now
) -> tuple[Keyring, KeyEntry]:
    """Let a new key take the place of an old one, which may be lost: it is not needed, root keys are.

    Args:
        folder: the repository.
        keyring: holds the old key's public half.
        old: what counts no more.
        new: what counts instead; None makes an encrypted file.
        now: the clock.

    Raises:
        ReleaseError: too few root keys at hand; the repository is as before.
    """
    if new is None:
        number = sum(entry.role == old.role for entry in keyring.keys) + 1
        name = next(
            name
            for name in (f"{old.role}_{count}" for count in range(number, number + 1000))
            if not (keyring.folder / f"{name}.pem").exists()
        )
        new = new_entry(keyring.folder, old.role, new_passphrase(), name=name)
    both = keyring.saved([*keyring.keys, new])
    _exchange(folder, both, gone=old, new=(new,), now=now)
    return both.saved(entry for entry in both.keys if entry != old), new


def revoke(folder: Path, keyring: Keyring, old: KeyEntry, *, now: Now = utc_now) -> Keyring:
    """Let a key count no more, without another in its place.

    Raises:
        ReleaseError: its role would be left without enough keys, or too few root keys are at hand.
    """
    _exchange(folder, keyring, gone=old, new=(), now=now)
    return keyring.saved(entry for entry in keyring.keys if entry != old)


def _exchange(folder: Path, keyring: Keyring, *, gone: KeyEntry, new: tuple[KeyEntry, ...], now: Now) -> None:
    if gone.role != "signer":
        replace_keys(folder, keyring, gone=(gone,), new=new, now=now)
        return
    content = read_target(folder, read_state(folder), SIGNERS)
    trusted = {} if content is None else dict(parse_document(Signers, content, where=SIGNERS).keys)
    trusted.pop(gone.key_id, None)
    trusted.update({entry.key_id: entry.public for entry in new})
    if not trusted:
        raise ReleaseError("role signer: would have no key, and every release would be refused; rotate the key instead")
    document = json_bytes(Signers(keys=trusted).model_dump(mode="json"))
    change(folder, keyring, Change(add={SIGNERS: document}), now=now)


def _signers_document(entries: tuple[KeyEntry, ...]) -> bytes:
    return json_bytes(Signers(keys={entry.key_id: entry.public for entry in entries}).model_dump(mode="json"))
