"""An operator's key, and a rollout that has just begun."""

from __future__ import annotations

import pytest

from safety_gates.rollout.moving import command
from tests.perception.fleet import NOW_NS, new_key
from tests.safety_gates.rollout.field import DAY_NS, Cars, begun


@pytest.fixture
def key():
    """An operator's."""
    return new_key()


@pytest.fixture
def rollout(tmp_path, key):
    """In its first stage."""
    return begun(tmp_path / "rollout", key)


@pytest.fixture
def advanced(rollout, key):
    """A day later in its second stage."""
    return command(rollout, "advance", "to candidates", key, now_ns=NOW_NS + DAY_NS, seen_stage="shadow")


@pytest.fixture
def cars(tmp_path):
    """Forty vehicles that drive and report."""
    return Cars(tmp_path, 40)
