"""`tollgate release keys`: create, rotate, revoke."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeAlias

from perception.cli import EXIT_PASSED
from perception.errors import ReleaseError
from perception.terminal import Terminal
from safety_gates.keys import any_public_key, new_passphrase
from safety_gates.publishing.ceremony import found, revoke, rotate
from safety_gates.publishing.keyring import KeyEntry, create_keyring, read_keyring
from safety_gates.publishing.repository import METADATA, ROOT_THRESHOLD

ROOT_KEYS = 3

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_keys(actions: Actions) -> argparse.ArgumentParser:
    """Declare the action."""
    keys = actions.add_parser("keys", help="create, rotate, revoke keys", description=__doc__)
    keys.add_argument("what", nargs="?", choices=list(_ACTS), default="create", help="what to do (default create)")
    keys.add_argument("key_id", nargs="?", metavar="KEY_ID", help="rotate, revoke: the first characters of a key's id")
    keys.add_argument("--output", type=Path, metavar="DIR", help="create: folder for the new keys")
    keys.add_argument("--keys", type=Path, metavar="DIR", help="rotate, revoke: the folder with keyring.json")
    keys.add_argument(
        "--repository", type=Path, metavar="DIR", help="create: make one; rotate, revoke: the one to change"
    )
    keys.add_argument("--root-keys", type=int, default=ROOT_KEYS, metavar="N", help="create: root keys (default 3)")
    keys.add_argument(
        "--threshold", type=int, default=ROOT_THRESHOLD, metavar="M", help="create: of which so many sign (default 2)"
    )
    keys.add_argument("--uri", help="rotate: the new key's private half is there (hsm:…, env:…, awskms:…)")
    keys.add_argument("--public-key", type=Path, metavar="PUB", help="rotate: public half of the key at --uri")
    keys.set_defaults(act=lambda arguments, terminal: _ACTS[arguments.what](arguments, terminal))
    return keys


def _create(arguments: argparse.Namespace, terminal: Terminal) -> int:
    folder = _given(arguments, "output")
    if not 1 <= arguments.threshold <= arguments.root_keys:
        raise ReleaseError(
            f"--threshold: got {arguments.threshold}, expected 1 to {arguments.root_keys} (--root-keys); nothing made"
        )
    keyring = create_keyring(folder, new_passphrase(), root_keys=arguments.root_keys)
    terminal.table("Keys", ("role", "key", "file"), [_row(entry) for entry in keyring.keys])
    document: dict[str, object] = {"keys": str(folder), "public_key": str(folder / "signer.pub")}
    if arguments.repository is not None:
        found(arguments.repository, keyring, threshold=arguments.threshold)
        root = arguments.repository / METADATA / "1.root.json"
        document |= {"repository": str(arguments.repository), "root": str(root)}
        terminal.say(f"repository {arguments.repository}; put {root} on every vehicle")
    terminal.say("Move the root keys to media of their own, off line; they are needed to change keys only.")
    terminal.result(document)
    return EXIT_PASSED


def _rotate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    keyring = read_keyring(_given(arguments, "keys"))
    old = keyring.find(_given(arguments, "key_id"))
    _, new = rotate(_given(arguments, "repository"), keyring, old, new=_external(arguments, old))
    terminal.say(f"[green]rotated[/] {old.role}: {new.key_id[:16]}… counts, {old.key_id[:16]}… counts no more")
    terminal.result({"role": old.role, "old": old.key_id, "new": new.key_id, "uri": new.uri})
    return EXIT_PASSED


def _revoke(arguments: argparse.Namespace, terminal: Terminal) -> int:
    keyring = read_keyring(_given(arguments, "keys"))
    old = keyring.find(_given(arguments, "key_id"))
    revoke(_given(arguments, "repository"), keyring, old)
    terminal.say(f"[green]revoked[/] {old.role}: {old.key_id[:16]}… counts no more")
    terminal.result({"role": old.role, "old": old.key_id})
    return EXIT_PASSED


def _external(arguments: argparse.Namespace, old: KeyEntry) -> KeyEntry | None:
    if arguments.uri is None:
        return None
    key = any_public_key(_given(arguments, "public_key"))
    return KeyEntry(role=old.role, key_id=key.keyid, public=key.to_dict(), uri=arguments.uri)


def _given(arguments: argparse.Namespace, name: str) -> Any:  # noqa: ANN401  (argparse is untyped)
    value = getattr(arguments, name)
    if value is None:
        option = name.upper() if name == "key_id" else f"--{name.replace('_', '-')}"
        raise ReleaseError(f"release keys {arguments.what}: {option} is missing; see: tollgate release keys --help")
    return value


def _row(entry: KeyEntry) -> tuple[str, str, str]:
    return entry.role, f"{entry.key_id[:16]}…", entry.uri


_ACTS = {"create": _create, "rotate": _rotate, "revoke": _revoke}
