"""One picture file: found, read, decoded, and refused where it is damaged."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

# A broken picture is told by its error; OpenCV's own line on stderr names neither file nor remedy. The call moved
# between OpenCV 4 and 5; silence is level 0 in both.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)

_JPEG_START, _JPEG_END, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA


def picture_files(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder in natural order: frame_2 before frame_10. Hidden files are left out.

    Raises:
        SourceError: the folder cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return tuple(sorted(files, key=_natural))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 BGR, read-only; grey ones have three equal channels, EXIF orientation is applied.

    What cannot be noticed: damage inside a JPEG that its decoder resynchronises over.

    Raises:
        SourceError: unreadable, truncated, or no picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return decoded_picture(content, where=str(path), kind=path.suffix.lower().strip("."))


def decoded_picture(content: bytes, *, where: str, kind: str) -> NDArray[np.uint8]:
    """The bytes of a picture file as (H, W, 3) uint8 BGR, read-only: see `read_picture`.

    Args:
        content: a whole JPEG, PNG, WebP …
        where: what holds it, for errors.
        kind: what it was said to be, for errors.

    Raises:
        SourceError: truncated, or no picture.
    """
    if not content:
        raise SourceError(f"{where}: is empty (0 bytes), expected a picture; copy it again or remove it")
    if content.startswith(_JPEG_START) and not _has_end(content):
        raise SourceError(f"{where}: JPEG ends inside its picture ({len(content)} bytes); copy it again or remove it")
    pixels = _decoded(content)
    if pixels is None:
        raise SourceError(
            f"{where}: cannot be decoded ({len(content)} bytes), expected a whole {kind} picture; copy or remove it"
        )
    pixels.flags.writeable = False
    return pixels


def _decoded(content: bytes) -> NDArray[np.uint8] | None:
    try:
        pixels: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None  # a header that promises an impossible size
    return pixels


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Digits compare as numbers, the rest as text; the name itself breaks ties such as 01 and 1."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _has_end(jpeg: bytes) -> bool:
    """Whether the end marker follows the start of the scan: a decoder fills the rest of a cut picture with grey.

    The segments before the scan are stepped over, since a thumbnail in one of them has an end marker of its own.
    """
    position = len(_JPEG_START)
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF and jpeg[position + 1] != _START_OF_SCAN:
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return jpeg.find(_JPEG_END, position) >= 0
