r"""Keep this vehicle on the release that its fleet's owner signed for it.

One pass: finish what a process that died began, judge the commit window, ask the repository (TUF) what is wanted,
fetch it with resume, verify it, hold it against this machine, fill the slot that is not in use, run the bundled frames
through it, and point to it by one rename. A release that crashes, is late or answers otherwise than where it was judged
is left again. Whatever fails, the vehicle runs what it ran.

  tollgate agent /var/lib/tollgate --repository https://updates.example/fleet --root root.json \
      --profile jetson_orin_nano_8gb_25w --vehicle-id V123 --once
  tollgate agent /var/lib/tollgate --status
  tollgate run /var/lib/tollgate/active drive/ --agent /var/lib/tollgate
"""

from __future__ import annotations

import argparse
import random
import signal
import threading
import time
from pathlib import Path

from rich.markup import escape

from perception.agent.agent import Agent, Outcome, Report
from perception.agent.download import fetcher_for
from perception.agent.journal import read_journal
from perception.agent.metrics import write_metrics
from perception.agent.surroundings import Surroundings
from perception.agent.telemetry import Reporter
from perception.agent.trust import Origin
from perception.agent.wanted import Vehicle
from perception.cli import EXIT_FAILED, EXIT_PASSED
from perception.errors import TollgateError, UpdateError
from perception.terminal import Terminal
from perception.verbs.recordings import positive_number

BAD = (Outcome.FELL_BACK, Outcome.REFUSED)
JITTER = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    parser.add_argument("state", type=Path, help="the vehicle's folder; made at the first pass")
    parser.add_argument("--repository", metavar="URL", help="where releases come from: http(s)://… or a folder")
    parser.add_argument("--root", type=Path, metavar="JSON", help="the root metadata this vehicle was made with")
    parser.add_argument("--profile", metavar="NAME", help="the hardware profile this vehicle satisfies")
    parser.add_argument("--vehicle-id", metavar="ID", help="this vehicle's own id, for cohorts of a rollout")
    parser.add_argument("--telemetry", metavar="URL", help="send this vehicle's signed drive records there (HTTP PUT)")
    parser.add_argument("--once", action="store_true", help="one pass, for a timer; else pass after pass until stopped")
    parser.add_argument(
        "--interval-s", type=positive_number, default=900.0, metavar="S", help="seconds between passes (default 900)"
    )
    parser.add_argument(
        "--status", action="store_true", help="only tell what this vehicle runs and what happened to it"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    if arguments.status:
        return _status(arguments.state, terminal)
    agent = _agent(arguments)
    if arguments.once:
        return _tell(_pass(agent, arguments, terminal), terminal)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.is_set():
        try:
            _tell(_pass(agent, arguments, terminal), terminal)
        except TollgateError as error:
            terminal.error(f"tollgate agent: {error}")
        stopped.wait(arguments.interval_s * random.uniform(1 - JITTER, 1 + JITTER))  # a fleet must not come at once
    return EXIT_PASSED


def _agent(arguments: argparse.Namespace) -> Agent:
    for name in ("repository", "root", "profile", "vehicle_id"):
        if getattr(arguments, name) is None:
            raise UpdateError(f"--{name.replace('_', '-')} is missing; see: tollgate agent --help")
    if arguments.telemetry is not None and not arguments.telemetry.startswith(("http://", "https://")):
        raise UpdateError(f"--telemetry: got {arguments.telemetry}, expected http://… or https://…")
    try:
        root = arguments.root.read_bytes()
    except OSError as error:
        raise UpdateError(f"{arguments.root}: cannot be read ({error.strerror}); expected a root.json") from error
    return Agent(
        arguments.state,
        Origin(arguments.repository, root),
        Vehicle(arguments.vehicle_id, arguments.profile),
        Surroundings(fetcher=fetcher_for(arguments.repository)),
    )


def _pass(agent: Agent, arguments: argparse.Namespace, terminal: Terminal) -> Report:
    """One pass; whatever it comes to, its metrics are written, and records that wait are sent as far as they get."""
    state, outcome = arguments.state, ""
    try:
        report = agent.update()
        outcome = report.outcome.value
        return report
    except TollgateError as error:
        outcome = type(error).__name__
        raise
    finally:
        write_metrics(state, outcome=outcome or "died", at_s=time.time())
        if arguments.telemetry is not None:
            sent = Reporter(state, Vehicle(arguments.vehicle_id, arguments.profile)).upload(arguments.telemetry)
            if sent.reason is not None:
                terminal.say(f"[yellow]{sent.left} drive records wait[/]  {escape(sent.reason)}")


def _tell(report: Report, terminal: Terminal) -> int:
    colour = "red" if report.outcome in BAD else "green"
    words = [f"[{colour}]{report.outcome.value}[/]", escape(report.release), escape(report.reason)]
    terminal.say("  ".join(filter(None, words)))
    terminal.result({"outcome": report.outcome.value, "release": report.release, "reason": report.reason})
    return EXIT_FAILED if report.outcome in BAD else EXIT_PASSED


def _status(state: Path, terminal: Terminal) -> int:
    journal = read_journal(state)
    marks = {journal.active: "in use, on trial" if journal.trial else "in use", journal.shadow: "shadow"}
    rows = [
        (name, escape(record.release), marks.get(name, ""), "yes" if record.committed else "no")
        for name, record in sorted(journal.slots.items())
    ]
    terminal.table("Slots", ("slot", "release", "state", "committed"), rows)
    events = [
        (time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.at_s)), each.what, escape(f"{each.release}  {each.reason}"))
        for each in journal.events[-10:]
    ]
    terminal.table("\nEvents", ("UTC", "what", "release"), events)
    terminal.result(journal.model_dump(mode="json"))
    return EXIT_PASSED
