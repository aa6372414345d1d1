"""The command line `tollgate`: a table of verbs, loaded by name when they are called.

A vehicle without the factory has fewer verbs: calling a missing one says which extra brings it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Protocol

from perception.errors import TollgateError
from perception.terminal import Terminal

EXIT_PASSED, EXIT_FAILED, EXIT_MISUSE, EXIT_INCONCLUSIVE = 0, 1, 2, 3
INTERRUPTED = 130


class VerbModule(Protocol):
    """What the module of a verb offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments, with help that teaches."""

    def run(self, arguments: argparse.Namespace, terminal: Terminal) -> int:
        """Do it; returns the exit code."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: where it lives and what it is for, in one line."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "doctor": Verb("perception.verbs.doctor", "what this machine is, and which profiles it satisfies"),
    "inspect": Verb("compile.verbs.inspect", "what an ONNX model is, and a draft of its ModelSpec"),
    "compile": Verb("compile.verbs.compile", "ONNX model → engine package for one hardware profile"),
    "run": Verb("perception.verbs.run", "frames at the camera's own pace against the deadline"),
    "replay": Verb("perception.verbs.replay", "every frame of a recording, with run log and overlay"),
    "bench": Verb("perception.verbs.bench", "latency of a package: engine alone, whole pipeline, percentiles"),
    "gate": Verb("safety_gates.verbs.gate", "measure a package against a policy and give a verdict"),
    "release": Verb("safety_gates.verbs.release", "sign what passed its gates, publish it, verify a release"),
    "rollout": Verb("safety_gates.verbs.rollout", "move a release through a fleet in stages, on evidence"),
    "agent": Verb("perception.verbs.agent", "keep a vehicle on the release that was signed for it"),
}

EXTRAS = {"duckdb": "rollout"}  # which brings a library, where it is not the factory

EPILOG = """exit codes: 0 passed, 1 a verdict failed, 2 misuse or bad input, 3 inconclusive
documentation: docs/verbs/VERB.md, one page a verb"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = _overview()
    if not words or words[0] in ("-h", "--help", "--version"):
        parser.parse_args(words or ["--help"])
    chosen = parser.parse_args(words[:1]).verb
    return _run_verb(chosen, words[1:])


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one verb, with its arguments.

    Raises:
        TollgateError: the verb's libraries are not installed.
    """
    verb = VERBS[name]
    module = _load(name, verb)
    parser = argparse.ArgumentParser(
        prog=f"tollgate {name}",
        description=(module.__doc__ or verb.summary),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, the rest on stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress, only results and errors")
    return parser


def _run_verb(name: str, words: list[str]) -> int:
    try:
        parser = parser_of(name)
        arguments = parser.parse_args(words)
        terminal = Terminal(as_json=arguments.json, quiet=arguments.quiet)
        return _load(name, VERBS[name]).run(arguments, terminal)
    except TollgateError as error:
        Terminal().error(f"tollgate {name}: {error}")
        return EXIT_MISUSE
    except KeyboardInterrupt:
        Terminal().error(f"tollgate {name}: interrupted; nothing half-written was left")
        return INTERRUPTED


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollgate",
        description="Take a trained camera model to the road: compile, run inside a budget, gate, release.",
        epilog="verbs:\n" + "\n".join(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()) + f"\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tollgate {_own_version()}")
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help="what to do; tollgate VERB --help teaches it")
    return parser


def _own_version() -> str:
    try:
        return version("tollgate")
    except PackageNotFoundError:
        return "as its sources, not installed"


def _load(name: str, verb: Verb) -> VerbModule:
    package = verb.module.split(".")[0]
    if find_spec(package) is None:
        raise TollgateError(
            f"this installation has no {package}, which brings {name}; run: pip install 'tollgate[factory]'"
        )
    try:
        module: VerbModule = import_module(verb.module)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "factory")
        raise TollgateError(f"{error.name} is not installed; run: pip install 'tollgate[{extra}]'") from error
    return module


if __name__ == "__main__":
    sys.exit(main())
