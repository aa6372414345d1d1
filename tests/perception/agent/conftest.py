"""A repository, its server, and a vehicle that committed a first release: made once, copied for each test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.perception.agent.fleet import Road, Works, served

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory where there is one: these tests flush every step, and a busy disk is slow."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Works and vehicle; read-only by agreement."""
    folder = tmp_path_factory.mktemp("made")
    works = Works.founded(folder / "works")
    first = works.publish("first")
    with served(works.repository) as url:
        Road(folder / "vehicle", works, url).commit()
    return folder, first


@pytest.fixture
def works(made, tmp_path):
    """The owner of the fleet, who offers the release `first`."""
    shutil.copytree(made[0] / "works", tmp_path / "works")
    return Works(tmp_path / "works")


@pytest.fixture
def road(made, works, tmp_path):
    """A vehicle that runs the release `first`, committed."""
    shutil.copytree(made[0] / "vehicle", tmp_path / "vehicle", symlinks=True)
    with served(works.repository) as url:
        road = Road(tmp_path / "vehicle", works, url)
        road.first = made[1]
        yield road
