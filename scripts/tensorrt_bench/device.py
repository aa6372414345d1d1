"""A release with a portable model, built by the vehicle's own agent on this GPU, measured by the short gate set.

The vehicle's side goes through the command line. The gates of the factory are left out, so the release claims nothing
but that the benchmark signed it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

from perception.package import EnginePackage, open_package
from perception.sources.table import open_source
from safety_gates.keys import PASSPHRASE, read_signer
from safety_gates.publishing import releases
from safety_gates.publishing.ceremony import found
from safety_gates.publishing.keyring import create_keyring
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.lean import sign_release

SMOKE_FRAMES = 8


def built_on_device(package: Path, recording: Path, book: Book, terms: releases.Terms) -> None:
    """Sign, publish and offer a package; let an agent build and measure it; claim what its evidence says.

    Args:
        package: compiled for this machine's profile.
        recording: whose frames the smoke run takes.
        book: of results.
        terms: what is asked of the vehicle: which builder, and the limits of its short gate set.

    Raises:
        RuntimeError: a command failed, or the vehicle does not run what it built.
    """
    folder = book.out / "device"
    shutil.rmtree(folder, ignore_errors=True)
    repository, vehicle, release = folder / "repository", folder / "vehicle", folder / "release"
    passphrase = os.environ.setdefault(PASSPHRASE, secrets.token_urlsafe(24))
    keyring = create_keyring(folder / "keys", passphrase, root_keys=1)
    found(repository, keyring, threshold=1)
    shutil.copytree(package, release / "package")
    sign_release(release, read_signer(folder / "keys" / "signer.pem"))
    with closing(open_source(recording)) as source:
        frames = list(islice(source.frames(), SMOKE_FRAMES))
    index = releases.publish(repository, keyring, release, frames=frames, terms=terms)
    releases.offer(repository, keyring, index.name)
    origin = ["--repository", repository, "--root", repository / "metadata" / "1.root.json"]
    agent = ["agent", vehicle, *origin, "--profile", index.profile, "--vehicle-id", "V1", "--once"]
    started = time.perf_counter()
    _tollgate(*agent)
    _claim(open_package(release / "package"), vehicle, time.perf_counter() - started, book)
    _tollgate(*agent)  # knows what it has, and builds nothing again
    _tollgate("replay", vehicle / "active", recording, "--frames", "100")


def _claim(released: EnginePackage, vehicle: Path, seconds: float, book: Book) -> None:
    active = open_package((vehicle / "active").resolve())
    (file,) = vehicle.glob("slots/*/evidence.json")
    evidence = json.loads(file.read_text())
    print(" ", json.dumps(evidence), flush=True)
    if evidence["engine_sha256"] != active.engine_sha256 or not evidence["checks"]:
        raise RuntimeError(f"{file}: is of engine {evidence['engine_sha256']}, the vehicle runs {active.engine_sha256}")
    if active.sha256 == released.sha256:
        raise RuntimeError(f"{active.folder}: is the package that was released, expected one that was built here")
    words = f"{released.manifest.name}, built on the vehicle"
    book.raw["evidence of what was built on the vehicle"] = evidence
    book.row(f"{words}: from the agent's call to the engine in use", seconds, unit="s", samples=1)
    for check in evidence["checks"]:
        name = f"{words}: {check['name']} against what was recorded before its release"
        book.row(name, check["got"], unit=check["unit"], limit=check["limit"], samples=check["samples"])


def _tollgate(*words: object) -> None:
    """Run a verb; what it says is shown.

    Raises:
        RuntimeError: it did not end with 0.
    """
    command = [sys.executable, "-m", "perception.cli", *map(str, words), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((done.stdout or done.stderr).split())[:400]
    print(
        f"  tollgate {words[0]} {words[1]}: {done.returncode} in {time.perf_counter() - started:.1f} s {said}",
        flush=True,
    )
    if done.returncode:
        raise RuntimeError(f"tollgate {words[0]}: ended with {done.returncode}: {done.stderr.strip()[-600:]}")
