"""What `run`, `replay` and `bench` share: arguments, opening a package and a recording, the loop's frame, tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from perception.cli import EXIT_FAILED, EXIT_PASSED
from perception.errors import SourceError
from perception.package import EnginePackage, open_package
from perception.pipeline import Pipeline, Status, open_pipeline
from perception.record import RunHeader
from perception.release_client import verify_release
from perception.runtime import OnFrame, Tally
from perception.sinks.sink import Sink
from perception.sinks.table import open_sink
from perception.sources.source import FrameSource
from perception.sources.table import open_source
from perception.terminal import Terminal


class Loop(Protocol):
    """`perception.runtime.replay`, or `run` with its speed."""

    def __call__(
        self,
        pipeline: Pipeline,
        source: FrameSource,
        *,
        sinks: Sequence[Sink],
        on_frame: OnFrame,
        limit: int | None,
    ) -> Tally:
        """Take the frames of `source` through `pipeline`."""


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every verb that runs frames needs."""
    parser.add_argument("package", type=Path, help="engine package folder, or a release folder with --require-release")
    parser.add_argument(
        "recording", type=Path, help="video file, picture folder, KITTI raw drive, or drive.yaml folder"
    )
    parser.add_argument("--camera", action="append", default=[], metavar="ID", help="only this camera; may be repeated")
    parser.add_argument("--frames", type=positive, metavar="N", help="stop after N frames (default: all)")
    parser.add_argument("--score", type=fraction, metavar="S", help="report detections from this score on, 0..1")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: the profile's)")
    parser.add_argument(
        "--require-release",
        type=Path,
        metavar="PUBLIC_KEY",
        help="open PACKAGE only as a signed release that verifies with this key",
    )


def add_sink_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where results go and what makes the verb fail."""
    parser.add_argument("--log", type=Path, metavar="FILE", help="write a run log (JSON lines, one a frame)")
    parser.add_argument("--overlay", type=Path, metavar="FOLDER", help="write an annotated video for each camera")
    parser.add_argument("--agent", type=Path, metavar="FOLDER", help="tell the agent of this folder how the drive goes")
    parser.add_argument(
        "--max-late",
        type=fraction,
        metavar="SHARE",
        help="exit with 1 when more than this share of the frames came late or was skipped, 0..1",
    )


def drive(arguments: argparse.Namespace, terminal: Terminal, *, verb: str, loop: Loop) -> int:
    """Open package and recording, let `loop` take the frames through, and show what happened.

    Returns:
        1 when more frames than `--max-late` allows came late or were skipped, else 0.

    Raises:
        TollgateError: package, recording, engine or output failed; nothing half-written stays.
    """
    package = package_of(arguments)
    with (
        recording_of(arguments) as source,
        open_pipeline(package, score_threshold=arguments.score, threads=arguments.threads) as pipeline,
        terminal.progress(f"{verb}: {arguments.recording}", frame_total(source, arguments.frames)) as step,
    ):
        sinks = _sinks_of(arguments, package, verb=verb)
        tally = loop(pipeline, source, sinks=sinks, on_frame=lambda _: step(), limit=arguments.frames)
    _show_tally(tally, terminal, package=package, title=f"{package.manifest.name} on {arguments.recording}")
    terminal.result({"package": package.sha256, **tally.to_dict()})
    return _exit_code(tally, terminal, max_late=arguments.max_late)


def package_of(arguments: argparse.Namespace) -> EnginePackage:
    """Open the package; with `--require-release` only what the signature covers.

    Raises:
        VerificationError: the release does not verify.
        PackageError: the package's bytes are not those its manifest names.
    """
    if arguments.require_release is not None:
        return verify_release(arguments.package, arguments.require_release).package
    return open_package(arguments.package)


@contextmanager
def recording_of(arguments: argparse.Namespace) -> Iterator[FrameSource]:
    """Open the recording for the length of a block.

    Raises:
        SourceError: nothing readable lies there.
    """
    source = open_source(arguments.recording, cameras=arguments.camera)
    try:
        yield source
    finally:
        source.close()


def frame_total(source: FrameSource, limit: int | None) -> int | None:
    """How many frames will come; None where only reading would tell."""
    counts = [camera.frame_count for camera in source.cameras]
    if any(count is None for count in counts):
        return limit
    total = sum(count for count in counts if count is not None)
    return total if limit is None else min(total, limit)


def _show_tally(tally: Tally, terminal: Terminal, *, package: EnginePackage, title: str) -> None:
    """Print what happened: latencies by stage with their sample counts, then frames by camera and status."""
    latency_rows = [latency_row(name, recorder.to_dict()) for name, recorder in tally.stages.items()]
    terminal.table(f"{title} — latency, ms", ("stage", "p50", "p90", "p99", "p99.9", "max", "samples"), latency_rows)
    cameras = sorted({camera for camera, _ in tally.frames})
    rows = [(camera, *(str(tally.frames[camera, status.value]) for status in Status)) for camera in cameras]
    terminal.table("frames", ("camera", *(status.value for status in Status)), rows)
    late, done = tally.count(Status.LATE), tally.count(Status.LATE) + tally.count(Status.ON_TIME)
    terminal.say(
        f"{done} frames done, {late} later than the deadline of {package.profile.deadline_ms:g} ms "
        f"(profile {package.profile.name}), {tally.count(Status.SKIPPED)} skipped, {tally.detections} detections"
    )


def _sinks_of(arguments: argparse.Namespace, package: EnginePackage, *, verb: str) -> list[Sink]:
    wanted = {"run_log": arguments.log, "overlay": arguments.overlay, "agent": arguments.agent}
    paths = {kind: path for kind, path in wanted.items() if path is not None}
    if not paths:
        return []
    options = {"verb": verb, "cameras": arguments.camera, "frames": arguments.frames, "score": arguments.score}
    header = RunHeader.of(package, arguments.recording, options=options)
    sinks: list[Sink] = []
    with ExitStack() as undone:
        for kind, path in paths.items():
            sinks.append(open_sink(kind, path, header))
            undone.callback(sinks[-1].abort)
        undone.pop_all()
    return sinks


def _exit_code(tally: Tally, terminal: Terminal, *, max_late: float | None) -> int:
    frames = sum(tally.frames.values())
    if frames == 0:
        raise SourceError("the recording has no frames, expected at least 1; choose another recording or --camera")
    share = 1 - tally.count(Status.ON_TIME) / frames
    if max_late is None or share <= max_late:
        return EXIT_PASSED
    terminal.say(
        f"[red]FAILED[/] {share:.3%} of {frames} frames came late or were skipped, --max-late allows {max_late:.3%}"
    )
    return EXIT_FAILED


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number of at least 1")
    return number


def fraction(text: str) -> float:
    """A number in 0..1, for argparse."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number in 0..1")
    return number


def positive_number(text: str) -> float:
    """A number above 0, for argparse."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
    return number


def milliseconds(value: object) -> str:
    """A number of milliseconds for people; a dash where the samples do not carry it."""
    return f"{value:.2f}" if isinstance(value, (int, float)) else "–"


def latency_row(name: str, figures: Mapping[str, object]) -> Sequence[str]:
    """One line of a latency table, in the order p50, p90, p99, p99.9, max, samples."""
    columns = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
    return (name, *(milliseconds(figures[column]) for column in columns), str(figures["samples"]))
