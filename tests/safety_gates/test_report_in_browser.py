"""The report in a real browser: it renders offline, asks no host for anything, and fits a phone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from safety_gates.evidence import Shelf
from safety_gates.judge import judge
from safety_gates.policy import load_policy
from safety_gates.report.page import render
from safety_gates.trial import Case, Trial
from tests.safety_gates.builders import QUIET, package

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb"),
)


@pytest.fixture(scope="module")
def browser() -> str:
    """Path of Chromium."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("TOLLGATE_CI") == "1":
            pytest.fail("no Chromium on the PATH, but TOLLGATE_CI=1 says it must be")
        pytest.skip("no Chromium on the PATH")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, short_drive: tuple[Path, Path]) -> Path:
    """A report on disk."""
    folder = tmp_path_factory.mktemp("report")
    pictures, labels = short_drive
    case = Case(
        package(folder / "package"), pictures, labels=labels, reference=package(folder / "float"), command="tollgate"
    )
    trial = Trial(case, Shelf(folder / "evidence"), QUIET)
    (folder / "report.html").write_bytes(render(judge(trial, load_policy(None)), trial))
    return folder / "report.html"


def browse(browser: str, report: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open the report in a fresh browser that ends by itself."""
    profile = report.with_name("browser")
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *flags, report.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shutil.rmtree(profile, ignore_errors=True)
    return done


def test_the_page_renders_without_a_complaint(browser: str, report: Path) -> None:
    done = browse(browser, report, "--dump-dom", "--enable-logging=stderr", "--log-level=0")
    assert "accuracy.ap50" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_the_page_asks_no_host_for_anything(browser: str, report: Path) -> None:
    log = report.with_name("net.json")
    browse(browser, report, "--dump-dom", f"--log-net-log={log}")
    asked = {
        event["params"]["url"]
        for event in json.loads(log.read_text())["events"]
        if report.as_uri() in str(event.get("params", {}).get("initiator", "")) and "url" in event["params"]
    }
    assert {url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))} == set()


def test_a_phone_shows_the_verdict_over_its_whole_width_and_text_below(browser: str, report: Path) -> None:
    shot = report.with_name("phone.png")
    browse(browser, report, "--window-size=500,1200", f"--screenshot={shot}")
    picture = cv2.imread(str(shot))
    assert picture.shape[:2] == (1200, 500)
    banner, left, right = picture[4, 250], picture[4, 4], picture[4, 495]
    assert (banner == left).all()
    assert (banner == right).all()
    assert int(banner.max()) - int(banner.min()) > 60  # a signal colour, no grey
    assert picture[300:].std() > 10
