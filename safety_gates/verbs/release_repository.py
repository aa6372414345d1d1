"""`tollgate release publish`, `offer` and `refresh`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from perception.agent.index import CommitRule, OnDeviceBuild, Tolerance
from perception.cli import EXIT_PASSED
from perception.distributions import LEAST_FRAMES
from perception.errors import ReleaseError
from perception.frame import Frame
from perception.package import EnginePackage, open_package
from perception.release_client import PACKAGE
from perception.sources.table import open_source
from perception.telemetry_record import Reference
from perception.terminal import Terminal
from perception.verbs.recordings import fraction, positive, positive_number
from safety_gates.publishing import releases
from safety_gates.publishing.keyring import read_keyring
from safety_gates.publishing.reference import reference_of
from safety_gates.publishing.repository import Change, change, refresh

SMOKE_FRAMES, REFERENCE_FRAMES, RELATIVE_ERROR, DISAGREEMENT = 8, 1000, 0.02, 0.05

Actions: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_publish(actions: Actions) -> argparse.ArgumentParser:
    """Declare the action."""
    action = actions.add_parser("publish", help="add a release to a repository", description="Add a signed release.")
    action.add_argument("release", type=Path, help="what `release sign` wrote")
    _add_repository(action)
    action.add_argument(
        "--frames-of",
        type=Path,
        required=True,
        metavar="PATH",
        help="recording whose frames the smoke run and the reference distribution take",
    )
    action.add_argument("--smoke-frames", type=positive, default=SMOKE_FRAMES, metavar="N", help="how many (default 8)")
    action.add_argument(
        "--reference-frames", type=positive, default=REFERENCE_FRAMES, metavar="N",
        help="most frames whose pictures and results vehicles hold their drives against (default 1000)",
    )  # fmt: skip
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
    package = open_package(arguments.release / PACKAGE)
    latency_ms = arguments.latency_ms or package.profile.deadline_ms
    terms = releases.Terms(
        Tolerance(
            relative_error=arguments.relative_error, disagreement=arguments.disagreement, latency_p90_ms=latency_ms
        ),
        CommitRule(frames=arguments.commit_frames, max_late=arguments.commit_late),
        _build(arguments),
        _reference(arguments, package, terminal),
    )
    keyring, frames = read_keyring(arguments.keys), _frames(arguments.frames_of, arguments.smoke_frames)
    index = releases.publish(arguments.repository, keyring, arguments.release, frames=frames, terms=terms)
    looked_at = 0 if index.reference is None else index.reference.input.frames
    terminal.say(
        f"[green]published[/] {index.name}: {len(index.files)} files, {len(frames)} smoke frames, "
        f"{looked_at} frames of reference"
    )
    if arguments.offer:
        releases.offer(arguments.repository, keyring, index.name)
        terminal.say(f"[green]offered[/] to every vehicle of profile {index.profile}")
    terminal.result(
        {
            "release": index.name,
            "profile": index.profile,
            "offered": arguments.offer,
            "reference_frames": looked_at,
        }
    )
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
    """Frames for the smoke run."""
    frames = list(_spread(recording, count))
    if not frames:
        raise ReleaseError(
            f"{recording}: has no frames, expected at least 1 for the smoke run; choose another recording"
        )
    return frames


def _spread(recording: Path, count: int) -> Iterator[Frame]:
    """Frames spread evenly over each camera of a recording, one at a time."""
    source = open_source(recording, cameras=[])
    try:
        counts = [camera.frame_count for camera in source.cameras]
        total = sum(each for each in counts if each is not None)
        step = max(1, total // count)
        turns = {camera.camera_id: count_from(0) for camera in source.cameras}
        yield from islice((frame for frame in source.frames() if next(turns[frame.camera_id]) % step == 0), count)
    finally:
        source.close()


def _reference(arguments: argparse.Namespace, package: EnginePackage, terminal: Terminal) -> Reference | None:
    """What drives are held against; None, and said so, where the recording is too short to be one."""
    found = reference_of(package, _spread(arguments.frames_of, arguments.reference_frames))
    if found.input.frames >= LEAST_FRAMES:
        return found
    terminal.say(
        f"[yellow]no reference:[/] {found.input.frames} frames, expected at least {LEAST_FRAMES}: drives with this "
        "release say nothing about drift, and a rollout that watches drift holds; choose a longer recording"
    )
    return None


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
