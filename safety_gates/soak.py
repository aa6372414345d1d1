"""A package run for a while in a process of its own, watched: memory, power, temperature, clocks.

Run as a program, so that memory is the package's alone: a few frames are decoded and held, then the pipeline takes them
again and again. What grows then is the pipeline or the engine; nothing else is there. After a round it tells how many
frames it has run, and runs as many again if it is told to go on: a leak goes on too, warming up comes to an end.

    python -m safety_gates.soak PACKAGE RECORDING FRAMES LOOKS.npy
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import TypeAlias

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
LOOKS = 200  # in the first round
ROUNDS = 4  # each doubles what was run
GO_ON = "on"
WATCHED = ("at_ns", "rss_bytes", "power_w", "energy_uj", "temperature_c", "gpu_temperature_c", "cpu_clock_mhz")
COLUMNS = ("frame", *WATCHED, "peak_bytes")
REFUSED = 2
Watched: TypeAlias = Mapping[str, NDArray[np.float64]]


def soak(package: EnginePackage, recording: Path, frames: int, *, enough: Callable[[Watched], bool]) -> Watched:
    """Run a package in a process of its own for so many frames, twice, four or eight times as many, until it is enough.

    Args:
        package: what is run.
        recording: whose first frames it takes again and again.
        frames: of the first round.
        enough: whether what was seen so far will do; asked after every round but the last.

    Returns:
        `frame`, (L,) frames run at each look; each of `WATCHED`, (L,), NaN where the machine does not tell; and
        `peak_bytes`, (L,), the most memory the process held until then, 0 where the system does not tell.

    Raises:
        EngineError: the process failed; its own sentence is told.
    """
    with tempfile.TemporaryDirectory() as name:
        looks, told = Path(name) / "looks.npy", Path(name) / "errors.txt"
        words = [sys.executable, "-m", "safety_gates.soak", package.folder.resolve(), recording, frames, looks]
        with (
            told.open("wb") as errors,
            subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            try:
                seen = _rounds(process, looks, enough)
            finally:
                process.kill()
        if seen is None:
            said = told.read_text(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
            raise EngineError(f"soak of {package.manifest.name}: {said[-1]}; run the package with: tollgate bench")
        return seen


def _rounds(process: subprocess.Popen[str], looks: Path, enough: Callable[[Watched], bool]) -> Watched | None:
    """What was seen until it was enough, or until the last round; None where the process ended before."""
    for number in range(1, ROUNDS + 1):
        told = process.stdout.readline() if process.stdout else ""
        if not told.strip().isdecimal():
            return None
        table = np.load(looks)
        seen = dict(zip(COLUMNS, table[table[:, 0] <= int(told)].T, strict=True))
        if number < ROUNDS and not enough(seen) and process.stdin:
            process.stdin.write(f"{GO_ON}\n")
            process.stdin.flush()
        else:
            break
    return seen


def main(words: Sequence[str]) -> int:
    """The program; see the module."""
    folder, recording, count, looks = words
    try:
        _watch(open_package(Path(folder)), Path(recording), int(count), Path(looks))
    except TollgateError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    return 0


def _watch(package: EnginePackage, recording: Path, count: int, file: Path) -> None:
    held = _held(recording)
    every, rounds = math.ceil(count / LOOKS), [count * 2**number for number in range(ROUNDS)]
    shape = (rounds[-1] // every + 1, len(COLUMNS))
    looks = np.lib.format.open_memmap(file, mode="w+", dtype=np.float64, shape=shape)
    looks[:] = math.nan  # takes its memory before anything counts: nothing here may grow
    with open_pipeline(package) as pipeline:
        frames = islice(cycle(held), SETTLING_FRAMES + rounds[-1])
        for number, frame in enumerate(frames, start=1 - SETTLING_FRAMES):
            pipeline.step(frame)
            if number >= 0 and number % every == 0:
                look = sample()
                seen = (getattr(look, name) for name in WATCHED)  # None becomes NaN
                looks[number // every] = [number, *seen, _peak_bytes()]
            if number in rounds:
                sys.stdout.write(f"{number}\n")
                sys.stdout.flush()
                if sys.stdin.readline().strip() != GO_ON:
                    return


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
