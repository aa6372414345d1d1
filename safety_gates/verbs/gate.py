"""Measure a package against a policy and give a verdict that stands on evidence.

Every claim of the policy is measured on exactly these bytes, on this machine, with its uncertainty: accuracy against
the labels and slice by slice, what was lost against the float model and the last release, spoilt pictures, flicker,
latency against the deadline and what it costs, provenance of the bytes. A claim passes only if
its whole interval keeps the limit; one that cannot be decided is INCONCLUSIVE and says what to collect. Evidence is
kept and re-used as long as nothing it is bound to changed: package, machine, frames, labels, settings.

  tollgate gate out/package --recording drive/ --labels drive/ --reference out/float
  tollgate gate out/package --recording kitti/image_2 --labels kitti/label_2 --class-map kitti.yaml
  tollgate gate out/package --recording pictures/ --labels labels/ --timing-recording long_drive.mp4
  tollgate gate out/package --recording drive/ --labels drive/ --reference out/float --last-release released/package
  tollgate gate out/package --recording drive/ --policy highway.yaml --json

exit codes: 0 PASSED, 1 FAILED, 3 INCONCLUSIVE, 2 bad input
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from perception.cli import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASSED
from perception.files import json_bytes, sha256_of_bytes, write_atomically
from perception.package import open_package
from perception.release_client import JUDGEMENT, REPORT
from perception.terminal import Terminal
from perception.verbs.recordings import positive
from safety_gates.evidence import Shelf
from safety_gates.judge import Judgement, WrittenJudgement, WrittenReport, judge
from safety_gates.policy import load_policy
from safety_gates.report.page import MARKS, SIGNS, range_with_unit, render, with_unit
from safety_gates.trial import Case, Trial
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


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    beside = arguments.package.resolve().parent
    shelf = Shelf(arguments.evidence or beside / "evidence")
    report = arguments.report or beside / REPORT
    judgement_file = arguments.judgement or report.with_name(JUDGEMENT)
    policy = load_policy(arguments.policy)
    trial = Trial(_case_of(arguments), shelf, terminal)
    judgement = judge(trial, policy)
    written = _write(judgement, trial, report=report, judgement_file=judgement_file)
    _show(judgement, terminal, report=report, judgement_file=judgement_file)
    terminal.result(written.model_dump(mode="json"))
    return EXIT_CODES[judgement.outcome]


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
