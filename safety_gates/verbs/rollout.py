"""Move a release through stages of a fleet on evidence from the field, and stop by itself where it does harm.

  start      begin a rollout in its first stage
  ingest     add signed records of vehicles to the rollout's store; what cannot be believed is counted and left out
  status     stages, exposure, evidence and decisions, as text, page or metrics; decides nothing
  auto       one look: advance, hold or roll back on the evidence, if a look is due
  advance    go to the next stage by hand
  hold       keep the automatic mode from advancing, or let it go on with --lift; it still rolls back
  rollback   take every vehicle back to the control release
  simulate   what these stages do with simulated fleets: false alarms, exposure at detection, time to full rollout

Exit codes of auto: 0 advanced or complete, 1 rolled back, 3 holding.

  tollgate rollout start out/rollout --name may --candidate NEW --control OLD --fleet fleet.jsonl --key PEM
  tollgate rollout ingest out/rollout telemetry/ --fleet fleet.jsonl
  tollgate rollout auto out/rollout --key PEM --repository DIR --keys DIR
  tollgate rollout status out/rollout --html out/rollout.html
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.cli import EXIT_FAILED, EXIT_INCONCLUSIVE, EXIT_PASSED
from perception.cohort import ReleaseRef
from perception.errors import RolloutError
from perception.files import write_atomically
from perception.terminal import Terminal
from safety_gates.keys import any_public_key
from safety_gates.publishing.keyring import read_keyring
from safety_gates.rollout.decision import Judgement, judge_stage
from safety_gates.rollout.field import vehicle_table
from safety_gates.rollout.fleet_file import read_fleet
from safety_gates.rollout.ingest import REASONS, Scope, ingest, total_counts
from safety_gates.rollout.metrics import prometheus
from safety_gates.rollout.moving import command, judged
from safety_gates.rollout.page import render
from safety_gates.rollout.publication import published_release, publisher, refuse_misfits, refuse_unmeasured_drift
from safety_gates.rollout.rollout import Beginning, Rollout, open_rollout, publish, start
from safety_gates.rollout.stages import load_stages
from safety_gates.rollout.uploads import uploads_at
from safety_gates.verbs import rollout_simulate
from safety_gates.verbs.signing import add_key, signer_of

Act = Callable[[argparse.Namespace, Terminal], int]
_EXITS = {"advance": EXIT_PASSED, "complete": EXIT_PASSED, "look": EXIT_INCONCLUSIVE, "rollback": EXIT_FAILED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    for name, (act, says, declare) in _ACTIONS.items():
        action = actions.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
        if name != "simulate":
            action.add_argument("rollout", type=Path, metavar="ROLLOUT", help="folder of the rollout")
        declare(action)
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
        action.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="only results and errors")
        action.set_defaults(act=act)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    code: int = arguments.act(arguments, terminal)
    return code


def _start_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="name of the rollout; records carry it")
    for role in ("candidate", "control"):
        parser.add_argument(
            f"--{role}", required=True, metavar="RELEASE", help=f"the {role}: NAME in the repository, or NAME=SHA256"
        )
    parser.add_argument("--stages", type=Path, metavar="YAML", help="stages and criteria; without, the shipped ones")
    parser.add_argument(
        "--fleet", type=Path, metavar="JSONL", help="the vehicles; stages that ask for a least number need their count"
    )
    parser.add_argument(
        "--operator", type=Path, nargs="*", default=[], metavar="PUB", help="public keys of others who may decide"
    )
    _publish_arguments(parser)


def _ingest_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", help="signed records, JSON lines or Parquet: a folder, or a store (s3://BUCKET/PREFIX, gs:, az:)"
    )
    parser.add_argument("--fleet", type=Path, required=True, metavar="JSONL", help="the vehicles and their public keys")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--html", type=Path, metavar="HTML", help="write a page that needs no network")
    parser.add_argument(
        "--metrics", type=Path, metavar="PROM", help="write metrics for a Prometheus text-file collector"
    )


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    add_key(parser, "private key of an operator of this rollout")
    parser.add_argument("--repository", type=Path, metavar="DIR", help="publish the plan in this release repository")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="keyring of the repository")


def _reason_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, help="why; it goes into the signed log")
    _publish_arguments(parser)


def _advance_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="seen_stage", required=True, metavar="STAGE", help="the stage you have seen and want to leave"
    )
    _reason_arguments(parser)


def _hold_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lift", action="store_true", help="let the automatic mode go on")
    _reason_arguments(parser)


def _start(arguments: argparse.Namespace, terminal: Terminal) -> int:
    file, text = load_stages(arguments.stages)
    beginning = Beginning(
        arguments.name,
        text,
        _release(arguments.candidate, arguments.repository),
        _release(arguments.control, arguments.repository),
        tuple(any_public_key(path) for path in arguments.operator),
        len(read_fleet(arguments.fleet).vehicle_ids()) if arguments.fleet else None,
    )
    if arguments.repository is not None:
        refuse_misfits(arguments.repository, beginning.candidate, beginning.control)
        refuse_unmeasured_drift(arguments.repository, (beginning.candidate, beginning.control), file)
    return _told(start(arguments.rollout, beginning, signer_of(arguments)), arguments, terminal)


def _ingest(arguments: argparse.Namespace, terminal: Terminal) -> int:
    rollout = open_rollout(arguments.rollout)
    scope = Scope(rollout.plan, rollout.log.entries[0].at_ns, time.time_ns())
    counts = ingest(arguments.rollout, uploads_at(arguments.source), read_fleet(arguments.fleet), scope)
    rows = [(reason, str(counts[reason]), says) for reason, says in REASONS.items()]
    terminal.table("Records", ("count as", "records", "meaning"), rows)
    terminal.result({reason: counts[reason] for reason in REASONS})
    return EXIT_PASSED


def _status(arguments: argparse.Namespace, terminal: Terminal) -> int:
    rollout = open_rollout(arguments.rollout)
    now_ns, counts = time.time_ns(), total_counts(arguments.rollout)
    if arguments.html:
        write_atomically(arguments.html, render(rollout, counts, now_ns))
    if arguments.metrics:
        write_atomically(arguments.metrics, prometheus(rollout, counts))
    rows = [
        (str(entry.number), entry.action, entry.plan.stage, entry.by, entry.reason) for entry in rollout.log.entries
    ]
    terminal.table("Decisions", ("entry", "action", "stage", "by", "reason"), rows)
    terminal.say(_standing(rollout, now_ns))
    terminal.result(_document(rollout))
    return EXIT_PASSED


def _auto(arguments: argparse.Namespace, terminal: Terminal) -> int:
    signer, now_ns = signer_of(arguments), time.time_ns()
    rollout = open_rollout(arguments.rollout)
    _publish(rollout, arguments)
    due_in_h = 0.0 if rollout.ended else rollout.due_in_h(now_ns)
    if due_in_h > 0:
        terminal.say(f"the next look is due in {due_in_h:.1f} h; nothing was decided")
        terminal.result(_document(rollout))
        return EXIT_INCONCLUSIVE
    judgement = _look(rollout, now_ns)
    return _told(
        judged(rollout, judgement, total_counts(arguments.rollout), signer, now_ns=now_ns), arguments, terminal
    )


def _look(rollout: Rollout, now_ns: int) -> Judgement:
    return judge_stage(rollout.file, rollout.stage, vehicle_table(rollout, now_ns), at=rollout.next_look(now_ns))


def _by_hand(arguments: argparse.Namespace, terminal: Terminal) -> int:
    action = "resume" if getattr(arguments, "lift", False) else arguments.action
    moved = command(
        open_rollout(arguments.rollout),
        action,
        arguments.reason,
        signer_of(arguments),
        now_ns=time.time_ns(),
        seen_stage=getattr(arguments, "seen_stage", None),
    )
    _told(moved, arguments, terminal)
    return EXIT_PASSED


def _publish(rollout: Rollout, arguments: argparse.Namespace) -> None:
    """Make `rollout.json` and, where one is given, the repository say what the log says."""
    if (arguments.repository is None) != (arguments.keys is None):
        raise RolloutError("publishing: got one of --repository and --keys, expected both or neither")
    put = publisher(arguments.repository, read_keyring(arguments.keys)) if arguments.repository else None
    publish(rollout, put)


def _told(rollout: Rollout, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Publish what was decided and say it."""
    _publish(rollout, arguments)
    last = rollout.log.last
    terminal.say(f"[bold]{last.action}[/]: {last.reason}")
    terminal.say(_standing(rollout, last.at_ns))
    terminal.result(_document(rollout))
    return _EXITS.get(last.action, EXIT_PASSED)


def _standing(rollout: Rollout, now_ns: int) -> str:
    plan, last = rollout.plan, rollout.log.last
    if rollout.ended:
        return f"{plan.rollout}: ended, {last.action}"
    held = "held by a person" if last.paused else f"next look in {rollout.due_in_h(now_ns):.1f} h"
    return f"{plan.rollout}: stage {plan.stage}, {rollout.stage.share:.1%} candidate, {held}"


def _document(rollout: Rollout) -> dict[str, object]:
    last = rollout.log.last
    return {
        "rollout": rollout.plan.rollout,
        "state": rollout.plan.state,
        "stage": rollout.plan.stage,
        "ended": rollout.ended,
        "paused": last.paused,
        "entry": last.number,
        "action": last.action,
        "reason": last.reason,
        "judgement": last.judgement,
    }


def _release(text: str, repository: Path | None) -> ReleaseRef:
    name, equals, sha256 = text.rpartition("=")
    if not equals and repository is not None:
        return published_release(repository, text)
    try:
        return ReleaseRef(name=name, sha256=sha256)
    except ValidationError as error:
        raise RolloutError(
            f"release {text!r}: {complaints_of(error)}; expected NAME=SHA256 of its package, or a NAME in --repository"
        ) from error


_ACTIONS: dict[str, tuple[Act, str, Callable[[argparse.ArgumentParser], None]]] = {
    "start": (_start, "begin a rollout in its first stage", _start_arguments),
    "ingest": (_ingest, "add signed records of vehicles", _ingest_arguments),
    "status": (_status, "show stages, exposure, evidence and decisions", _status_arguments),
    "auto": (_auto, "take one look and do what it says", _publish_arguments),
    "advance": (_by_hand, "go to the next stage by hand", _advance_arguments),
    "hold": (_by_hand, "keep the automatic mode from advancing; it still rolls back", _hold_arguments),
    "rollback": (_by_hand, "take every vehicle back to the control release", _reason_arguments),
    "simulate": (rollout_simulate.simulate, "try these stages on simulated fleets", rollout_simulate.add_arguments),
}
