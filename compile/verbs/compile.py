r"""Make an engine package from an ONNX model, for one hardware profile, on the machine the profile names.

The float engine and several INT8 engines are built and timed side by side; layers that cost the results most are given
back to float until they agree with float's. The best are graded on frames that neither calibrated nor searched. An INT8
engine ships only if it is within the limit of accuracy and faster than float beyond the noise of the clock; else float
ships. Two tables show what was tried and what was graded, and a sentence says why the chosen one was chosen.

  model.yaml      the ModelSpec beside model.onnx says how it is fed and read: draft it with tollgate inspect
  --calibration   recordings of the cameras (clips, folders of pictures): INT8 ranges are learnt from them. Noise,
                  single colours, copies of one frame and fewer than 16 distinct frames are refused
  --recording     another drive to grade on, best with --labels. Without it the last eighth of the calibration
                  recordings is held out, and engines are graded by how far they report what float reports

  tollgate compile model.onnx --profile x86_cpu --calibration drives/monday.mp4
  tollgate compile model.onnx --profile x86_cpu --calibration monday.mp4 tuesday.mp4 \
      --recording kitti/image_2 --labels kitti/label_2 --class-map kitti_classes.yaml --output packages/model
  tollgate compile model.onnx --profile x86_cpu --calibration drives/monday.mp4 --precision int8 --max-drop 0.02

Exit code 1: --precision int8 or --budget-ms was asked for and no engine can do it; nothing was written.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from rich.markup import escape

from compile.calibration import DEFAULT_FRAMES, FEWEST_FRAMES
from compile.compiler import CompileOutcome, compile_model
from compile.decide import Decision, Row
from compile.explain.page import ONLY_IN_JSON, percent
from compile.options import (
    EVALUATION_FRAMES,
    FUSE_CHOICES,
    MAX_DROP_WITH_LABELS,
    MAX_DROP_WITHOUT_LABELS,
    MIN_AGREEMENT,
    CompileOptions,
)
from compile.store import default_folder
from compile.verbs.inspect import add_shape_argument
from hw_profiles.profile import load_profile
from perception.cli import EXIT_FAILED, EXIT_PASSED
from perception.errors import TollgateError
from perception.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    parser.add_argument("model", type=Path, help="the float ONNX model, opset 9 to 21")
    parser.add_argument("--profile", required=True, help="the machine: a shipped profile's name or a .yaml file")
    parser.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="recordings to calibrate on",
    )
    parser.add_argument(
        "--spec", type=Path, metavar="YAML", help="the ModelSpec (default: MODEL.yaml beside the model)"
    )
    add_shape_argument(parser)
    _add_grading(parser)
    _add_choices(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="the package (default: MODEL-PROFILE in this folder)"
    )
    parser.add_argument(
        "--reference-output", type=Path, metavar="DIR", help="also write the float package, the parity gate's reference"
    )


def _add_grading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recording", type=Path, metavar="PATH", help="frames to grade on, of another drive")
    parser.add_argument("--labels", type=Path, metavar="PATH", help="ground truth of --recording")
    parser.add_argument("--class-map", type=Path, metavar="YAML", help="which classes answer to which labels")
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="SHARE",
        help=f"greatest loss against float, as a share (default: {MAX_DROP_WITH_LABELS} of AP50 or mIoU with labels, "
        f"{MAX_DROP_WITHOUT_LABELS} of what float reports without)",
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=MIN_AGREEMENT,
        metavar="SHARE",
        help=f"least share of what float and INT8 report that both report (default: {MIN_AGREEMENT})",
    )


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16", "int8"),
        default="auto",
        help="auto lets the measurements decide",
    )
    parser.add_argument(
        "--keep-float", action="append", default=[], metavar="PATTERN", help="nodes that stay float; repeatable"
    )
    parser.add_argument(
        "--frames", type=int, default=DEFAULT_FRAMES, help=f"calibration frames, at least {FEWEST_FRAMES} (default: 64)"
    )
    parser.add_argument(
        "--graded-frames",
        type=int,
        default=EVALUATION_FRAMES,
        metavar="N",
        help=f"grade on at most N frames, evenly over the recording (default: {EVALUATION_FRAMES})",
    )
    parser.add_argument(
        "--selection",
        choices=("diverse", "even"),
        default="diverse",
        help="which frames calibrate: the least alike, or evenly over time",
    )
    parser.add_argument(
        "--fuse",
        choices=FUSE_CHOICES,
        default="auto",
        help="take bytes and normalise inside the graph; auto where it measures no slower",
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        metavar="MS",
        help="longest median run of the engine: ship the most accurate one that keeps it, or nothing",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        dest="time_limit_s",
        metavar="SECONDS",
        help="stop looking for better engines after so long and decide on what was found",
    )
    parser.add_argument(
        "--builder-level",
        type=int,
        metavar="N",
        help="how long TensorRT looks for fast kernels, 0 to 5 (default: the profile's, else 3)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=default_folder(),
        metavar="DIR",
        help="keeps what was measured: a search that was stopped goes on from there (default: %(default)s)",
    )
    parser.add_argument(
        "--no-cache", dest="cache", action="store_const", const=None, help="measure everything anew and keep nothing"
    )
    parser.add_argument(
        "--timing-s", type=float, default=6.0, metavar="SECONDS", help="how long engines are timed at once (default: 6)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    profile = load_profile(arguments.profile)
    output = arguments.output or Path(f"{arguments.model.stem}-{profile.name}")
    outcome = compile_model(
        arguments.model,
        profile=profile,
        calibration=arguments.calibration,
        output=output,
        options=_options(arguments),
        terminal=terminal,
    )
    _show(outcome, terminal)
    terminal.result(_document(outcome))
    return EXIT_FAILED if outcome.package is None else EXIT_PASSED


def _options(arguments: argparse.Namespace) -> CompileOptions:
    given = {
        field.name: getattr(arguments, field.name) for field in fields(CompileOptions) if hasattr(arguments, field.name)
    }
    given["shapes"] = dict(arguments.shapes)
    given["keep_float"] = tuple(arguments.keep_float)
    try:
        return CompileOptions(**given)
    except ValueError as error:
        raise TollgateError(str(error)) from error


def _show(outcome: CompileOutcome, terminal: Terminal) -> None:
    decision = outcome.decision
    metrics = [name for name in decision.rows[0].scores if name not in ONLY_IN_JSON and " " not in name]
    header = ["", "candidate", *metrics, "loss", "p50 ms", "× float", "in float"]
    _show_search(outcome.search, terminal)
    terminal.table(
        "Graded on frames not seen before", header, [_cells(row, metrics, decision) for row in decision.rows]
    )
    samples = decision.rows[0].latency.recorder.samples if decision.rows[0].latency is not None else 0
    terminal.say(f"each timed {samples} times or more, in turn with the others; figures by class are in compile.json")
    if decision.naive:
        terminal.say(escape(decision.naive))
    terminal.say(f"[bold]{escape(decision.why)}[/bold]")
    if outcome.fusion is not None and outcome.parity is not None and outcome.package is not None:
        terminal.say(escape(f"input fusion {'kept' if outcome.fusion.kept else 'not kept'}: {outcome.fusion.why}"))
        terminal.say(
            f"parity with float on {outcome.parity.frames} frames: agreement {outcome.parity.agreement:.4f}, "
            f"least on frame {escape(outcome.parity.worst_frame)} ({outcome.parity.worst_agreement:.4f})"
        )
        terminal.say(escape(f"package {outcome.package.folder} (sha256 {outcome.package.sha256[:16]}…)"))
    if outcome.reference is not None:
        terminal.say(escape(f"reference {outcome.reference.folder} (sha256 {outcome.reference.sha256[:16]}…)"))


def _show_search(search: dict[str, Any], terminal: Terminal) -> None:
    """Every engine that was tried; those on the front of drift against cost are marked."""
    points = search["points"]
    if not points:
        return
    header = ["", "tried", "agreement", "drift", "× float", "in float"]
    lines = [
        [
            "•" if point["on_front"] else "",
            point["name"],
            f"{point['agreement']:.3f}",
            f"{point['drift']:.3f}",
            "–" if point["time_ratio"] is None else f"{point['time_ratio']:.2f}",
            f"{point['float_macs_share']:.0%} of multiply-adds",
        ]
        for point in points
    ]
    terminal.table(f"Searched on {search['frames']} frames in {search['seconds']:.0f} s", header, lines)
    for note in search["notes"]:
        terminal.say(escape(note))


def _cells(row: Row, metrics: list[str], decision: Decision) -> list[str]:
    latency = row.latency
    return [
        "→" if row is decision.chosen else "",
        row.name,
        *(f"{row.scores[name]:.3f}" if name in row.scores else "–" for name in metrics),
        "" if row is decision.rows[0] else percent(row.loss),
        "–" if latency is None else f"{latency.p50_ms:.2f}",
        "–" if latency is None else f"{latency.ratio.middle:.2f}",
        f"{row.float_layers}/{row.weighted_layers}",
    ]


def _document(outcome: CompileOutcome) -> dict[str, JsonValue]:
    package, reference = outcome.package, outcome.reference
    return {
        "decision": outcome.decision.document(),
        "search": outcome.search,
        "fusion": None if outcome.fusion is None else outcome.fusion.document(),
        "parity": None if outcome.parity is None else outcome.parity.document(),
        "package": None if package is None else {"folder": str(package.folder), "sha256": package.sha256},
        "reference": None if reference is None else {"folder": str(reference.folder), "sha256": reference.sha256},
    }
