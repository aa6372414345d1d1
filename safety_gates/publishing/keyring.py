"""Which key signs for which role, and where its private half is.

`keyring.json` names public keys and URIs; the private keys lie beside it or somewhere safer. Root keys are needed to
change keys only: keep each on a medium of its own, off line, and bring a threshold of them together when needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, ValidationError
from securesystemslib.signer import Key, Signer, SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.errors import ReleaseError
from perception.files import json_bytes, write_atomically
from safety_gates.keys import EncryptedFileSigner, make_key, open_signer, uri_of_file

KEYRING = "keyring.json"

Role = Literal["root", "targets", "snapshot", "timestamp", "signer"]
ROLES: tuple[Role, ...] = get_args(Role)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyEntry(_Strict):
    """One key: its role, its id, its public half, and the URI of its private half (paths count from the keyring)."""

    role: Role
    key_id: str
    public: dict[str, Any]
    uri: str

    @property
    def key(self) -> Key:
        """The public half."""
        return SSlibKey.from_dict(self.key_id, dict(self.public))


class _File(_Strict):
    format: Literal["tollgate-keyring/1"] = "tollgate-keyring/1"
    keys: tuple[KeyEntry, ...]


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one repository.

    Attributes:
        folder: where `keyring.json` lies.
        keys: all of them.
    """

    folder: Path
    keys: tuple[KeyEntry, ...]

    def of(self, role: Role) -> tuple[KeyEntry, ...]:
        """The keys of a role."""
        return tuple(entry for entry in self.keys if entry.role == role)

    def signer(self, entry: KeyEntry) -> Signer:
        """Open a key to sign with.

        Raises:
            ReleaseError: it cannot be had.
        """
        scheme, _, rest = entry.uri.partition(":")
        if scheme == EncryptedFileSigner.SCHEME:
            return open_signer(uri_of_file(self.folder / unquote(rest)), entry.key)
        return open_signer(entry.uri, entry.key)

    def find(self, key_id: str) -> KeyEntry:
        """The key whose id begins with `key_id`.

        Raises:
            ReleaseError: none, or several.
        """
        found = [entry for entry in self.keys if entry.key_id.startswith(key_id)]
        if len(found) != 1:
            known = ", ".join(f"{entry.key_id[:12]} ({entry.role})" for entry in self.keys)
            raise ReleaseError(f"key {key_id}: {len(found)} keys of this keyring begin so; it holds {known}")
        return found[0]

    def saved(self, keys: Iterable[KeyEntry]) -> Keyring:
        """The keyring with these keys, written to disk.

        Raises:
            OutputError: the folder cannot be written; the earlier keyring stands.
        """
        file = _File(keys=tuple(keys))
        write_atomically(self.folder / KEYRING, json_bytes(file.model_dump(mode="json")))
        return Keyring(self.folder, file.keys)


def create_keyring(folder: Path, passphrase: str, *, root_keys: int) -> Keyring:
    """New keys for every role, as encrypted files.

    Raises:
        ReleaseError: there is a keyring already.
        OutputError: the folder cannot be written.
    """
    if (folder / KEYRING).exists():
        raise ReleaseError(f"{folder}: holds a keyring; a key is never overwritten, choose another --output")
    names: list[tuple[Role, str]] = [("root", f"root_{number + 1}") for number in range(root_keys)]
    names += [(role, role) for role in ROLES if role != "root"]
    keys = [new_entry(folder, role, passphrase, name=name) for role, name in names]
    return Keyring(folder, ()).saved(keys)


def new_entry(folder: Path, role: Role, passphrase: str, *, name: str) -> KeyEntry:
    """Make a key file for a role.

    Raises:
        ReleaseError: the file exists.
        OutputError: the folder cannot be written.
    """
    file = f"{name}.pem"
    key = make_key(folder / file, passphrase)
    return KeyEntry(role=role, key_id=key.keyid, public=key.to_dict(), uri=f"{EncryptedFileSigner.SCHEME}:{file}")


def read_keyring(folder: Path) -> Keyring:
    """The keyring in a folder.

    Raises:
        ReleaseError: there is none, or it cannot be read.
    """
    path = folder / KEYRING
    try:
        return Keyring(folder, _File.model_validate_json(path.read_bytes()).keys)
    except OSError as error:
        raise ReleaseError(
            f"{path}: no keyring ({error.strerror}); make one with: tollgate release keys create --output {folder}"
        ) from error
    except ValidationError as error:
        raise ReleaseError(f"{path}: {complaints_of(error)}; restore it from its backup") from error
