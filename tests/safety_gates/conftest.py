"""Made once for all tests of the gates: a drive with labels. Packages are made by each test that harms one."""

from __future__ import annotations

import pytest

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
