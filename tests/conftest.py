"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("on a busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("on a busy machine")

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts tests behind a shell's & has them ignore it

PASSPHRASE = "of the tests and of nothing else"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared models, recordings and labels, which lie beside the repository and are not part of it."""
    if not SHARED_DATA.is_dir():
        absent = f"{SHARED_DATA.parent.name}/{SHARED_DATA.name} is not beside the repository"
        if os.environ.get("TOLLGATE_CI") == "1":
            pytest.fail(f"{absent}, but TOLLGATE_CI=1 says it must be")
        pytest.skip(absent)
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep nothing in the user's cache, and find nothing there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def passphrase() -> Iterator[None]:
    """Keys that tests make are encrypted like everybody's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_PASSPHRASE", PASSPHRASE)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `-m "not shared"` leave out whatever wants the shared data."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")
