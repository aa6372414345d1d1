"""Release what passed: confirm the judgement from its evidence, then sign.

A judgement is a file, and files can be edited. So nothing is taken from it but its policy and the digests of its
evidence: the evidence is read again, every byte compared, and every verdict derived anew. Only when each is PASSED,
for exactly the bytes of this package, is a statement signed.

What is signed is `safety_gates.attestation`'s statement.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError
from securesystemslib.signer import Signer

from hw_profiles.yaml_files import complaints_of
from perception.errors import EvidenceError, PolicyError, ReleaseError
from perception.files import sha256_of_bytes, sha256_of_file, staged_folder
from perception.package import EnginePackage
from perception.release_client import (
    JUDGEMENT,
    PACKAGE,
    REPORT,
    STATEMENT,
    VerifiedRelease,
    verify_release,
)
from safety_gates.attestation import result_statement, signed
from safety_gates.conditions import Subject
from safety_gates.evidence import Shelf
from safety_gates.judge import WrittenJudgement, verdicts_on
from safety_gates.policy import Policy
from safety_gates.verdict import Outcome


def sign_release(package: EnginePackage, judgement: Path, signer: Signer, *, output: Path) -> VerifiedRelease:
    """Write a signed release, whole or not at all, and verify it as a vehicle would before it takes its place.

    Args:
        package: what shall be released.
        judgement: its `judgement.json`, which names where report and evidence lie.
        signer: who vouches.
        output: the release's folder; must not exist.

    Raises:
        ReleaseError: the folder exists, or the judgement does not show that exactly this package passed.
        OutputError: the folder cannot be written.
    """
    if output.exists():
        raise ReleaseError(f"{output}: exists; a release is never overwritten, choose another --output")
    written = read_judgement(judgement)
    confirm(written, package, Shelf(judgement.parent / written.evidence_folder))
    report = _report_of(written, judgement)
    documents = {JUDGEMENT: sha256_of_file(judgement), REPORT: sha256_of_file(report)}
    statement = result_statement(written, package, documents)
    with staged_folder(output) as staged:
        shutil.copytree(package.folder, staged / PACKAGE)
        shutil.copyfile(judgement, staged / JUDGEMENT)
        shutil.copyfile(report, staged / REPORT)
        (staged / STATEMENT).write_bytes(signed(statement, signer))
        verify_release(staged, signer.public_key)
    return verify_release(output, signer.public_key)


def read_judgement(path: Path) -> WrittenJudgement:
    """A judgement as `tollgate gate` wrote it.

    Raises:
        ReleaseError: unreadable, or no judgement.
    """
    try:
        return WrittenJudgement.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ReleaseError(f"{path}: no judgement ({error.strerror}); make one with: tollgate gate PACKAGE") from error
    except ValidationError as error:
        raise ReleaseError(
            f"{path}: no judgement: {complaints_of(error)}; make one with: tollgate gate PACKAGE"
        ) from error


def confirm(written: WrittenJudgement, package: EnginePackage, shelf: Shelf) -> None:
    """Derive the verdicts anew from the evidence and refuse unless every one is PASSED for exactly this package.

    Raises:
        ReleaseError: another package, a claim that did not pass, evidence missing, altered or of something else, or a
            judgement that says otherwise than its evidence.
    """
    subject = Subject.of(package)
    if written.subject != subject:
        raise ReleaseError(
            f"the judgement is of package {written.subject.package_sha256[:16]}… for {written.subject.profile}, "
            f"this is {subject.package_sha256[:16]}… for {subject.profile}; gate this package"
        )
    try:
        policy = Policy.from_fields(written.policy, where="policy in the judgement")
        requirements = policy.requirements(package.profile, package.spec.task)
        missing = sorted({each.gate for each in requirements} - set(written.evidence))
        if missing:
            raise ReleaseError(f"the judgement rests on no evidence for {', '.join(missing)}; {_unpassed(written)}")
        evidence = {gate: shelf.read_bound(sha256, subject, gate) for gate, sha256 in written.evidence.items()}
    except (EvidenceError, PolicyError) as error:
        raise ReleaseError(f"not released: {error}") from error
    found = {verdict.requirement.claim: verdict.outcome for verdict in verdicts_on(requirements, evidence)}
    if found != (said := {verdict.claim: verdict.outcome for verdict in written.verdicts}):
        claim = next(name for name in sorted({*found, *said}) if found.get(name) != said.get(name))
        raise ReleaseError(
            f"claim {claim}: the judgement says {_word(said.get(claim))}, its evidence says {_word(found.get(claim))}; "
            "the judgement was altered: run tollgate gate again"
        )
    if written.outcome is not Outcome.PASSED or set(found.values()) != {Outcome.PASSED}:
        raise ReleaseError(f"only a PASSED package is released: {_unpassed(written)}")


def _report_of(written: WrittenJudgement, judgement: Path) -> Path:
    path = judgement.parent / written.report.file
    try:
        got = sha256_of_bytes(path.read_bytes())
    except OSError as error:
        raise ReleaseError(
            f"{path}: no report ({error.strerror}); run tollgate gate again (evidence is re-used)"
        ) from error
    if got != written.report.sha256:
        raise ReleaseError(
            f"{path}: is not the report of this judgement; run tollgate gate again (evidence is re-used)"
        )
    return path


def _unpassed(written: WrittenJudgement) -> str:
    claims = [
        f"{each.claim} is {each.outcome.value}" for each in written.verdicts if each.outcome is not Outcome.PASSED
    ]
    return ", ".join(claims) or "run tollgate gate again"


def _word(outcome: Outcome | None) -> str:
    return "nothing" if outcome is None else outcome.value
