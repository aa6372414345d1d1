"""Sign what passed its gates, and verify what others signed.

  keys     make an ed25519 key pair: a private key to sign with, a public key for the vehicles
  sign     confirm a PASSED judgement from its evidence, then write package, judgement and report as a signed release
  verify   check a release as a vehicle does: signature, statement, every byte

A release is a folder that any in-toto verifier reads: statement.dsse.json (in-toto test-result v0.1 in a DSSE
envelope), package/, judgement.json, report.html. A vehicle opens it with: tollgate run RELEASE … --require-release KEY

  tollgate release keys --output keys/
  tollgate release sign out/package --judgement out/judgement.json --key keys/signer.pem --output out/release
  tollgate release verify out/release --key keys/signer.pub
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli import EXIT_PASSED
from perception.package import open_package
from perception.release_client import VerifiedRelease, verify_release
from perception.terminal import Terminal
from safety_gates.keys import make_keys, read_signer
from safety_gates.release import sign_release


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    keys = actions.add_parser(
        "keys", help="make a key pair", description="Make an ed25519 key pair; never overwrites one."
    )
    keys.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for signer.pem and signer.pub")
    keys.set_defaults(act=_keys)
    sign = actions.add_parser(
        "sign", help="sign a package that passed", description="Sign a package that passed its gates."
    )
    sign.add_argument("package", type=Path, help="the package that was judged")
    sign.add_argument("--judgement", type=Path, required=True, metavar="JSON", help="what `tollgate gate` wrote")
    sign.add_argument("--key", type=Path, required=True, metavar="PEM", help="private key, readable by its owner alone")
    sign.add_argument("--output", type=Path, required=True, metavar="DIR", help="the release; must not exist")
    sign.set_defaults(act=_sign)
    verify = actions.add_parser("verify", help="check a release", description="Check a release as a vehicle does.")
    verify.add_argument("release", type=Path, help="release folder")
    verify.add_argument("--key", type=Path, required=True, metavar="PUB", help="the public key to trust")
    verify.set_defaults(act=_verify)
    for action in (keys, sign, verify):  # the same switches as before the action's name; unset here, they keep that
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
        action.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="only results and errors")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    code: int = arguments.act(arguments, terminal)
    return code


def _keys(arguments: argparse.Namespace, terminal: Terminal) -> int:
    private, public = make_keys(arguments.output)
    terminal.say(f"private key {private} (keep it off the vehicles), public key {public}")
    terminal.result({"private_key": str(private), "public_key": str(public)})
    return EXIT_PASSED


def _sign(arguments: argparse.Namespace, terminal: Terminal) -> int:
    signer = read_signer(arguments.key)
    package = open_package(arguments.package)
    release = sign_release(package, arguments.judgement, signer, output=arguments.output)
    return _tell(release, terminal, "[green]released[/]")


def _verify(arguments: argparse.Namespace, terminal: Terminal) -> int:
    return _tell(verify_release(arguments.release, arguments.key), terminal, "[green]verified[/]")


def _tell(release: VerifiedRelease, terminal: Terminal, what: str) -> int:
    package = release.package
    terminal.say(
        f"{what} {release.folder}: {package.manifest.name} for {package.profile.name}, package {package.sha256[:16]}…, "
        f"{len(release.claims)} claims passed, signed by key {release.key_id[:16]}…"
    )
    terminal.result(
        {
            "release": str(release.folder),
            "package_sha256": package.sha256,
            "statement_sha256": release.statement_sha256,
            "key_id": release.key_id,
            "claims": list(release.claims),
        }
    )
    return EXIT_PASSED
