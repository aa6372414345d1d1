"""The documentation stays true: every verb has a page, every page knows every option, every link leads somewhere."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from perception.cli import VERBS, main, parser_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md")) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option and positional argument, those of sub-actions too."""
    names: set[str] = set()
    for action in parser._actions:
        if action.help is argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            names |= set(action.choices).union(*(options_of(choice) for choice in action.choices.values()))
        else:
            names |= {name for name in action.option_strings if name.startswith("--")} or {action.dest}
    return names - {"--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_page_names_every_argument_of_its_help(verb: str) -> None:
    page = (ROOT / "docs" / "verbs" / f"{verb}.md").read_text()
    missing = [
        name for name in sorted(options_of(parser_of(verb))) if not re.search(rf"(?<![\w-]){name}(?![\w-])", page)
    ]
    assert missing == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_page_names_no_option_that_does_not_exist(verb: str) -> None:
    page = (ROOT / "docs" / "verbs" / f"{verb}.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| `--")]
    named = {name for line in table for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line.split("|")[1])}
    assert named - options_of(parser_of(verb)) == set()


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_and_exits_with_zero(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"usage: tollgate {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_test_a_page_names_exists() -> None:
    """A page that promises a test keeps its promise."""
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in written] == []


def test_every_verb_the_readme_shows_parses() -> None:
    """Each `tollgate …` line of the README is understood by its verb's parser."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^\s*tollgate (\w+)([^#\n]*)", text, flags=re.MULTILINE)
    assert len(commands) >= 6
    for verb, rest in commands:
        parser_of(verb).parse_args(rest.split())
