"""`--key` and `--public-key`: with which key something is signed, the same for every verb that signs."""

from __future__ import annotations

import argparse
from pathlib import Path

from securesystemslib.signer import Signer

from safety_gates.keys import signer_named


def add_key(parser: argparse.ArgumentParser, says: str, *, required: bool = True) -> None:
    """Declare with which key something is signed; `signer_of` opens it."""
    parser.add_argument("--key", required=required, metavar="KEY", help=f"{says}: a PEM file, or a URI (env:…, hsm:…)")
    parser.add_argument("--public-key", type=Path, metavar="PUB", help="public half of a --key that is a URI")


def signer_of(arguments: argparse.Namespace) -> Signer:
    """The signer that the command line names.

    Raises:
        ReleaseError: it cannot be had.
    """
    return signer_named(arguments.key, arguments.public_key)
