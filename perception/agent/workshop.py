"""Make a filled slot ready and measure it, in a process of its own: `python -m perception.agent.workshop SLOT`.

An engine is foreign code: it may crash, hang, or take the process with it. So the agent never opens one. This process
builds the engine where the release asks for it, runs the smoke frames, and writes what it measured to `evidence.json`.
The evidence says `passed` or it does not; a process that dies writes none, which counts as failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from perception.agent.builders import build_on_device
from perception.agent.index import INDEX, RELEASE, SMOKE, ReleaseIndex, parse_document
from perception.agent.smoke import Check, measure
from perception.errors import OutputError, TollgateError
from perception.files import json_bytes, write_atomically
from perception.package import open_package

EVIDENCE, BUILT, WORK = "evidence.json", "package", "build"
DISK_FULL = 3
TIMEOUT_S = 3600


class SlotEvidence(BaseModel):
    """What a release did on this machine before it was used.

    Attributes:
        release: its name.
        package_sha256: of the package that was measured; it differs from the released one where it was built here.
        engine_sha256: of its engine's bytes.
        checks: the short gate set.
        failure: why nothing could be measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-slot-evidence/1"] = "tollgate-slot-evidence/1"
    release: str
    package_sha256: str = ""
    engine_sha256: str = ""
    checks: tuple[Check, ...] = ()
    failure: str = ""

    @property
    def reason(self) -> str:
        """Why the release may not be used; empty where it may."""
        if self.failure:
            return self.failure
        if not self.checks:
            return "nothing was measured"
        return ", ".join(str(check) for check in self.checks if not check.passed)


def prepare_here(slot: Path) -> SlotEvidence:
    """Build and measure in this process.

    Args:
        slot: a slot's folder: index, release, smoke recording.

    Raises:
        OutputError: the disk is full; what stands against the release is in the evidence.
    """
    index = parse_document(ReleaseIndex, (slot / INDEX).read_bytes(), where=INDEX)
    try:
        package = open_package(slot / RELEASE / "package")
        if index.build is not None:
            package = build_on_device(package, index.build, slot / BUILT, work=slot / WORK)
        checks = measure(package, (slot / SMOKE).read_bytes(), index.tolerance)
    except OutputError:
        raise
    except TollgateError as error:
        return SlotEvidence(release=index.name, failure=str(error))
    return SlotEvidence(
        release=index.name, package_sha256=package.sha256, engine_sha256=package.engine_sha256, checks=checks
    )


def prepare_in_child(slot: Path) -> SlotEvidence:
    """Build and measure in a process of its own, which may crash or hang.

    Raises:
        OutputError: the disk is full.
    """
    name = parse_document(ReleaseIndex, (slot / INDEX).read_bytes(), where=INDEX).name
    (slot / EVIDENCE).unlink(missing_ok=True)
    command = [sys.executable, "-m", "perception.agent.workshop", str(slot)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return SlotEvidence(release=name, failure=f"the smoke run did not end within {TIMEOUT_S} s")
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode == DISK_FULL:
        raise OutputError(last)
    try:
        return SlotEvidence.model_validate_json((slot / EVIDENCE).read_bytes())
    except (OSError, ValidationError):
        return SlotEvidence(release=name, failure=f"the smoke run died with exit status {done.returncode}: {last}")


def main(slot: str) -> int:
    """Write the evidence; the exit status is 0 where it was written."""
    folder = Path(slot)
    try:
        evidence = prepare_here(folder)
        write_atomically(folder / EVIDENCE, json_bytes(evidence.model_dump(mode="json")))
    except OutputError as error:
        sys.stderr.write(f"{error}\n")
        return DISK_FULL
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
