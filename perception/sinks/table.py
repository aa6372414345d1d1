"""Which sinks exist, and how one is opened for a run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from perception.errors import OutputError
from perception.record import RunHeader
from perception.sinks.sink import Sink

SINKS: dict[str, tuple[str, str]] = {
    "run_log": ("perception.sinks.run_log", "RunLogWriter"),
    "overlay": ("perception.sinks.overlay", "OverlayVideos"),
    "agent": ("perception.agent.health", "HealthReporter"),
}


def open_sink(kind: str, path: Path, header: RunHeader) -> Sink:
    """Open a sink; its libraries are imported only now.

    Args:
        kind: name in `SINKS`.
        path: the file (`run_log`) or folder (`overlay`, `agent`) that appears when the sink is closed.
        header: the conditions of the run.

    Raises:
        OutputError: unknown kind, or the path cannot be written.
    """
    if kind not in SINKS:
        raise OutputError(f"sink {kind!r} is unknown, expected one of {', '.join(SINKS)}")
    module, name = SINKS[kind]
    sink: Sink = getattr(import_module(module), name)(path, header)
    return sink
