"""Which sinks exist, and how one is opened for a run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from perception.errors import OutputError
from perception.record import RunHeader
from perception.sinks.sink import Sink


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind of sink is written, and the extra that brings the libraries for it."""

    module: str
    name: str
    extra: str | None = None


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
    entry = SINKS[kind]
    try:
        module = import_module(entry.module)
    except ModuleNotFoundError as error:
        raise OutputError(
            f"{error.name} is not installed, expected it for the output {kind}; run: "
            f"pip install 'tollgate[{entry.extra}]'"
        ) from error
    sink: Sink = getattr(module, entry.name)(path, header)
    return sink
