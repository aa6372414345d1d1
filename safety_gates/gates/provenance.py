"""The provenance gate: are these the bytes that were built, is it known how and from what, and may they be used.

Plain facts, so they carry no interval: one altered file or one unknown licence is one too many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from pydantic import JsonValue

from perception.errors import EvidenceError, TollgateError, VerificationError
from perception.files import sha256_of_bytes
from perception.package import EnginePackage, open_package
from safety_gates.evidence import KeptEvidence, strings
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Observation
from safety_gates.sbom import sbom_of_this_environment
from safety_gates.source_signature import SourceSignature
from safety_gates.trial import Trial
from safety_gates.verdict import Measured

QUANTITIES: Mapping[str, Quantity] = {
    "altered_files": Quantity("count", "at_most", None, "files on disk that are not the bytes the manifest names"),
    "unknown_licences": Quantity("count", "at_most", None, "models whose licence the ModelSpec does not name"),
    "missing_build_facts": Quantity(
        "count", "at_most", None, "facts the manifest should tell about the build and does not"
    ),
    "missing_sboms": Quantity("count", "at_most", None, "runtimes without a bill of materials (CycloneDX)"),
    "bad_source_signatures": Quantity(
        "count", "at_most", None, "signatures given for the source model that do not hold for what was compiled"
    ),
    "unsigned_sources": Quantity("count", "at_most", None, "source models for which no signature was given"),
}
COUNTED = {
    "altered_files": "files",
    "unknown_licences": "models",
    "missing_build_facts": "facts",
    "missing_sboms": "runtimes",
    "bad_source_signatures": "signatures",
    "unsigned_sources": "models",
}
SBOM = "sbom_json"
# What must be known to build the same engine again, or to find out why it cannot be.
BUILD_FACTS = ("source", "spec_sha256", "profile_sha256", "libraries", "python", "cpu")
CALIBRATED_FACTS = ("calibration_sha256",)
CALIBRATED = frozenset({"int8", "mixed"})
UNKNOWN_LICENCES = frozenset({"", "unknown"})


class ProvenanceGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Compare the package with its manifest once more, always anew, and read what the manifest tells."""
        wanted = trial.conditions("provenance", looks_at=())
        return trial.measure(wanted, lambda: _observe(trial.case.package, trial.case.source_signature))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Counts, each with what is wrong by name."""
        values = evidence.evidence.values
        return {
            name: _counted(strings(values[name]), len(strings(values[f"{name}_of"])), COUNTED[name], evidence.sha256)
            for name in wanted
        }


def sbom_in(evidence: KeptEvidence) -> bytes | None:
    """The bill of materials as CycloneDX JSON; None where none could be made."""
    kept = evidence.arrays.get(SBOM)
    return None if kept is None else kept.tobytes()


def _observe(package: EnginePackage, signature: SourceSignature | None) -> Observation:
    licence, build = package.spec.licence.strip(), package.manifest.build
    sbom, why_not = _sbom()
    expected = BUILD_FACTS + (CALIBRATED_FACTS if package.manifest.engine.precision in CALIBRATED else ())
    facts: dict[str, JsonValue] = {
        "altered_files": list(_altered(package)),
        "altered_files_of": [*sorted(package.manifest.files)],
        "unknown_licences": [package.spec.name] if licence.lower() in UNKNOWN_LICENCES else [],
        "unknown_licences_of": [package.spec.name],
        "missing_build_facts": [name for name in expected if not build.get(name)],
        "missing_build_facts_of": [*expected],
        **_source_facts(package, signature),
        **({} if sbom is None else {"sbom_sha256": sha256_of_bytes(sbom)}),
        "missing_sboms": [why_not] if why_not else [],
        "missing_sboms_of": [SBOM],
        "licence": licence,
        "source": package.spec.source,
        "build": build,
    }
    arrays = {} if sbom is None else {SBOM: np.frombuffer(sbom, np.uint8)}
    return Observation(len(package.manifest.files), facts, arrays)


def _sbom() -> tuple[bytes | None, str]:
    """The bill of materials, or why there is none."""
    try:
        return sbom_of_this_environment(), ""
    except EvidenceError as error:
        return None, str(error)


def _source_facts(package: EnginePackage, signature: SourceSignature | None) -> dict[str, JsonValue]:
    """Whether the source model is signed; a signature that does not hold is worse than none."""
    source = package.manifest.build.get("source")
    sha256 = str(source.get("sha256")) if isinstance(source, dict) else "an unknown model"
    broken: list[JsonValue] = []
    try:
        if signature is not None:
            signature.vouches_for(sha256)
    except VerificationError as error:
        broken = [str(error)]
    signed = signature is not None and not broken
    return {
        "bad_source_signatures": broken,
        "bad_source_signatures_of": [] if signature is None else [str(signature.path)],
        "unsigned_sources": [] if signed else [sha256],
        "unsigned_sources_of": [sha256],
    }


def _altered(package: EnginePackage) -> Sequence[str]:
    try:
        again = open_package(package.folder)
    except TollgateError as error:
        return [str(error)]
    return [] if again.sha256 == package.sha256 else [f"{package.folder}: another package took its place"]


def _counted(names: Sequence[str], looked_at: int, things: str, sha256: str) -> Measured:
    return Measured(float(len(names)), looked_at, things, note=", ".join(names), evidence=sha256)
