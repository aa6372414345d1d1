"""Deliver frames as their cameras did and judge every one against the deadline.

Open loop: nothing waits for the model. Each camera keeps its newest frame only; a frame that is replaced before work
on it began is SKIPPED, and latency counts from the instant a frame was due, so that a stall shows in every frame
it delayed.

  tollgate run package/ drive/                   at the recorded pace
  tollgate run package/ drive/ --speed 2         twice as fast
  tollgate run package/ drive/ --max-late 0.001  exit code 1 when more than one frame in a thousand is late or skipped
"""

from __future__ import annotations

import argparse
from functools import partial

from perception import runtime
from perception.terminal import Terminal
from perception.verbs.recordings import add_recording_arguments, add_sink_arguments, drive, positive_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    add_sink_arguments(parser)
    parser.add_argument(
        "--speed", type=positive_number, default=1.0, metavar="X", help="recorded seconds per real second (default 1)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    return drive(arguments, terminal, verb="run", loop=partial(runtime.run, speed=arguments.speed))
