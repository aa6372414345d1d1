"""A judgement as Markdown for a pull request: the verdict, what stands against it, then everything in a fold."""

from __future__ import annotations

from collections.abc import Iterator

from safety_gates.judge import WrittenJudgement, WrittenVerdict
from safety_gates.report.words import MARKS, figure_of, interval_of, limit_of
from safety_gates.verdict import Outcome

HEADER = ("", "claim", "got", "interval", "limit", "samples")


def markdown_summary(written: WrittenJudgement) -> bytes:
    """A summary that renders on GitHub and GitLab."""
    return ("\n".join(_lines(written)) + "\n").encode()


def _lines(written: WrittenJudgement) -> Iterator[str]:
    subject, verdicts = written.subject, written.verdicts
    counts = {outcome: sum(each.outcome is outcome for each in verdicts) for outcome in Outcome}
    yield f"## {MARKS[written.outcome.value]} {written.outcome.value}: {_plain(subject.name)} for {subject.profile}"
    yield ""
    yield ", ".join(f"{count} {outcome.value.lower()}" for outcome, count in counts.items() if count) + "."
    against = [each for each in verdicts if each.outcome is not Outcome.PASSED]
    if against:
        yield ""
        for verdict in sorted(against, key=lambda each: each.outcome is not Outcome.FAILED):
            yield f"- **{verdict.outcome.value}** `{verdict.claim}`: {_plain(verdict.why)}"
    yield ""
    yield f"<details><summary>All {len(verdicts)} claims</summary>"
    yield ""
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + " --- |" * len(HEADER)
    for verdict in verdicts:
        yield "| " + " | ".join(_cells(verdict)) + " |"
    yield ""
    yield "</details>"
    yield ""
    yield (
        f"Package `{subject.package_sha256[:16]}…`, engine `{subject.engine_sha256[:16]}…`, policy "
        f"“{_plain(str(written.policy['name']))}” `{written.policy_sha256[:16]}…`, tollgate {written.tollgate}."
    )


def _cells(verdict: WrittenVerdict) -> tuple[str, ...]:
    return (
        MARKS[verdict.outcome.value],
        f"`{verdict.claim}`",
        figure_of(verdict),
        interval_of(verdict),
        limit_of(verdict),
        f"{verdict.samples} {verdict.sampled}",
    )


def _plain(text: str) -> str:
    """Words from files and command lines stay words: no markup, no table, no mention of anybody."""
    for sign in "\\`*_{}[]<>|#@":
        text = text.replace(sign, f"\\{sign}" if sign not in "@" else "@\u200b")
    return text.replace("\n", " ")
