"""Deliver frames as their cameras did and judge every one against its deadline.

Open loop: nothing waits for a model. Each camera keeps its newest frame only; a frame that cannot make its deadline any
more is not started. Ages count from the instant a frame was captured until its result was published, so that a stall
shows in every frame it delayed. Engines live in processes of their own: one that hangs or crashes is replaced while the
run goes on.

  tollgate run package/ drive/                   at the recorded pace
  tollgate run package/ drive/ --speed 2         twice as fast
  tollgate run plan.yaml drive/                  several models, as a plan says (docs/runtime.md)
  tollgate run package/ drive/ --shadow new/     another package on the same frames, in slack only
  tollgate run package/ drive/ --max-late 0.001  exit code 1 when more than one frame in a thousand is late or skipped
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from pydantic import JsonValue
from rich.markup import escape

from perception.cli import EXIT_FAILED, EXIT_PASSED
from perception.deadline.plan import Plan, Settings, load_plan, plan_of
from perception.deadline.run import Options, Report, Running, run_plan
from perception.deadline.screen import shown
from perception.errors import SourceError
from perception.package import EnginePackage, open_package
from perception.pipeline import Status
from perception.release_client import verify_release
from perception.sources.cameras import is_live
from perception.terminal import Terminal
from perception.verbs.recordings import (
    add_recording_arguments,
    add_sink_arguments,
    latency_row,
    milliseconds,
    positive,
    positive_number,
    recording_of,
    sinks_of,
)

PLAN_SUFFIXES = (".yaml", ".yml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    add_sink_arguments(parser)
    parser.add_argument(
        "--speed", type=positive_number, default=1.0, metavar="X", help="recorded seconds per real second (default 1)"
    )
    parser.add_argument("--lanes", type=positive, metavar="N", help="engine processes side by side (default 1)")
    parser.add_argument("--shadow", type=Path, metavar="PACKAGE", help="run this package too, in slack only")
    parser.add_argument("--fallback", type=Path, metavar="PACKAGE", help="take this one when the engine keeps failing")
    parser.add_argument("--force", action="store_true", help="run what admission control refuses")
    parser.add_argument(
        "--health-port",
        type=int,
        metavar="PORT",
        help="serve /health and /metrics (Prometheus) on this port of 127.0.0.1; 0 chooses one",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    plan = _plan_of(arguments)
    with recording_of(arguments) as source, ExitStack() as watching:
        if not terminal.is_watched:
            terminal.say(f"run: {escape(str(arguments.recording))} …")
        options = Options(
            speed=None if is_live(arguments.recording) else arguments.speed,
            limit=arguments.frames,
            force=arguments.force,
            on_open=lambda running: _watch(watching, arguments, terminal, running),
        )
        more = {**_cast(plan), "score": plan.models[0].score}
        sinks = sinks_of(arguments, plan.models[0].packages[0], verb="run", more=more, cameras=source.cameras)
        report = run_plan(plan, source, sinks=sinks, options=options)
    _show(report, plan, terminal)
    terminal.result({"packages": _cast(plan)["packages"], **report.to_dict()})
    return _exit_code(report, terminal, max_late=arguments.max_late)


def _plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that was named, or the one of a single package and its options."""

    def opened(path: Path) -> EnginePackage:
        if arguments.require_release is not None:
            return verify_release(path, arguments.require_release).package
        return open_package(path)

    if arguments.package.suffix in PLAN_SUFFIXES:
        return load_plan(arguments.package, opener=opened)
    package = opened(arguments.package)
    said = {name: value for name in ("lanes", "threads") if (value := getattr(arguments, name)) is not None}
    optional = {name: getattr(arguments, name) for name in ("shadow", "fallback")}
    return plan_of(
        package,
        **{name: opened(path) for name, path in optional.items() if path is not None},
        score=arguments.score,
        settings=Settings.of(package.profile, **said),
    )


def _cast(plan: Plan) -> dict[str, JsonValue]:
    """Model → sha256 of each of its packages, and which of the models are shadows."""
    packages: dict[str, JsonValue] = {
        model.name: [package.sha256 for package in model.packages] for model in plan.models
    }
    return {"packages": packages, "shadows": [model.name for model in plan.shadows]}


def _watch(watching: ExitStack, arguments: argparse.Namespace, terminal: Terminal, running: Running) -> None:
    """Open the screen and the endpoint, before the first frame."""
    if arguments.health_port is not None:
        from perception.deadline.endpoint import LOCALHOST, served  # wants the extra `metrics`

        port = watching.enter_context(served(running, arguments.health_port))
        terminal.say(f"health and metrics at http://{LOCALHOST}:{port}/health and /metrics")
    if terminal.is_watched:
        title = f"{running.plan.models[0].name} on {arguments.recording.name}"
        watching.enter_context(shown(running, title, terminal.console))


def _show(report: Report, plan: Plan, terminal: Terminal) -> None:
    """Tables of what was predicted and what came of it."""
    tally, admission = report.tally, report.admission
    bounds_ms = {
        model.name: max((d.response_ns / 1e6 for d in admission.demands if d.model == model.name), default=None)
        for model in plan.models
    }
    rows = [
        (*latency_row(name, tally.age_of(name).to_dict()), milliseconds(bound)) for name, bound in bounds_ms.items()
    ]
    header = ("model", "p50", "p90", "p99", "p99.9", "max", "samples", "bound")
    terminal.table("from capture to publication, ms; bound: what admission control predicted at most", header, rows)
    stages = [latency_row(f"{model} {stage}", of.to_dict()) for (model, stage), of in tally.stages.items()]
    terminal.table("stages, ms", ("stage", "p50", "p90", "p99", "p99.9", "max", "samples"), stages)
    frames = [
        (camera, model, *(str(stream.frames[status]) for status in Status), f"{stream.longest_gap_ns / 1e6:.0f}")
        for (model, camera), stream in sorted(tally.streams.items(), key=lambda item: item[0][::-1])
    ]
    statuses = tuple(status.value for status in Status)
    terminal.table("frames", ("camera", "model", *statuses, "gap ms"), frames)
    for line in report.sentences():
        terminal.say(escape(line))


def _exit_code(report: Report, terminal: Terminal, *, max_late: float | None) -> int:
    streams = [stream for (model, _), stream in report.tally.streams.items() if model not in report.shadows]
    frames, missed = sum(stream.total for stream in streams), sum(stream.missed for stream in streams)
    if frames == 0:
        raise SourceError("the recording has no frames, expected at least 1; choose another recording or --camera")
    if max_late is None or missed / frames <= max_late:
        return EXIT_PASSED
    terminal.say(
        f"[red]FAILED[/] {missed / frames:.3%} of {frames} frames came late or were skipped, "
        f"--max-late allows {max_late:.3%}"
    )
    return EXIT_FAILED
