"""Measure a package against a policy and give a verdict that stands on evidence.

Every claim of the policy is measured on exactly these bytes, on this machine, with its uncertainty: accuracy against
the labels and slice by slice, what was lost against the float model and the last release, spoilt pictures, flicker,
broken cameras, latency at the camera's rate and what it costs, whether results repeat bit for bit, what calibrated,
memory, provenance of the bytes. A claim passes only if its whole interval keeps the limit; one that cannot be decided
is INCONCLUSIVE and says what to collect. Evidence is kept and re-used as long as nothing it is bound to changed:
package, machine, frames, labels, settings, code. Interrupted, the same command goes on where it was.

  tollgate gate out/package --recording drive/ --labels drive/ --reference out/float
  tollgate gate out/package --recording kitti/image_2 --labels kitti/label_2 --class-map kitti.yaml
  tollgate gate out/package --recording pictures/ --labels labels/ --timing-recording long_drive.mp4
  tollgate gate out/package --recording drive/ --labels drive/ --reference out/float --last-release released/package
  tollgate gate out/package --recording drive/ --policy highway.yaml --json
  tollgate gate out/package --recording drive/ --junit gate.xml --markdown gate.md
  tollgate gate out/package --recording drive/ --attestation result.dsse.json --key keys/signer.pem

exit codes: 0 PASSED, 1 FAILED, 3 INCONCLUSIVE, 2 bad input
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from securesystemslib.signer import Signer

from perception.cli import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASSED
from perception.errors import ReleaseError, VerificationError
from perception.files import json_bytes, sha256_of_bytes, sha256_of_file, write_atomically
from perception.package import open_package
from perception.release_client import JUDGEMENT, REPORT
from perception.terminal import Terminal
from perception.verbs.recordings import positive
from safety_gates.attestation import result_statement, signed
from safety_gates.case import SOAK_FRAMES, Case
from safety_gates.evidence import KeptEvidence, Shelf
from safety_gates.gates.provenance import sbom_in
from safety_gates.judge import Judgement, WrittenJudgement, WrittenReport, judge
from safety_gates.policy import load_policy
from safety_gates.report.junit import junit_xml
from safety_gates.report.markdown import markdown_summary
from safety_gates.report.page import render
from safety_gates.report.words import MARKS, SIGNS, range_with_unit, with_unit
from safety_gates.sbom import sbom_of_this_environment
from safety_gates.source_signature import SourceSignature
from safety_gates.trial import Trial
from safety_gates.verbs.signing import add_key, signer_of
from safety_gates.verdict import Outcome, Verdict

EXIT_CODES = {
    Outcome.PASSED: EXIT_PASSED,
    Outcome.FAILED: EXIT_FAILED,
    Outcome.INCONCLUSIVE: EXIT_INCONCLUSIVE,
}
COLOURS = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.INCONCLUSIVE: "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    parser.add_argument("package", type=Path, help="engine package on trial")
    parser.add_argument(
        "--recording", type=Path, required=True, metavar="PATH", help="frames: video, picture folder, KITTI raw, drive"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="PATH", help="ground truth of the recording; accuracy is inconclusive without"
    )
    parser.add_argument(
        "--class-map", type=Path, metavar="YAML", help="which of the model's classes answers to which label"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="PACKAGE", help="the float package; parity is inconclusive without"
    )
    before = parser.add_mutually_exclusive_group()
    before.add_argument(
        "--last-release", type=Path, metavar="PACKAGE", help="the package released before this one; nothing may be lost"
    )
    before.add_argument("--first-release", action="store_true", help="say that nothing was released before")
    parser.add_argument("--policy", type=Path, metavar="YAML", help="limits to keep (default: the policy shipped)")
    parser.add_argument(
        "--timing-recording",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        help="measure latency on all frames of these recordings, which need no labels (default: on --recording)",
    )
    parser.add_argument(
        "--frames", type=positive, metavar="N", help="only the first N frames of --recording (default: all)"
    )
    parser.add_argument(
        "--evidence", type=Path, metavar="DIR", help="where evidence is kept (default: evidence/ beside the package)"
    )
    parser.add_argument(
        "--report", type=Path, metavar="HTML", help="the report for people (default: report.html beside the package)"
    )
    parser.add_argument(
        "--judgement",
        type=Path,
        metavar="JSON",
        help="the verdicts for machines (default: judgement.json beside the report)",
    )
    parser.add_argument(
        "--soak-frames",
        type=positive,
        default=SOAK_FRAMES,
        metavar="N",
        help=f"watch memory for so many frames, to 8 times as many while growth is undecided (default: {SOAK_FRAMES})",
    )
    parser.add_argument(
        "--source-signature", type=Path, metavar="SIG", help="signature of the source model: DSSE or a Sigstore bundle"
    )
    parser.add_argument("--source-key", type=Path, metavar="PUB", help="public key of whoever signed the source model")
    parser.add_argument("--junit", type=Path, metavar="XML", help="also write the verdicts as JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="MD", help="also write a summary for a pull request")
    parser.add_argument(
        "--sbom", type=Path, metavar="JSON", help="also write the runtime's bill of materials (CycloneDX)"
    )
    parser.add_argument(
        "--attestation", type=Path, metavar="DSSE", help="also write a signed in-toto test result; needs --key"
    )
    add_key(parser, "private key that signs the attestation", required=False)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    beside = arguments.package.resolve().parent
    shelf = Shelf(arguments.evidence or beside / "evidence")
    report = arguments.report or beside / REPORT
    judgement_file = arguments.judgement or report.with_name(JUDGEMENT)
    policy = load_policy(arguments.policy)
    signer = _signer_of(arguments)
    trial = Trial(_case_of(arguments), shelf, terminal)
    judgement = judge(trial, policy)
    written = _write(judgement, trial, report=report, judgement_file=judgement_file)
    _write_more(arguments, judgement, written)
    if signer is not None:
        documents = {JUDGEMENT: sha256_of_file(judgement_file), REPORT: written.report.sha256}
        statement = result_statement(written, judgement.case.package, documents)
        write_atomically(arguments.attestation, signed(statement, signer))
    _show(judgement, terminal, report=report, judgement_file=judgement_file)
    terminal.result(written.model_dump(mode="json"))
    return EXIT_CODES[judgement.outcome]


def _signer_of(arguments: argparse.Namespace) -> Signer | None:
    """Whoever signs the attestation; read before anything is measured."""
    if (arguments.attestation is None) != (arguments.key is None):
        raise ReleaseError(
            "--attestation: got one of it and --key, expected both or neither (tollgate release keys makes a key)"
        )
    return None if arguments.attestation is None else signer_of(arguments)


def _source_signature_of(arguments: argparse.Namespace) -> SourceSignature | None:
    if arguments.source_signature is None:
        return None
    if arguments.source_key is None:
        raise VerificationError(f"{arguments.source_signature}: got no key to verify it with; give --source-key PUB")
    return SourceSignature.read(arguments.source_signature, arguments.source_key)


def _write_more(arguments: argparse.Namespace, judgement: Judgement, written: WrittenJudgement) -> None:
    """The documents that were asked for beside report and judgement."""
    if arguments.junit is not None:
        write_atomically(arguments.junit, junit_xml(written))
    if arguments.markdown is not None:
        write_atomically(arguments.markdown, markdown_summary(written))
    if arguments.sbom is not None:
        kept = judgement.exhibits.get("provenance")
        sbom = sbom_in(kept) if isinstance(kept, KeptEvidence) else None
        write_atomically(arguments.sbom, sbom_of_this_environment() if sbom is None else sbom)


def _case_of(arguments: argparse.Namespace) -> Case:
    return Case(
        package=open_package(arguments.package),
        recording=arguments.recording,
        labels=arguments.labels,
        class_map=arguments.class_map,
        reference=None if arguments.reference is None else open_package(arguments.reference),
        last_release=None if arguments.last_release is None else open_package(arguments.last_release),
        first_release=arguments.first_release,
        frames=arguments.frames,
        timing=tuple(arguments.timing_recording),
        soak_frames=arguments.soak_frames,
        source_signature=_source_signature_of(arguments),
        command=_command_of(arguments),
    )


def _command_of(arguments: argparse.Namespace) -> str:
    """The command line as it could be typed again; what was left out stays out."""
    words = ["tollgate", "gate", str(arguments.package)]
    for name in (
        "recording",
        "labels",
        "class_map",
        "reference",
        "last_release",
        "policy",
        "frames",
        "evidence",
        "report",
        "judgement",
        "soak_frames",
        "source_signature",
        "source_key",
        "junit",
        "markdown",
        "sbom",
        "attestation",
        "key",
        "public_key",
    ):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if arguments.first_release:
        words.append("--first-release")
    if arguments.timing_recording:
        words += ["--timing-recording", *map(str, arguments.timing_recording)]
    return shlex.join(words)


def _write(judgement: Judgement, trial: Trial, *, report: Path, judgement_file: Path) -> WrittenJudgement:
    """Report first: the judgement names its digest."""
    page = render(judgement, trial)
    write_atomically(report, page)
    folder = judgement_file.resolve().parent
    written = WrittenJudgement.of(
        judgement,
        evidence_folder=os.path.relpath(trial.shelf.folder.resolve(), folder),
        report=WrittenReport(file=os.path.relpath(report.resolve(), folder), sha256=sha256_of_bytes(page)),
    )
    write_atomically(judgement_file, json_bytes(written.model_dump(mode="json")))
    return written


def _show(judgement: Judgement, terminal: Terminal, *, report: Path, judgement_file: Path) -> None:
    package = judgement.case.package
    header = ("", "claim", "got", "interval", "limit", "n")
    terminal.table(
        f"{package.manifest.name} for {package.profile.name}", header, [_row(each) for each in judgement.verdicts]
    )
    for verdict in judgement.verdicts:
        if verdict.outcome is not Outcome.PASSED:
            colour = COLOURS[verdict.outcome]
            terminal.say(f"[{colour}]{verdict.outcome.value}[/] {verdict.requirement.claim}: {verdict.why}")
    outcome = judgement.outcome
    terminal.say(f"[bold {COLOURS[outcome]}]{outcome.value}[/]  report: {report}  judgement: {judgement_file}")


def _row(verdict: Verdict) -> tuple[str, ...]:
    asked, measured = verdict.requirement, verdict.measured
    return (
        f"[{COLOURS[verdict.outcome]}]{MARKS[verdict.outcome.value]}[/]",
        asked.claim,
        with_unit(measured.got, asked.unit),
        "" if measured.interval is None else range_with_unit(measured.interval, asked.unit),
        f"{SIGNS[asked.comparison]} {with_unit(asked.limit, asked.unit)}",
        str(measured.samples),
    )
