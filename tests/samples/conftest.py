from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def samples() -> Path:
    return Path(__file__).resolve().parents[2] / "data" / "samples"


@pytest.fixture
def scripts_importable(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts that made the samples are no installed package; they run from their own folder."""
    monkeypatch.syspath_prepend(str(samples / "make"))
