"""One page that opens without a network and says what the judgement says."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from safety_gates.case import Case
from safety_gates.evidence import KeptEvidence, Shelf
from safety_gates.judge import judge
from safety_gates.policy import load_policy
from safety_gates.report.page import render
from safety_gates.report.words import counted, range_with_unit, with_unit
from safety_gates.statistics import Interval
from safety_gates.trial import Trial
from tests.safety_gates.builders import QUIET, SHIFTED, mask_drive, mask_package, package

VOID = {"meta", "link", "img", "br", "line", "rect", "circle", "path", "use"}


class Page(HTMLParser):
    """Tags, attributes and visible text; fails on a tag that is closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.tags, self.words, self._open = [], [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def harmed(tmp_path_factory, short_drive):
    """Judgement and page of a package whose boxes stand aside."""
    folder = tmp_path_factory.mktemp("report")
    pictures, labels = short_drive
    trial, twin = package(folder / "package", bias=SHIFTED), package(folder / "float")
    case = Case(trial, pictures, labels=labels, reference=twin, command="tollgate gate <package> & more")
    tried = Trial(case, Shelf(folder / "evidence"), QUIET)
    judgement = judge(tried, load_policy(None))
    return judgement, render(judgement, tried).decode()


def test_the_verdict_stands_at_the_top_and_every_claim_in_the_table(harmed):
    judgement, text = harmed
    page = Page(text)
    assert page.text.index("FAILED") < page.text.index("Claims")
    for verdict in judgement.verdicts:
        assert verdict.requirement.claim in page.text
        assert verdict.why.split(";")[0][1:] in page.text


def test_the_page_asks_nothing_of_any_host_and_holds_no_script(harmed):
    _, text = harmed
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert loads
    assert all(value.startswith(("#", "data:")) for value in loads)
    assert not re.search(r"url\((?!#)|@import", text)


def test_identifiers_are_unique_and_every_link_of_the_page_leads_to_one(harmed):
    page = Page(harmed[1])
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    targets = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    assert targets <= set(identifiers)


def test_every_picture_and_plot_says_what_it_shows(harmed):
    page = Page(harmed[1])
    described = [name for name, value in page.attributes if name in ("alt", "aria-label") and value]
    assert len(described) >= page.tags.count("img") + page.tags.count("svg")
    assert page.tags.count("img") == 20


def test_words_from_files_and_command_lines_stay_words(harmed):
    assert "tollgate gate &lt;package&gt; &amp; more" in harmed[1]


def test_conditions_name_every_evidence_file_and_digest(harmed):
    judgement, text = harmed
    kept = [exhibit.sha256 for exhibit in judgement.exhibits.values() if isinstance(exhibit, KeptEvidence)]
    assert len(kept) > 8
    assert all(digest in text for digest in kept)
    assert judgement.case.package.sha256 in text
    assert judgement.case.package.engine_sha256 in text


def test_a_judgement_without_labels_and_reference_is_drawn_too(tmp_path, short_drive):
    tried = Trial(Case(package(tmp_path / "package"), short_drive[0]), Shelf(tmp_path / "evidence"), QUIET)
    page = Page(render(judge(tried, load_policy(None)), tried).decode())
    assert "INCONCLUSIVE" in page.text
    assert "img" not in page.tags


def test_masks_are_drawn_too(tmp_path):
    pictures, masks = mask_drive(tmp_path / "drive", frames=30)
    trial, twin = mask_package(tmp_path / "package", swapped=True), mask_package(tmp_path / "float")
    tried = Trial(Case(trial, pictures, labels=masks, reference=twin), Shelf(tmp_path / "evidence"), QUIET)
    page = Page(render(judge(tried, load_policy(None)), tried).decode())
    assert "100.00% of the pixels differ" in page.text
    assert page.tags.count("img") == 20


def test_equal_judgements_give_equal_pages(tmp_path, short_drive):
    tried = Trial(Case(package(tmp_path / "package"), short_drive[0]), Shelf(tmp_path / "evidence"), QUIET)
    judgement = judge(tried, load_policy(None))
    assert render(judgement, tried) == render(judgement, tried)


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (with_unit(None, "ms"), "–"),
        (with_unit(float("nan"), "ratio"), "–"),
        (with_unit(0.1234, "ratio"), "0.123"),
        (with_unit(12.345, "ms"), "12.35 ms"),
        (with_unit(2.0, "count"), "2"),
        (range_with_unit(Interval(0.1, float("inf")), "ratio"), "0.100 … ∞"),
        (range_with_unit(Interval(float("-inf"), 50.76), "ms"), "−∞ … 50.76"),
        (counted(1, "files"), "1 file"),
        (counted(2, "files"), "2 files"),
    ],
)
def test_figures_are_written_for_people(got, said):
    assert got == said
