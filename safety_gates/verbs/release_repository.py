"""`tollgate release publish`, `offer` and `refresh`."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from perception.agent.index import CommitRule, OnDeviceBuild, Tolerance
from perception.cli import EXIT_PASSED
from perception.errors import ReleaseError
from perception.frame import Frame
from perception.package import open_package
from perception.release_client import PACKAGE
from perception.sources.table import open_source
from perception.terminal import Terminal
from perception.verbs.recordings import fraction, positive, positive_number
from safety_gates.publishing import releases
from safety_gates.publishing.keyring import read_keyring
from safety_gates.publishing.repository import Change, change, refresh

SMOKE_FRAMES, RELATIVE_ERROR, DISAGREEMENT = 8, 0.02, 0.05

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_publish(actions: Actions) -> argparse.ArgumentParser:
    """Declare the action."""
    action = actions.add_parser("publish", help="add a release to a repository", description="Add a signed release.")
    action.add_argument("release", type=Path, help="what `release sign` wrote")
    _add_repository(action)
    action.add_argument(
        "--frames-of", type=Path, required=True, metavar="PATH", help="recording whose frames the smoke run takes"
    )
    action.add_argument("--smoke-frames", type=positive, default=SMOKE_FRAMES, metavar="N", help="how many (default 8)")
    action.add_argument(
        "--relative-error", type=fraction, default=RELATIVE_ERROR, metavar="S",
        help="most that a vehicle's output tensors may differ, root mean square (default 0.02)",
    )  # fmt: skip
    action.add_argument(
        "--disagreement", type=fraction, default=DISAGREEMENT, metavar="S",
        help="share of the objects or cells that only one of both may report (default 0.05)",
    )  # fmt: skip
    action.add_argument(
        "--latency-ms", type=positive_number, metavar="MS",
        help="nine frames in ten come within it (default: the profile's deadline)",
    )  # fmt: skip
    _add_commit_rule(action)
    action.add_argument(
        "--build-on-device", metavar="KIND", help="the package is portable, vehicles build it: onnxrt, tensorrt"
    )
    action.add_argument("--build-options", metavar="JSON", default="{}", help="options of that build")
    action.add_argument("--offer", action="store_true", help="offer it to the vehicles at once")
    action.set_defaults(act=_publish)
    return action


def add_offer(actions: Actions) -> argparse.ArgumentParser:
    """Declare the action."""
    action = actions.add_parser(
        "offer",
        help="let vehicles run a published release",
        description="Let vehicles run a release.",
    )
    action.add_argument("name", help="the release's name, as `release publish` told it")
    _add_repository(action)
    action.set_defaults(act=_offer)
    return action


def add_refresh(actions: Actions) -> argparse.ArgumentParser:
    """Declare the action."""
    action = actions.add_parser("refresh", help="sign freshness anew", description="Sign snapshot and timestamp anew.")
    _add_repository(action)
    action.add_argument("--targets", action="store_true", help="sign targets anew too, before they expire")
    action.set_defaults(act=_refresh)
    return action


def _add_repository(action: argparse.ArgumentParser) -> None:
    action.add_argument("--repository", type=Path, required=True, metavar="DIR", help="the repository's folder")
    action.add_argument("--keys", type=Path, required=True, metavar="DIR", help="the folder with keyring.json")


def _add_commit_rule(action: argparse.ArgumentParser) -> None:
    rule = CommitRule()
    action.add_argument(
        "--commit-frames", type=positive, default=rule.frames, metavar="N",
        help=f"a vehicle judges it after so many frames (default {rule.frames})",
    )  # fmt: skip
    action.add_argument(
        "--commit-late", type=fraction, default=rule.max_late, metavar="S",
        help=f"share of them that may be late or skipped (default {rule.max_late})",
    )  # fmt: skip


def _publish(arguments: argparse.Namespace, terminal: Terminal) -> int:
    profile = open_package(arguments.release / PACKAGE).profile
    latency_ms = arguments.latency_ms or profile.deadline_ms
    terms = releases.Terms(
        Tolerance(
            relative_error=arguments.relative_error, disagreement=arguments.disagreement, latency_p90_ms=latency_ms
        ),
        CommitRule(frames=arguments.commit_frames, max_late=arguments.commit_late),
        _build(arguments),
    )
    keyring, frames = read_keyring(arguments.keys), _frames(arguments.frames_of, arguments.smoke_frames)
    index = releases.publish(arguments.repository, keyring, arguments.release, frames=frames, terms=terms)
    terminal.say(f"[green]published[/] {index.name}: {len(index.files)} files, {len(frames)} smoke frames")
    if arguments.offer:
        releases.offer(arguments.repository, keyring, index.name)
        terminal.say(f"[green]offered[/] to every vehicle of profile {index.profile}")
    terminal.result({"release": index.name, "profile": index.profile, "offered": arguments.offer})
    return EXIT_PASSED


def _offer(arguments: argparse.Namespace, terminal: Terminal) -> int:
    index = releases.offer(arguments.repository, read_keyring(arguments.keys), arguments.name)
    terminal.say(f"[green]offered[/] {index.name} to every vehicle of profile {index.profile}")
    terminal.result({"release": index.name, "profile": index.profile})
    return EXIT_PASSED


def _refresh(arguments: argparse.Namespace, terminal: Terminal) -> int:
    keyring = read_keyring(arguments.keys)
    state = (
        change(arguments.repository, keyring, Change()) if arguments.targets else refresh(arguments.repository, keyring)
    )
    expires = state.timestamp.signed.expires
    terminal.say(f"[green]refreshed[/] until {expires:%Y-%m-%d %H:%M} UTC")
    terminal.result({"timestamp_version": state.timestamp.signed.version, "expires": expires.isoformat()})
    return EXIT_PASSED


def _frames(recording: Path, count: int) -> list[Frame]:
    """Frames spread evenly over a recording."""
    source = open_source(recording, cameras=[])
    try:
        counts = [camera.frame_count for camera in source.cameras]
        total = sum(each for each in counts if each is not None)
        step = max(1, total // count)
        frames = list(islice(source.frames(), 0, step * count, step))
    finally:
        source.close()
    if not frames:
        raise ReleaseError(
            f"{recording}: has no frames, expected at least 1 for the smoke run; choose another recording"
        )
    return frames


def _build(arguments: argparse.Namespace) -> OnDeviceBuild | None:
    if arguments.build_on_device is None:
        return None
    try:
        options = json.loads(arguments.build_options)
    except ValueError as error:
        raise ReleaseError(f"--build-options: got {arguments.build_options}, expected a JSON object") from error
    if not isinstance(options, dict):
        raise ReleaseError(f"--build-options: got {arguments.build_options}, expected a JSON object")
    return OnDeviceBuild(kind=arguments.build_on_device, options=options)
