"""The report in a real browser: it renders offline, asks no host for anything, and serves keyboard and phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.judge import judge
from safety_gates.policy import load_policy
from safety_gates.report.page import render
from safety_gates.trial import Trial
from tests.mutation.bench import calibration_of
from tests.safety_gates.builders import QUIET, SHIFTED, package

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MOST_TABS = 400


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, short_drive: tuple[Path, Path]) -> Path:
    """A report on disk of a package with something to show in every chapter."""
    folder = tmp_path_factory.mktemp("report")
    pictures, labels = short_drive
    calibration = calibration_of(pictures, range(20))
    harmed = package(folder / "package", bias=SHIFTED, precision="int8", calibration=calibration)
    case = Case(harmed, pictures, labels=labels, reference=package(folder / "float"), command="tollgate")
    trial = Trial(case, Shelf(folder / "evidence"), QUIET)
    (folder / "report.html").write_bytes(render(judge(trial, load_policy(None)), trial))
    return folder / "report.html"


def opened(browser: Browser, report: Path, *, size: dict[str, int] = DESK, scheme: str = "light") -> Page:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(report.as_uri())
    return page


def test_the_page_renders_without_a_complaint_and_asks_no_host_for_anything(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").inner_text() == "✗ FAILED"
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
    assert broken == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_contrast_names_and_structure_satisfy_axe(
    browser: Browser, report: Path, size: dict[str, int], scheme: str
) -> None:
    page = opened(browser, report, size=size, scheme=scheme)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, report: Path) -> None:
    page = opened(browser, report, size=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    banner = page.locator("header").bounding_box()
    assert banner is not None
    assert banner["width"] == PHONE["width"]


def test_everything_can_be_reached_and_opened_by_keyboard(browser: Browser, report: Path) -> None:
    page = opened(browser, report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the claims"
    page.locator("details.passed summary").press("Enter")
    page.locator(".skip").focus()
    wanted = page.evaluate("[...document.querySelectorAll('a[href],summary')].length")
    page.evaluate("document.activeElement.dataset.reached = 1")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        page.evaluate("document.activeElement.dataset.reached = 1")
    assert page.evaluate("document.querySelectorAll('[data-reached]').length") == wanted
    page.locator("summary").last.press("Enter")
    assert page.locator("details").last.get_attribute("open") is not None


def test_every_link_to_evidence_leads_to_its_file_name(browser: Browser, report: Path) -> None:
    page = opened(browser, report)
    links = page.locator('a[href^="#evidence-"]').all()
    assert len(links) > 10
    shelf = {path.name for path in report.with_name("evidence").iterdir()}
    for link in links:
        block = page.locator(str(link.get_attribute("href")))
        assert block.locator("td").first.inner_text() in shelf


def test_what_blocks_is_seen_at_once_and_what_passed_is_folded_but_printed(browser: Browser, report: Path) -> None:
    page = opened(browser, report)
    passed = page.locator("details.passed .badge").first
    assert page.locator(".claims .badge").first.inner_text() == "✗ FAILED"
    assert page.locator(".claims .badge:visible").count() == page.locator(".claims .badge").count() - int(
        page.locator("details.passed summary").inner_text().split()[0]
    )
    assert not passed.is_visible()
    page.emulate_media(media="print")
    assert passed.evaluate("badge => badge.checkVisibility({contentVisibilityAuto: true, visibilityProperty: true})")


def test_it_prints_to_pdf(browser: Browser, report: Path) -> None:
    content = opened(browser, report).pdf(format="A4", print_background=True)
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") >= 3
