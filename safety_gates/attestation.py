"""What was judged as a statement for machines: an in-toto test result in a signed DSSE envelope.

The statement is an in-toto Statement v1 with the predicate test-result v0.1: any in-toto verifier reads it. Its
subjects are the package's files, the manifest among them, whose digest names the package; its configuration names
policy, documents and evidence by digest. INCONCLUSIVE claims are its warned tests; a result with one is FAILED, since
it blocks a release like a failed one.

Source: in-toto attestation framework, Statement v1 and test-result v0.1; DSSE 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer

from perception.files import json_bytes
from perception.package import MANIFEST, EnginePackage
from perception.release_client import PAYLOAD_TYPE, subject_name
from safety_gates.judge import WrittenJudgement
from safety_gates.verdict import Outcome

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def result_statement(written: WrittenJudgement, package: EnginePackage, documents: Mapping[str, str]) -> dict[str, Any]:
    """The statement that this package was judged so.

    Args:
        written: the judgement.
        package: what was judged.
        documents: name → sha256 of each document that goes with it, such as judgement and report.
    """
    files = {name: entry.sha256 for name, entry in package.manifest.files.items()} | {MANIFEST: package.sha256}
    evidence = {f"evidence/{gate}": sha256 for gate, sha256 in written.evidence.items()}
    configuration = {"policy": written.policy_sha256, **documents, **evidence}
    claims = {
        outcome: [verdict.claim for verdict in written.verdicts if verdict.outcome is outcome] for outcome in Outcome
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_resource(subject_name(name), sha256) for name, sha256 in sorted(files.items())],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": "PASSED" if written.outcome is Outcome.PASSED else "FAILED",
            "configuration": [_resource(name, sha256) for name, sha256 in configuration.items()],
            "passedTests": claims[Outcome.PASSED],
            "warnedTests": claims[Outcome.INCONCLUSIVE],
            "failedTests": claims[Outcome.FAILED],
        },
    }


def signed(statement: Mapping[str, Any], signer: Signer) -> bytes:
    """The statement in a DSSE envelope, as a file."""
    envelope = Envelope(json_bytes(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json_bytes(envelope.to_dict())


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}
