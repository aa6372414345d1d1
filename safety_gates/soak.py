"""A package run for a while in a process of its own, watched: memory, power, temperature, clocks.

Run as a program, so that memory is the package's alone: a few frames are decoded and held, then the pipeline takes them
again and again. What grows then is the pipeline or the engine; nothing else is there.

    python -m safety_gates.soak PACKAGE RECORDING FRAMES OUTPUT.npz
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.sysfs import text_of
from hw_profiles.telemetry import sample
from perception.errors import EngineError, TollgateError
from perception.frame import Frame
from perception.package import EnginePackage, open_package
from perception.pipeline import open_pipeline
from perception.sources.table import open_source

HELD_BYTES, MOST_HELD = 64 << 20, 64
SETTLING_FRAMES = 300  # allocators, caches and lazy initialisation settle first
LOOKS = 200
WATCHED = ("at_ns", "rss_bytes", "power_w", "energy_uj", "temperature_c", "gpu_temperature_c", "cpu_clock_mhz")
REFUSED = 2


def soak(package: EnginePackage, recording: Path, frames: int) -> dict[str, NDArray[np.generic]]:
    """Run a package for so many frames in a process of its own.

    Returns:
        `frame`, (L,) frames run at each look; each of `WATCHED`, (L,), NaN where the machine does not tell; and
        `peak_bytes`, (1,), the most memory the process ever held, 0 where the system does not tell.

    Raises:
        EngineError: the process failed; its own sentence is told.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "soak.npz"
        words = [sys.executable, "-m", "safety_gates.soak", package.folder.resolve(), recording, frames, output]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise EngineError(f"soak of {package.manifest.name}: {told[-1]}; run the package with: tollgate bench")
        with np.load(output, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def main(words: Sequence[str]) -> int:
    """The program; see the module."""
    folder, recording, count, output = words
    try:
        np.savez(Path(output), **_watched(open_package(Path(folder)), Path(recording), int(count)))  # type: ignore[arg-type]
    except TollgateError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


def _watched(package: EnginePackage, recording: Path, count: int) -> dict[str, NDArray[np.generic]]:
    held = _held(recording)
    every = math.ceil(count / LOOKS)
    looks = np.full((count // every + 1, 1 + len(WATCHED)), math.nan)  # before anything counts: nothing here may grow
    with open_pipeline(package) as pipeline:
        for number, frame in enumerate(islice(cycle(held), SETTLING_FRAMES + count), start=1 - SETTLING_FRAMES):
            pipeline.step(frame)
            if number >= 0 and number % every == 0:
                look = sample()
                looks[number // every] = [number, *(getattr(look, name) for name in WATCHED)]  # None becomes NaN
    columns = dict(zip(("frame", *WATCHED), looks.T, strict=True))
    return {**columns, "peak_bytes": np.array([_peak_bytes()], np.int64)}


def _held(recording: Path) -> list[Frame]:
    with closing(open_source(recording)) as source:
        frames = source.frames()
        first = next(frames)
        most = min(MOST_HELD, max(1, HELD_BYTES // first.pixels.nbytes))
        return [first, *islice(frames, most - 1)]


def _peak_bytes() -> int:
    """The most memory this process held. Not getrusage's figure: that one is inherited from whoever started it."""
    lines = (text_of(Path("/proc/self/status")) or "").splitlines()
    told = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(told[0]) * 1024 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
