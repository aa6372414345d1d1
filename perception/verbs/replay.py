"""Take every frame of a recording through a package, in order, waiting for each.

Nothing is dropped, so two replays of one recording give the same results: this is where results are judged and
pictures are made. Latency is counted from the start of work on a frame; for open-loop latency at the camera's own
pace use: tollgate run.

  tollgate replay package/ drive/                                  figures only
  tollgate replay package/ drive/ --log out/run.jsonl              with a run log
  tollgate replay package/ drive.mp4 --overlay out/                with an annotated video per camera
  tollgate replay release/ drive/ --require-release signer.pub     only what verifies
"""

from __future__ import annotations

import argparse

from perception.runtime import replay
from perception.terminal import Terminal
from perception.verbs.recordings import add_recording_arguments, add_sink_arguments, drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    add_recording_arguments(parser)
    add_sink_arguments(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    return drive(arguments, terminal, verb="replay", loop=replay)
