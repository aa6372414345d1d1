"""Take every frame of a recording through a package, in order, waiting for each.

Nothing is dropped and time stands still while work is done, so two replays of one recording write the same run log,
byte for byte: this is where results are judged, compared and shown. The table still gives the time each stage took,
counted from the start of work on a frame. With --paced the recording plays as its cameras ran, and nothing waits.

  tollgate replay package/ drive/                                  figures only
  tollgate replay package/ drive/ --log out/run.jsonl              with a run log
  tollgate replay package/ drive/ --log out/run.jsonl --resume     go on where an interrupted replay ended
  tollgate replay package/ drive/ --compare out/run.jsonl          what differs from an earlier run; exit code 1 if any
  tollgate replay package/ drive.mp4 --overlay out/                with an annotated video per camera
  tollgate replay package/ drive.mcap --mcap out/run.mcap          for Foxglove
  tollgate replay package/ drive/ --start 12 --duration 5 --loop 3 three times five seconds
  tollgate replay package/ drive/ --lanes 4 --threads 1            as fast as four cores go
  tollgate replay release/ drive/ --require-release signer.pub     only what verifies
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perception import runtime
from perception.cli import EXIT_FAILED
from perception.errors import OutputError, SourceError
from perception.package import EnginePackage
from perception.pipeline import Pipeline, open_pipeline
from perception.record import RunHeader, incomplete_path, read_run_log
from perception.resume import Resumed, interrupted_log
from perception.runtime import OnFrame, Tally
from perception.sinks.comparison import Comparison
from perception.sinks.sink import Sink
from perception.sources.cameras import is_live, named
from perception.sources.excerpt import Excerpt
from perception.sources.lent import lent
from perception.sources.source import FrameSource
from perception.terminal import Terminal
from perception.verbs.recordings import (
    add_recording_arguments,
    add_sink_arguments,
    exit_code_of,
    frame_total,
    open_sinks,
    options_of,
    package_of,
    positive,
    positive_number,
    recording_of,
    show_tally,
    wants_sinks,
)

_ROWS_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    add_sink_arguments(parser)
    parser.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="begin S seconds into the recording")
    parser.add_argument("--duration", type=positive_number, metavar="S", help="stop S seconds after the beginning")
    parser.add_argument("--loop", type=positive, default=1, metavar="N", help="play it N times, time going on")
    parser.add_argument("--paced", action="store_true", help="at the cameras' own pace: open loop, frames may be lost")
    parser.add_argument("--speed", type=positive_number, metavar="X", help="with --paced: recorded per real second")
    parser.add_argument(
        "--clock",
        choices=("simulated", "measured"),
        help="what the log holds as timing; default simulated, with --paced always measured",
    )
    parser.add_argument(
        "--lanes", type=positive, default=1, metavar="N", help="take N frames at once, each on an engine of its own"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted replay with --log ended")
    parser.add_argument("--compare", type=Path, metavar="LOG", help="hold every result against an earlier run's log")
    parser.add_argument(
        "--differences", type=Path, metavar="FOLDER", help="with --compare: pictures of the frames that differ"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    _refuse_what_contradicts(arguments)
    if is_live(arguments.recording):
        raise SourceError(f"{named(arguments.recording)}: is a running camera, expected a recording; use: tollgate run")
    package = package_of(arguments)
    with (
        recording_of(arguments) as source,
        _opened(package, arguments) as pipelines,
        terminal.progress(f"replay: {arguments.recording}", _frames_expected(arguments, source)) as step,
    ):
        chosen = Excerpt(source, start_s=arguments.start, duration_s=arguments.duration, laps=arguments.loop)
        served = lent(chosen, pipelines[0])
        tally, comparison = _replayed(arguments, package, pipelines, source=served, on_frame=lambda _: step())
        way = pipelines[0].way
    show_tally(tally, terminal, package=package, title=f"{package.manifest.name} on {arguments.recording}")
    terminal.say(way)
    terminal.result({"package": package.sha256, "way": way, **tally.to_dict(), "comparison": _as_document(comparison)})
    code = exit_code_of(tally, terminal, max_late=arguments.max_late)
    if comparison is not None and _show_comparison(comparison, terminal, arguments):
        return EXIT_FAILED
    return code


@contextmanager
def _opened(package: EnginePackage, arguments: argparse.Namespace) -> Iterator[list[Pipeline]]:
    """A pipeline for each lane."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(open_pipeline(package, score_threshold=arguments.score, threads=arguments.threads))
            for _ in range(arguments.lanes)
        ]


def _replayed(
    arguments: argparse.Namespace,
    package: EnginePackage,
    pipelines: list[Pipeline],
    *,
    source: FrameSource,
    on_frame: OnFrame,
) -> tuple[Tally, Comparison | None]:
    """Play the recording; what it was compared with, where that was asked for."""
    if not wants_sinks(arguments) and arguments.compare is None:
        return _played(arguments, pipelines, source, sinks=(), on_frame=on_frame), None
    header = _header_of(arguments, package, source)
    comparison = _comparison_of(arguments, header)
    resumed: list[Any] = list(pipelines)
    if arguments.resume:
        log = interrupted_log(arguments.log, header)
        resumed = [Resumed(pipeline, log) for pipeline in pipelines]
    sinks: list[Sink] = open_sinks(arguments, header)
    if comparison is not None:
        sinks.append(comparison)
    tally = _played(arguments, resumed, source, sinks=sinks, on_frame=on_frame)
    if arguments.resume:
        incomplete_path(arguments.log).unlink(missing_ok=True)
    return tally, comparison


def _played(
    arguments: argparse.Namespace,
    pipelines: list[Any],  # what stands in for a pipeline in lock-step is none in paced replay
    source: FrameSource,
    *,
    sinks: Sequence[Sink],
    on_frame: OnFrame,
) -> Tally:
    loop = partial(runtime.run, speed=arguments.speed or 1.0)
    if not arguments.paced:
        loop = partial(runtime.replay, beside=pipelines[1:])
    return loop(pipelines[0], source, sinks=sinks, on_frame=on_frame, limit=arguments.frames)


def _header_of(arguments: argparse.Namespace, package: EnginePackage, source: FrameSource) -> RunHeader:
    part = {"start_s": arguments.start, "duration_s": arguments.duration, "laps": arguments.loop}
    return RunHeader.of(
        package,
        arguments.recording,
        options=options_of(arguments, verb="replay") | part,
        cameras=source.cameras,
        simulated=not arguments.paced and arguments.clock != "measured",
    )


def _comparison_of(arguments: argparse.Namespace, header: RunHeader) -> Comparison | None:
    if arguments.compare is None:
        return None
    log = read_run_log(arguments.compare)
    return Comparison(log, header, where=arguments.compare, pictures=arguments.differences)


def _refuse_what_contradicts(arguments: argparse.Namespace) -> None:
    """Options that mean nothing together.

    Raises:
        OutputError: two of them were given.
    """
    contradictions = (
        (arguments.paced and arguments.resume, "--resume", "without --paced: real time cannot go on where it ended"),
        (arguments.paced and arguments.compare is not None, "--compare", "without --paced: there frames may be lost"),
        (arguments.paced and arguments.clock == "simulated", "--clock simulated", "without --paced: its time is real"),
        (arguments.paced and arguments.lanes > 1, "--lanes", "without --paced: there frames are taken one by one"),
        (arguments.speed is not None and not arguments.paced, "--speed", "with --paced: lock-step has no speed"),
        (arguments.resume and arguments.log is None, "--resume", "with --log FILE: that log says where it ended"),
        (arguments.differences is not None and arguments.compare is None, "--differences", "with --compare LOG"),
    )
    for contradicts, option, expected in contradictions:
        if contradicts:
            raise OutputError(f"{option}: expected {expected}; correct the command")


def _frames_expected(arguments: argparse.Namespace, source: FrameSource) -> int | None:
    """How many frames the progress bar should promise; None where nobody knows."""
    limit: int | None = arguments.frames
    expected: int | None = None
    if arguments.start == 0 and arguments.duration is None:
        total = frame_total(source, None)
        expected = None if total is None else total * arguments.loop
    elif arguments.duration is not None and all(camera.rate_hz for camera in source.cameras):
        expected = round(sum(camera.rate_hz or 0 for camera in source.cameras) * arguments.duration) * arguments.loop
    return limit if expected is None else min(expected, limit or expected)


def _show_comparison(comparison: Comparison, terminal: Terminal, arguments: argparse.Namespace) -> bool:
    """Print what differs; whether anything does."""
    where = arguments.compare
    if comparison.conditions:
        rows = [(name, str(then), str(now)) for name, then, now in comparison.conditions]
        terminal.table(f"conditions that differ from {where} (not judged)", ("what", "log", "now"), rows)
    if comparison.differences:
        shown = comparison.differences[:_ROWS_SHOWN]
        rows_of_fields = [(d.camera_id, str(d.frame_id), d.field, _short(d.logged), _short(d.now)) for d in shown]
        terminal.table(f"fields that differ from {where}", ("camera", "frame", "field", "log", "now"), rows_of_fields)
    terminal.say(f"ignored, since they depend on the clock: {', '.join(comparison.ignored)}")
    frames, fields = comparison.frames_that_differ, len(comparison.differences)
    if not frames:
        terminal.say(f"[green]EQUAL[/] {comparison.frames['compared']} frames to {where}")
        return False
    more = f", the first {_ROWS_SHOWN} of {fields} fields above" if fields > _ROWS_SHOWN else f" in {fields} fields"
    seen = f"; pictures: {arguments.differences}" if arguments.differences else "; see them with --differences FOLDER"
    terminal.say(f"[red]DIFFERENT[/] {frames} of {comparison.frames['compared']} frames{more}{seen}")
    return True


def _as_document(comparison: Comparison | None) -> dict[str, object] | None:
    if comparison is None:
        return None
    return {
        "frames_compared": comparison.frames["compared"],
        "frames_that_differ": comparison.frames_that_differ,
        "ignored": list(comparison.ignored),
        "conditions": [{"field": name, "log": then, "now": now} for name, then, now in comparison.conditions],
        "differences": [
            {"camera_id": d.camera_id, "frame_id": d.frame_id, "field": d.field, "log": d.logged, "now": d.now}
            for d in comparison.differences
        ],
    }


def _short(value: object) -> str:
    """A value that fits a column; a list is its length."""
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _seconds(text: str) -> float:
    """A number of seconds of at least 0, for argparse."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number of at least 0")
    return number
