"""Measure a package's latency on this machine.

The bare engine and the whole pipeline (resize, network, boxes, NMS) run on the same frames, turn by turn, in one run,
so that clocks and caches treat both alike. Percentiles come with their sample counts; one that the samples cannot
carry is shown as a dash.

  tollgate bench package/ drive.mp4
  tollgate bench package/ drive.mp4 --samples 20000     enough for p99.9
  tollgate bench package/ drive.mp4 --sustain           the highest rate and the most cameras without misses
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from perception.bench import compare, held_frames
from perception.cli import EXIT_PASSED
from perception.deadline.plan import Settings, plan_of
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import open_pipeline
from perception.sustain import MISS_RATIO, Trial, highest_rate, most_cameras
from perception.terminal import Terminal
from perception.verbs.recordings import (
    add_recording_arguments,
    latency_row,
    package_of,
    positive,
    positive_number,
    recording_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    parser.add_argument(
        "--samples", type=positive, default=1000, metavar="N", help="times each side is timed (default 1000)"
    )
    parser.add_argument(
        "--sustain",
        action="store_true",
        help="find the highest rate of one camera, and the most cameras at the profile's, with at most 0.1 %% misses",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=10.0,
        metavar="S",
        help="length of each trial of --sustain (default 10)",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    package = package_of(arguments)
    with recording_of(arguments) as source:
        frames = held_frames(source, limit=arguments.frames)
    if arguments.sustain:
        return _sustain(arguments, terminal, package, frames)
    with (
        open_pipeline(package, score_threshold=arguments.score, threads=arguments.threads) as pipeline,
        terminal.progress("timing engine and pipeline, turn by turn", arguments.samples) as step,
    ):
        comparison = compare(pipeline, frames, samples=arguments.samples, on_sample=step)
        way = pipeline.way
    sides = {"engine alone": comparison.engine.to_dict(), "whole pipeline": comparison.pipeline.to_dict()}
    terminal.table(
        f"{package.manifest.name} on {arguments.recording} — latency, ms",
        ("what", "p50", "p90", "p99", "p99.9", "max", "samples"),
        [latency_row(name, figures) for name, figures in sides.items()],
    )
    terminal.say(f"the pipeline adds {comparison.overhead:+.1%} to the engine's median")
    terminal.say(way)
    terminal.result({"package": package.sha256, "way": way, "latency": sides, "overhead": comparison.overhead})
    return EXIT_PASSED


def _sustain(arguments: argparse.Namespace, terminal: Terminal, package: EnginePackage, frames: Sequence[Frame]) -> int:
    """The highest rate and the most cameras, by trials of the deadline loop itself."""
    plan = plan_of(package, score=arguments.score, settings=Settings(threads=arguments.threads))
    trials: list[Trial] = []

    def on_trial(trial: Trial) -> None:
        trials.append(trial)
        word = "sustained" if trial.passed else "not sustained"
        terminal.say(
            f"{trial.cameras} × {trial.rate_hz:.1f} Hz: {word}, {trial.missed} of {trial.frames} frames missed"
        )

    rate_hz = package.profile.cameras.rate_hz
    fastest = highest_rate(plan, frames, cameras=1, seconds=arguments.seconds, on_trial=on_trial)
    widest = most_cameras(plan, frames, rate_hz=rate_hz, seconds=arguments.seconds, on_trial=on_trial)
    rate = "not even 1 Hz" if fastest is None else f"up to {fastest.rate_hz:.1f} Hz"
    cameras = "no camera" if widest is None else f"{widest.cameras} cameras"
    terminal.say(
        f"one camera: {rate}; at {rate_hz:g} Hz: {cameras}; deadline {package.profile.deadline_ms:g} ms, "
        f"at most {MISS_RATIO:.1%} misses in trials of {arguments.seconds:g} s"
    )
    terminal.result(
        {
            "package": package.sha256,
            "highest_rate_hz": None if fastest is None else fastest.rate_hz,
            "most_cameras": 0 if widest is None else widest.cameras,
            "trials": [asdict(trial) for trial in trials],
        }
    )
    return EXIT_PASSED
