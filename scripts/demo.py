"""The main job on the bundled samples, on this CPU: the commands that a user would type, and a closing table.

Everything lands in the folder `out/`. Run it with `make demo`.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.console import Console

from perception.cli import EXIT_PASSED

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "data" / "samples"
OUT = ROOT / "out"
console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the chain; returns 0 when a release stands at its end."""
    started_s = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    model, drive = SAMPLES / "models" / "sample_detector.onnx", SAMPLES / "drive"
    run("inspect", model, "--output", OUT / "draft.yaml")
    run(
        *("compile", model, "--profile", "x86_cpu", "--calibration", SAMPLES / "calibration"),
        *("--recording", drive, "--labels", drive),
        *("--output", OUT / "package", "--reference-output", OUT / "float"),
    )
    run("replay", OUT / "package", drive, "--log", OUT / "replay.jsonl", "--overlay", OUT / "overlay")
    run(
        *("gate", OUT / "package", "--recording", drive, "--labels", drive, "--reference", OUT / "float"),
        *("--evidence", OUT / "evidence", "--report", OUT / "report.html"),
    )
    run("release", "keys", "--output", OUT / "keys")
    run("release", "sign", OUT / "package", "--judgement", OUT / "judgement.json", "--key", OUT / "keys" / "signer.pem")
    summary()
    console.print(f"\ndone in {time.monotonic() - started_s:.0f} s; the report: {OUT / 'report.html'}")
    return EXIT_PASSED
