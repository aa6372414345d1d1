"""Write docs/results/NAME.json: conditions, and one row a claim."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import onnxruntime

from hw_profiles.machine import read_machine
from perception.files import json_bytes, write_atomically

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def row(
    name: str, value: float, *, limit: float | None, unit: str, better: str, samples: int, command: str
) -> dict[str, Any]:
    """One line of a results file; `limit` is None where a figure is given for information."""
    if better not in ("lower", "higher"):
        raise ValueError(f"better: got {better!r}, expected lower or higher")
    return {
        "id": name,
        "value": value,
        "limit": limit,
        "unit": unit,
        "better": better,
        "samples": samples,
        "command": command,
    }


def write_results(
    name: str,
    rows: Sequence[dict[str, Any]],
    *,
    folder: Path = RESULTS,
    more: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write the file, with what the machine was like, `more` conditions, and what else stands `beside` the rows."""
    machine = read_machine()
    conditions = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": machine.cpu.model,
        "cores": machine.cpu.cores,
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        **(more or {}),
    }
    write_atomically(
        folder / f"{name}.json", json_bytes({"conditions": conditions, "rows": list(rows), **(beside or {})})
    )
