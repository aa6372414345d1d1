"""Which sinks exist, and how one is opened for a run."""

from __future__ import annotations

from pathlib import Path

from perception.errors import OutputError
from perception.kinds import Kind
from perception.record import RunHeader
from perception.sinks.sink import Sink

SINKS: dict[str, Kind] = {
    "run_log": Kind("perception.sinks.run_log", "RunLogWriter"),
    "overlay": Kind("perception.sinks.overlay", "OverlayVideos"),
    "agent": Kind("perception.agent.health", "HealthReporter"),
    "mcap": Kind("perception.sinks.mcap_file", "McapWriter", "recordings"),
    "rerun": Kind("perception.sinks.rerun_view", "RerunFile", "view"),
    "view": Kind("perception.sinks.rerun_view", "RerunViewer", "view"),
}


def open_sink(kind: str, path: Path, header: RunHeader) -> Sink:
    """Open a sink; its libraries are imported only now.

    Args:
        kind: name in `SINKS`.
        path: the file (`run_log`, `mcap`, `rerun`) or folder (`overlay`, `agent`) that appears when the sink is closed;
            the address of a viewer (`view`).
        header: the conditions of the run.

    Raises:
        OutputError: unknown kind, its libraries are not installed, or the path cannot be written.
    """
    if kind not in SINKS:
        raise OutputError(f"sink {kind!r} is unknown, expected one of {', '.join(SINKS)}")
    sink: Sink = SINKS[kind].load(f"the output {kind}", OutputError)(path, header)
    return sink
