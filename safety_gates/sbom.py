"""What the measured runtime is made of: a CycloneDX bill of materials of this Python environment.

Written by cyclonedx-bom, the maintained generator of the CycloneDX project, as a program of its own.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from perception.errors import EvidenceError

GENERATOR = "cyclonedx_py"
MISSING = "cyclonedx-bom is not installed; run: pip install 'tollgate[factory]'"


def sbom_of_this_environment() -> bytes:
    """A CycloneDX document in JSON; equal environments give equal bytes.

    Raises:
        EvidenceError: the generator is not installed, or fails.
    """
    if find_spec(GENERATOR) is None:
        raise EvidenceError(MISSING)
    words = [sys.executable, "-m", GENERATOR, "environment", "--output-reproducible", "--no-validate", sys.executable]
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode != 0:
        told = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise EvidenceError(f"cyclonedx-bom: {told[-1]}; run: {' '.join(words[1:4])}")
    return done.stdout
