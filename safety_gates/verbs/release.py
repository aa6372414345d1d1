"""Sign what passed its gates, publish it for vehicles, and verify what others signed.

  keys      create the keys of a repository, rotate or revoke one
  sign      confirm a PASSED judgement from its evidence, then write package, judgement and report as a signed release
  publish   add a signed release to a repository (TUF) that any static file server can serve
  offer     let the vehicles of its profile run a published release, a newer one or an older one
  refresh   sign the repository's freshness anew; a timer's daily work
  verify    check a release, or a whole repository, off line as a vehicle does

A release is a folder that any in-toto verifier reads: statement.dsse.json (in-toto test-result v0.1 in a DSSE
envelope), package/, judgement.json, report.html. A vehicle opens it with: tollgate run RELEASE … --require-release KEY,
or gets it from the repository with: tollgate agent

  tollgate release keys create --output keys/ --repository repository/
  tollgate release sign out/package --judgement out/judgement.json --key keys/signer.pem --output out/release
  tollgate release publish out/release --repository repository/ --keys keys/ --frames-of drive/
  tollgate release offer NAME --repository repository/ --keys keys/
  tollgate release verify repository/ --root repository/metadata/1.root.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli import EXIT_PASSED
from perception.errors import ReleaseError
from perception.package import open_package
from perception.release_client import VerifiedRelease, verify_release
from perception.terminal import Terminal
from safety_gates.keys import any_public_key
from safety_gates.publishing.audit import Audit, audit
from safety_gates.release import sign_release
from safety_gates.verbs.release_keys import add_keys
from safety_gates.verbs.release_repository import add_offer, add_publish, add_refresh
from safety_gates.verbs.signing import add_key, signer_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    for add in (add_keys, _add_sign, add_publish, add_offer, add_refresh, _add_verify):
        action = add(actions)  # the same switches as before the action's name; unset here, they keep that
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
        action.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="only results and errors")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    code: int = arguments.act(arguments, terminal)
    return code


def _add_sign(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    sign = actions.add_parser(
        "sign", help="sign a package that passed", description="Sign a package that passed its gates."
    )
    sign.add_argument("package", type=Path, help="the package that was judged")
    sign.add_argument("--judgement", type=Path, required=True, metavar="JSON", help="what `tollgate gate` wrote")
    add_key(sign, "the signer's private key")
    sign.add_argument("--output", type=Path, required=True, metavar="DIR", help="the release; must not exist")
    sign.set_defaults(act=_sign)
    return sign


def _add_verify(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    verify = actions.add_parser(
        "verify", help="check a release or a repository", description="Check a folder off line, as a vehicle does."
    )
    verify.add_argument("release", type=Path, help="release folder, or repository folder")
    trust = verify.add_mutually_exclusive_group(required=True)
    trust.add_argument("--key", type=Path, metavar="PUB", help="for a release: the public key to trust")
    trust.add_argument("--root", type=Path, metavar="JSON", help="for a repository: the root that vehicles have")
    verify.set_defaults(act=_verify)
    return verify


def _sign(arguments: argparse.Namespace, terminal: Terminal) -> int:
    signer = signer_of(arguments)
    package = open_package(arguments.package)
    release = sign_release(package, arguments.judgement, signer, output=arguments.output)
    return _tell(release, terminal, "[green]released[/]")


def _verify(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.key is not None:
        return _tell(verify_release(arguments.release, any_public_key(arguments.key)), terminal, "[green]verified[/]")
    try:
        root = arguments.root.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{arguments.root}: cannot be read ({error.strerror}); expected a root.json") from error
    return _tell_audit(audit(arguments.release, root), terminal)


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


def _tell_audit(found: Audit, terminal: Terminal) -> int:
    rows = [(each.name, each.profile, f"{len(each.claims)} passed") for each in found.releases]
    terminal.table("Releases", ("name", "profile", "claims"), rows)
    state = found.state
    terminal.say(
        f"[green]verified[/] {found.files} files; root {state.root.signed.version}, targets {state.version} until "
        f"{state.targets.signed.expires:%Y-%m-%d}, timestamp until {state.timestamp.signed.expires:%Y-%m-%d %H:%M} UTC"
    )
    terminal.result(
        {
            "files": found.files,
            "root_version": state.root.signed.version,
            "targets_version": state.version,
            "releases": [
                {"name": each.name, "profile": each.profile, "package_sha256": each.package_sha256}
                for each in found.releases
            ],
        }
    )
    return EXIT_PASSED
