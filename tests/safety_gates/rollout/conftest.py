"""An operator's key, and a rollout that has just begun."""

from __future__ import annotations

import pytest

from tests.perception.fleet import new_key
from tests.safety_gates.rollout.field import begun


@pytest.fixture
def key():
    """An operator's."""
    return new_key()


@pytest.fixture
def rollout(tmp_path, key):
    """In its first stage."""
    return begun(tmp_path / "rollout", key)
