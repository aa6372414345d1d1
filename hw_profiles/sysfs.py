"""Small files of the kernel: one value each, absent on most machines. Absence is an answer here, so nothing raises."""

from __future__ import annotations

from pathlib import Path


def text_of(path: Path) -> str | None:
    """Content without surrounding blanks and NUL bytes; None where it is missing, unreadable or empty.

    A sensor that is powered down answers a read with an error: that is None as well.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content.decode("utf-8", errors="replace").strip("\0 \t\r\n") or None


def integer_of(path: Path) -> int | None:
    """Content as a whole number; None where it is missing or something else."""
    text = text_of(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def entries_of(folder: Path, pattern: str) -> tuple[Path, ...]:
    """Children matching `pattern`, sorted by name; none where the folder is missing."""
    return tuple(sorted(folder.glob(pattern)))
