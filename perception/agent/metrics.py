"""The agent's figures for Prometheus, as a file for the node exporter's text file collector.

Source: Prometheus text exposition format 0.0.4; https://github.com/prometheus/node_exporter#textfile-collector.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from perception.agent.journal import read_journal
from perception.errors import OutputError, UpdateError
from perception.files import write_atomically

METRICS = "metrics.prom"


def write_metrics(state: Path, *, outcome: str, at_s: float) -> None:
    """Write what the last pass came to; a full disk costs the figures only."""
    try:
        write_atomically(state / METRICS, exposition(state, outcome=outcome, at_s=at_s).encode())
    except (OutputError, UpdateError):
        return


def exposition(state: Path, *, outcome: str, at_s: float) -> str:
    """The figures in Prometheus' text format."""
    journal = read_journal(state)
    running = journal.running
    events = Counter(each.what for each in journal.events)
    release = "" if running is None else running.release
    lines = [
        "# HELP tollgate_agent_last_pass_seconds When the last pass ended, seconds since 1970.",
        "# TYPE tollgate_agent_last_pass_seconds gauge",
        f'tollgate_agent_last_pass_seconds{{outcome="{outcome}"}} {at_s:.0f}',
        "# HELP tollgate_agent_release The release in use.",
        "# TYPE tollgate_agent_release gauge",
        f'tollgate_agent_release{{release="{release}"}} {int(running is not None)}',
        "# HELP tollgate_agent_on_trial Whether the commit window is open.",
        "# TYPE tollgate_agent_on_trial gauge",
        f"tollgate_agent_on_trial {int(journal.trial is not None)}",
        "# HELP tollgate_agent_slot_events Among the last hundred things that happened to a slot.",
        "# TYPE tollgate_agent_slot_events gauge",
        *(f'tollgate_agent_slot_events{{what="{what}"}} {count}' for what, count in sorted(events.items())),
    ]
    return "\n".join(lines) + "\n"
