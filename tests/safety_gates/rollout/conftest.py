"""An operator's key, a rollout that has just begun, and a browser to look at its page."""

from __future__ import annotations

import pytest

from tests.perception.fleet import new_key
from tests.safety_gates.rollout.field import begun
from tests.safety_gates.test_report_in_browser import browser

__all__ = ["browser"]


@pytest.fixture
def key():
    """An operator's."""
    return new_key()


@pytest.fixture
def rollout(tmp_path, key):
    """In its first stage."""
    return begun(tmp_path / "rollout", key)
