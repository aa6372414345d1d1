"""Made once for all tests of the gates: drives with labels, a browser. A test that harms a package makes its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.safety_gates.builders import drive, steady_drive


@pytest.fixture(scope="session")
def labelled_drive(tmp_path_factory):
    """(pictures, labels) of 400 frames; read-only by agreement."""
    return drive(tmp_path_factory.mktemp("drive"))


@pytest.fixture(scope="session")
def short_drive(tmp_path_factory):
    """(pictures, labels) of 60 frames; read-only by agreement."""
    return drive(tmp_path_factory.mktemp("short"), frames=60, seed=1)


@pytest.fixture(scope="session")
def timed_drive(tmp_path_factory):
    """(KITTI raw drive, labels) of 400 frames in which nothing moves; read-only by agreement."""
    return steady_drive(tmp_path_factory.mktemp("timed") / "drive", frames=400)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as the system has it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("TOLLGATE_CI") == "1":
            pytest.fail("no Chromium on the PATH, but TOLLGATE_CI=1 says it must be")
        pytest.skip("no Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
