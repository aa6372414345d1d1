"""Whether the pictures of a recording are pictures at all, before any long work."""

from __future__ import annotations

from pathlib import Path

import cv2

from perception.errors import SourceError
from perception.sources.pictures import PICTURE_SUFFIXES


def require_pictures(recording: Path) -> None:
    """Look at the head of every picture file of a folder; videos are looked into when they are opened.

    What a head does not show, a file cut off behind it, is found when the picture is decoded.

    Raises:
        SourceError: a file that is called a picture is none.
    """
    files = sorted(recording.rglob("*")) if recording.is_dir() else []
    for file in files:
        if file.suffix.lower() in PICTURE_SUFFIXES and not cv2.haveImageReader(str(file)):
            raise SourceError(
                f"{file}: is no readable picture ({file.stat().st_size} bytes); copy it again or take it out, with its "
                "labels"
            )
