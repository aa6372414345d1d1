"""One digest for a whole recording, whatever its kind."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from perception.errors import SourceError
from perception.files import sha256_of_file


def sha256_of_recording(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, or of everything in a folder.

    For a folder it is the digest of one line a file, `DIGEST  NAME` as `sha256sum` writes it, in order of the names
    relative to the folder; where the folder lies and what it is called do not count.

    Raises:
        SourceError: something in it cannot be read.
    """
    try:
        if not path.is_dir():
            return sha256_of_file(path)
        names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{sha256_of_file(path / name)}  {name}\n" for name in names)
    except OSError as error:
        raise SourceError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error
    return sha256(listing.encode()).hexdigest()
