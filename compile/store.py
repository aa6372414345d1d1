"""Answers that cost time, kept on disk under what they depend on.

A search that was stopped goes on where it was, and the same search again is a matter of seconds. An answer is kept
under the digest of everything it was made from, this program's own code included, so a stale one cannot be found.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import JsonValue

import perception
from perception.errors import OutputError
from perception.files import json_bytes, sha256_of_bytes, write_atomically

MOST_BYTES = 4 << 30
DIGEST_CHARACTERS = 64

Key = Sequence[JsonValue]

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Store:
    """A folder of answers.

    Attributes:
        folder: None keeps nothing.
        recalled: answers found so far.
        made: answers made so far.
    """

    folder: Path | None
    recalled: int = 0
    made: int = 0

    def content(self, key: Key, make: Callable[[], bytes]) -> bytes:
        """The answer kept under a key; made and kept where there is none, or a damaged one."""
        path = self._path(key)
        found = None if path is None else _read(path)
        if found is not None:
            self.recalled += 1
            return found
        answer = make()
        self.made += 1
        if path is not None:
            self._keep(path, answer)
        return answer

    def document(self, key: Key, make: Callable[[], JsonValue]) -> JsonValue:
        """The same for JSON."""
        return cast("JsonValue", json.loads(self.content(key, lambda: json_bytes(make()))))

    def holds(self, key: Key) -> bool:
        """Whether a whole answer is kept under a key."""
        path = self._path(key)
        return path is not None and _read(path) is not None

    def tidy(self, most_bytes: int = MOST_BYTES) -> None:
        """Delete the answers that were not asked for the longest until the others fit."""
        if self.folder is None or not self.folder.is_dir():
            return
        seen = [(status.st_mtime, status.st_size, path) for path in self.folder.glob("??/*") if (status := path.stat())]
        total = sum(size for _, size, _ in seen)
        for _, size, path in sorted(seen):
            if total <= most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: Key) -> Path | None:
        if self.folder is None:
            return None
        digest = sha256_of_bytes(json_bytes([code_digest(), *key]))
        return self.folder / digest[:2] / digest[2:]

    def _keep(self, path: Path, answer: bytes) -> None:
        """A full or read-only disk costs the next search time, and this one nothing."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, sha256_of_bytes(answer).encode() + answer)
        except (OSError, OutputError) as error:
            _LOG.warning("the cache keeps nothing more: %s", error)
            self.folder = None


def default_folder() -> Path:
    """Where answers are kept if nothing else is asked for: `$XDG_CACHE_HOME/tollgate/compile`, else under `~/.cache`.

    Source: XDG Base Directory Specification 0.8.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate" / "compile"


@cache
def code_digest() -> str:
    """Digest of the sources that answers depend on."""
    here, vehicle = Path(__file__).parent, Path(perception.__file__).parent
    sources = sorted([*here.rglob("*.py"), *vehicle.rglob("*.py")])
    return sha256_of_bytes(b"\0".join(path.read_bytes() for path in sources))


def _read(path: Path) -> bytes | None:
    """An answer whose digest is right."""
    try:
        kept = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, answer = kept[:DIGEST_CHARACTERS], kept[DIGEST_CHARACTERS:]
    return answer if digest == sha256_of_bytes(answer).encode() else None
