"""Starts the process that talks to TensorRT's builder, and reads what it tells. Imports no TensorRT."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SOURCE_PLACE = re.compile(r"\[[\w/.]+\.(?:cpp|h|cu)::\w+::\d+\]\s*")
_CODE = re.compile(r"Error Code \d+: (?:Internal Error|[\w ]+)\s*")
_TOLD = {
    "step": "{phase} {step}/{steps}",
    "fallback": "layer {layer} ({kind}) runs on the GPU: the DLA cannot",
}

Advance = Callable[[str], None]


def tell(**event: object) -> None:
    """One event to the parent, from the builder's process."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class BuildEvents:
    """What a build told before it ended.

    Attributes:
        errors: lines of severity ERROR and INTERNAL_ERROR, first first.
        refused: the parser's errors: message, node (its index), code.
        failed: exceptions of the worker itself.
    """

    errors: tuple[str, ...]
    refused: tuple[Mapping[str, object], ...]
    failed: tuple[str, ...]

    @classmethod
    def of(cls, events: Sequence[Mapping[str, object]]) -> BuildEvents:
        """Sort the worker's events."""
        severe = ("ERROR", "INTERNAL_ERROR")
        return cls(
            tuple(str(e["message"]) for e in events if e["event"] == "log" and e["severity"] in severe),
            tuple(e for e in events if e["event"] == "refused"),
            tuple(str(e["message"]) for e in events if e["event"] == "failed"),
        )


def plain(line: str) -> str:
    """A log line without source places and codes, in one line."""
    text = _CODE.sub("", _SOURCE_PLACE.sub("", line))
    return " ".join(text.split()).strip(" .:()")[:300]


def work(folder: Path, verb: str, advance: Advance) -> tuple[int, list[dict[str, object]]]:
    """Run the worker to its end; on an interrupt it is ended first.

    Args:
        folder: with the files that the verb reads; see `perception.engines.tensorrt_worker`.
        verb: what to do.
        advance: told each step of the builder that it reports, and each layer that a DLA leaves to the GPU.

    Returns:
        Exit status, and everything it told.
    """
    command = [sys.executable, "-m", "perception.engines.tensorrt_worker", str(folder.absolute()), verb]
    root = Path(__file__).resolve().parents[2]
    events: list[dict[str, object]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as worker:
        try:
            for line in worker.stdout or ():
                event = _event(line)
                events.append(event)
                if event["event"] in _TOLD:
                    advance(_TOLD[str(event["event"])].format_map(event))
        except BaseException:
            worker.kill()
            raise
    return worker.returncode, events


def _event(line: str) -> dict[str, object]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": "log", "severity": "INFO", "message": line.rstrip()}  # the library's own words on stdout
