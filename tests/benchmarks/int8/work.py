"""The work folder: what was measured so far, one JSON file a step, so that a killed run goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perception.files import json_bytes, write_atomically

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What figures depend on, so that those of other settings are not mixed with them.

    Attributes:
        calibration_frames: frames everybody calibrates on.
        graded_frames: at most so many frames of each recording to grade on, evenly; None takes all.
    """

    calibration_frames: int = 64
    graded_frames: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A folder with one folder a model, and in it one a contender."""

    folder: Path
    settings: Settings

    @classmethod
    def begin(cls, folder: Path, settings: Settings) -> Work:
        """Go on in a folder, or begin an empty one.

        Raises:
            ValueError: it holds figures of other settings.
        """
        path = folder / "settings.json"
        if path.is_file() and json.loads(path.read_text()) != asdict(settings):
            raise ValueError(
                f"{folder}: holds figures of {path.read_text().split()}, asked for {asdict(settings)}; "
                "remove the folder or give another --work"
            )
        write_atomically(path, json_bytes(asdict(settings)))
        return cls(folder, settings)

    @classmethod
    def open(cls, folder: Path) -> Work:
        """A folder that `begin` began."""
        return cls(folder, Settings(**json.loads((folder / "settings.json").read_text())))

    def of_case(self, case: str) -> Path:
        """Folder of one model."""
        return self.folder / case

    def of_contender(self, case: str, contender: str) -> Path:
        """Folder of one contender for one model."""
        return self.folder / case / contender


def read(path: Path) -> Document | None:
    """A step's document; None where the step was not made yet."""
    return json.loads(path.read_text()) if path.is_file() else None


def write(path: Path, document: Document) -> Document:
    """Keep a step's document; gives it back."""
    write_atomically(path, json_bytes(document))
    return document
