"""The page beside an engine and `tollgate inspect package/`: what a real compilation found, told to people."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compile.explain.page import facts_of, percent, render
from compile.explain.plots import bars_of, pareto_of
from compile.explain.report import CompileReport, Spread, read_report
from perception.cli import EXIT_MISUSE, EXIT_PASSED, main
from perception.errors import PackageError
from perception.package import EnginePackage
from tests.compile.builders import write_drive
from tests.compile.test_search import compiled


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> EnginePackage:
    folder = tmp_path_factory.mktemp("explained")
    outcome = compiled(folder, write_drive(folder / "monday", seed=1, count=32), reference_output=folder / "reference")
    return outcome.package


@pytest.fixture
def document(package: EnginePackage) -> dict:
    return json.loads((package.folder / "compile.json").read_bytes())


class Page(HTMLParser):
    """Text and tags of a page, and whatever it would load."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.text, self.tags, self.loads = "", [], []
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]

    def handle_data(self, data):
        self.text += data


def test_the_page_is_in_the_package_and_needs_no_network(package):
    page = Page((package.folder / "compile.html").read_bytes())
    assert "compile.html" in package.manifest.files
    assert page.loads == []
    assert "script" not in page.tags


def test_the_page_says_why_what_naive_int8_would_have_done_and_what_every_layer_became(package, document):
    page = Page((package.folder / "compile.html").read_bytes())
    text = " ".join(page.text.split())
    assert document["decision"]["why"] in text
    assert document["decision"]["naive"] in text
    assert document["coverage"]["verdict"] in text
    for layer in document["layers"]:
        assert layer["node"] in text
        assert (layer["why"] or layer["recipe"]) in text
    assert page.tags.count("circle") == len(document["search"]["points"])


def test_names_cannot_write_into_the_page(document):
    document["layers"][0]["node"] = "<script>alert(1)</script>"
    page = Page(render(read_report(document, "compile.json"), "a <b> c"))
    assert "script" not in page.tags
    assert "alert(1)" in page.text


def test_a_report_of_float_alone_makes_a_page_without_a_plot(document):
    document["search"]["points"] = []
    document["decision"]["candidates"] = document["decision"]["candidates"][:1]
    document["decision"]["chosen"] = document["decision"]["candidates"][0]["name"]
    report = read_report(document, "compile.json")
    page = Page(render(report, "net-x86_cpu"))
    assert pareto_of(report) is None
    assert "circle" not in page.tags
    assert "Float ships" in page.text


def test_a_point_that_costs_less_stands_left_and_one_that_drifts_less_stands_lower(document):
    report = read_report(document, "compile.json")
    marks = {mark.title.split(":")[0]: mark for mark in pareto_of(report).marks}
    points = {point.name: point for point in report.search.points}
    cheap, dear = sorted(points, key=lambda name: points[name].time_ratio)[:: len(points) - 1]
    assert marks[cheap].x < marks[dear].x
    near, far = sorted(points, key=lambda name: points[name].drift)[:: len(points) - 1]
    assert marks[near].y > marks[far].y
    assert all(0 <= mark.x <= 640 and 0 <= mark.y <= 340 for mark in marks.values())


def test_the_time_of_what_ships_is_one_figure_with_its_interval(document):
    reference, other = document["decision"]["candidates"][:2]
    times_float = {"low": 0.8, "median": 0.83, "high": 0.86}
    other["latency"] = {"samples": 50, "p50_ms": 11.0, "times_float": times_float}
    reference["latency"] = {"samples": 50, "p50_ms": 10.0, "times_float": dict.fromkeys(times_float, 1.0)}
    document["decision"]["chosen"] = other["name"]
    assert facts_of(read_report(document, "compile.json"))[0] == (
        "0.83 ×",
        "the time of float",
        "95 % from 0.80 to 0.86, round by round; median inference 11.00 ms",
    )
    document["decision"]["chosen"] = reference["name"]
    assert facts_of(read_report(document, "compile.json"))[0] == ("10.00 ms", "median inference", "float")


@pytest.mark.parametrize(("share", "words"), [(-0.0001, "0.0 %"), (0.1234, "12.3 %"), (-0.01, "-1.0 %")])
def test_a_loss_that_rounds_to_nothing_has_no_sign(share, words):
    assert percent(share) == words


def test_engines_that_could_not_run_are_left_out_of_the_plot(document):
    document["search"]["points"][1]["failure"] = "refused"
    report = read_report(document, "compile.json")
    assert len(pareto_of(report).marks) == len(document["search"]["points"]) - 1


def test_bars_of_both_sets_are_shares_of_their_own_frames():
    spread = Spread(edges=(0, 1, 2), calibration=(30, 10), evaluation=(0, 2), least=0, most=2)
    first, second = bars_of("Brightness", spread).bars
    assert first.above == pytest.approx(70 * 0.75)
    assert (first.below, second.below) == (0, pytest.approx(70))


def test_a_report_of_another_kind_is_refused_with_the_field(document):
    document["decision"].pop("why")
    with pytest.raises(PackageError, match=r"compile\.json: decision\.why: is missing"):
        read_report(document, "compile.json")


def test_keys_of_a_newer_release_are_left_out(document):
    assert isinstance(read_report({**document, "later": 1}, "compile.json"), CompileReport)


def test_inspect_prints_a_package(package, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["inspect", str(package.folder)]) == EXIT_PASSED
    shown = capsys.readouterr().out
    for expected in (
        package.manifest.name,
        "plain MinMax INT8",
        "Graded",
        "matter most",
        "Calibration",
        "compile.html",
    ):
        assert expected in shown
    assert re.search(r"second\s*│ float", shown)


def test_inspect_gives_machines_the_manifest_and_the_report(package, document, capsys):
    assert main(["inspect", str(package.folder), "--json"]) == EXIT_PASSED
    shown = json.loads(capsys.readouterr().out)
    assert shown["manifest"]["name"] == package.manifest.name
    assert shown["report"]["decision"]["why"] == document["decision"]["why"]


def test_a_reference_has_no_report_and_inspect_says_so(package, capsys):
    assert main(["inspect", str(package.folder.parent / "reference")]) == EXIT_MISUSE
    assert "is not in the package; it was written as a reference" in capsys.readouterr().err


def test_a_package_that_was_altered_is_not_shown(package, tmp_path: Path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in package.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "compile.json").write_bytes((copy / "compile.json").read_bytes().replace(b"ships", b"sinks"))
    assert main(["inspect", str(copy)]) == EXIT_MISUSE
    assert "compile.json" in capsys.readouterr().err
