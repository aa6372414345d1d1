"""A repository, its server, and a vehicle that committed a first release."""

from __future__ import annotations

import pytest

from tests.perception.agent.fleet import Road, Works, served


@pytest.fixture
def works(tmp_path):
    return Works(tmp_path / "works")


@pytest.fixture
def road(works, tmp_path):
    """A vehicle that runs the release `first`, committed."""
    with served(works.repository) as url:
        road = Road(tmp_path / "vehicle", works, url)
        road.first = works.publish("first")
        road.commit()
        yield road
