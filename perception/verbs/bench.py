"""Measure a package's latency on this machine.

The bare engine and the whole pipeline (resize, network, boxes, NMS) run on the same frames, turn by turn, in one run,
so that clocks and caches treat both alike. Percentiles come with their sample counts; one that the samples cannot
carry is shown as a dash.

  tollgate bench package/ drive.mp4
  tollgate bench package/ drive.mp4 --samples 20000     enough for p99.9
"""

from __future__ import annotations

import argparse

from perception.bench import compare, held_frames
from perception.cli import EXIT_PASSED
from perception.pipeline import open_pipeline
from perception.terminal import Terminal
from perception.verbs.recordings import (
    add_recording_arguments,
    latency_row,
    package_of,
    positive,
    recording_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    parser.add_argument(
        "--samples", type=positive, default=1000, metavar="N", help="times each side is timed (default 1000)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    package = package_of(arguments)
    with recording_of(arguments) as source:
        frames = held_frames(source, limit=arguments.frames)
    with (
        open_pipeline(package, score_threshold=arguments.score, threads=arguments.threads) as pipeline,
        terminal.progress("timing engine and pipeline, turn by turn", arguments.samples) as step,
    ):
        comparison = compare(pipeline, frames, samples=arguments.samples, on_sample=step)
    sides = {"engine alone": comparison.engine.to_dict(), "whole pipeline": comparison.pipeline.to_dict()}
    terminal.table(
        f"{package.manifest.name} on {arguments.recording} — latency, ms",
        ("what", "p50", "p90", "p99", "p99.9", "max", "samples"),
        [latency_row(name, figures) for name, figures in sides.items()],
    )
    terminal.say(f"the pipeline adds {comparison.overhead:+.1%} to the engine's median")
    terminal.result({"package": package.sha256, "latency": sides, "overhead": comparison.overhead})
    return EXIT_PASSED
