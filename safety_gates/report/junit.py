"""A judgement as JUnit XML: what continuous integration shows without being taught.

A claim is a test case. FAILED is a failure; INCONCLUSIVE is an error, never skipped: skipped tests turn no build red.

Source: the JUnit schema as Jenkins and GitLab read it (testmoapp/junitxml).
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from safety_gates.judge import WrittenJudgement, WrittenVerdict
from safety_gates.report.words import figure_of, limit_of
from safety_gates.verdict import Outcome

TAGS = {Outcome.FAILED: "failure", Outcome.INCONCLUSIVE: "error"}


def junit_xml(written: WrittenJudgement) -> bytes:
    """One test suite of the package, one test case a claim."""
    outcomes = [verdict.outcome for verdict in written.verdicts]
    counts = {
        "tests": len(outcomes),
        "failures": outcomes.count(Outcome.FAILED),
        "errors": outcomes.count(Outcome.INCONCLUSIVE),
    }
    attributes = {name: str(count) for name, count in counts.items()}
    root = Element("testsuites", {"name": "tollgate gate", **attributes})
    suite = SubElement(
        root, "testsuite", {"name": f"{written.subject.name} for {written.subject.profile}", **attributes}
    )
    properties = SubElement(suite, "properties")
    for name, value in (
        ("package_sha256", written.subject.package_sha256),
        ("engine_sha256", written.subject.engine_sha256),
        ("policy_sha256", written.policy_sha256),
        ("tollgate", written.tollgate),
        ("command", written.command),
    ):
        SubElement(properties, "property", {"name": name, "value": value})
    for verdict in written.verdicts:
        _case(suite, verdict)
    indent(root)
    content: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _case(suite: Element, verdict: WrittenVerdict) -> None:
    case = SubElement(suite, "testcase", {"classname": f"tollgate.{verdict.gate}", "name": verdict.claim})
    properties = SubElement(case, "properties")
    facts = {"got": figure_of(verdict), "limit": limit_of(verdict), "samples": f"{verdict.samples} {verdict.sampled}"}
    if verdict.evidence is not None:
        facts["evidence"] = f"{verdict.evidence}.json"
    for name, value in facts.items():
        SubElement(properties, "property", {"name": name, "value": value})
    if (tag := TAGS.get(verdict.outcome)) is not None:
        told = SubElement(case, tag, {"type": verdict.outcome.value, "message": verdict.why})
        told.text = f"got {facts['got']}, limit {facts['limit']}, {facts['samples']}"
