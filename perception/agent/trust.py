"""What the repository says, believed by the rules of The Update Framework, with one sentence for each way to fail.

The trusted metadata only ever moves forward, also where a later step fails: a root that revokes a key, once seen, is
never forgotten. Nothing here touches a slot.

Time: metadata expires by this machine's clock. A clock that runs behind would let an attacker freeze a vehicle on old
metadata, so time is never taken to be earlier than at the last refresh that succeeded.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api import exceptions as tuf_errors
from tuf.ngclient import Updater

from perception.agent.download import Fetcher, Wish, fetch_file
from perception.agent.index import MOST_DOCUMENT_BYTES
from perception.errors import UpdateError, VerificationError
from perception.files import cannot_write

if TYPE_CHECKING:
    from collections.abc import Iterator

_CALM = "nothing on this vehicle changed"


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which failure of the client, told by class and words, means what."""

    error: type[Exception]
    words: str
    sentence: str


_RULES = (
    _Rule(
        tuf_errors.ExpiredMetadataError,
        r"timestamp|snapshot",
        "{what} expired: somebody freezes this vehicle on old metadata, or its owner did not refresh it, or this clock "
        "({now}) is ahead; check the clock, else run: tollgate release refresh",
    ),
    _Rule(
        tuf_errors.ExpiredMetadataError,
        r"root|targets",
        "{what} expired by this clock ({now}); check the clock, else its owner must sign it anew",
    ),
    _Rule(
        tuf_errors.BadVersionNumberError,
        r"New \w+ version|Expected [\w.]+\.json version",
        "rollback attack: the repository shows metadata older than this vehicle has seen ({what})",
    ),
    _Rule(
        tuf_errors.BadVersionNumberError,
        r"Expected root",
        "the repository's chain of roots has a gap ({what}); fetch from another mirror",
    ),
    _Rule(
        tuf_errors.BadVersionNumberError,
        r"",
        "mix-and-match attack: the repository shows parts of different states ({what})",
    ),
    _Rule(
        tuf_errors.LengthOrHashMismatchError,
        r"",
        "mix-and-match attack: metadata is not the file that the signed metadata above it names ({what})",
    ),
    _Rule(
        tuf_errors.UnsignedMetadataError,
        r"",
        "not signed by enough keys that this vehicle trusts ({what}): a revoked, lost or foreign key signed it",
    ),
    _Rule(
        tuf_errors.DownloadLengthMismatchError,
        r"",
        "endless data: the server sends more metadata than any repository needs ({what})",
    ),
    _Rule(tuf_errors.RepositoryError, r"", "the repository's metadata is damaged ({what})"),
)
_NETWORK_RULES = (
    _Rule(
        tuf_errors.SlowRetrievalError,
        r"",
        "slow retrieval: the server sends too slowly to be of use ({what}); this vehicle tries again later",
    ),
    _Rule(
        tuf_errors.DownloadHTTPError,
        r"",
        "the server does not give what it should have ({what}); check the repository's address",
    ),
    _Rule(
        tuf_errors.DownloadError,
        r"",
        "the server cannot be reached ({what}); this vehicle runs on as it is and tries again later",
    ),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where releases come from, and what this vehicle believes from its first day.

    Attributes:
        url: of the repository's folder, which holds `metadata` and `targets`.
        root: the root metadata that was put on the vehicle when it was made.
    """

    url: str
    root: bytes


class Repository:
    """A repository whose metadata verified; the only way to one is `refreshed`."""

    def __init__(self, updater: Updater, origin: Origin, fetcher: Fetcher) -> None:
        self._updater = updater
        self._origin = origin
        self._fetcher = fetcher

    def wish(self, name: str) -> Wish | None:
        """Where a target is and what it must be; None where the repository has none of that name."""
        target = self._updater.get_targetinfo(name)
        if target is None:
            return None
        sha256 = target.hashes["sha256"]
        folder, _, file = name.rpartition("/")
        place = f"{folder}/{sha256}.{file}" if folder else f"{sha256}.{file}"
        return Wish(f"{self._origin.url.rstrip('/')}/targets/{place}", target.length, sha256)

    def fetch(self, name: str, folder: Path) -> Path:
        """Bring a target into `folder`, under its sha256.

        Raises:
            VerificationError: it is not what is signed, or not signed at all.
            UpdateError: the server cannot be reached, or is too slow.
            OutputError: the disk is full.
        """
        wish = self.wish(name)
        if wish is None:
            raise VerificationError(f"{name}: the signed metadata names no such file; {_CALM}")
        with _told(self._origin.url, now=None):
            return fetch_file(self._fetcher, wish, folder)

    def document(self, name: str, folder: Path) -> bytes | None:
        """The bytes of a small target; None where the repository has none of that name.

        Raises:
            VerificationError: larger than a document can be; else as `fetch`.
        """
        wish = self.wish(name)
        if wish is None:
            return None
        if wish.bytes > MOST_DOCUMENT_BYTES:
            raise VerificationError(f"{name}: got {wish.bytes} bytes, expected at most {MOST_DOCUMENT_BYTES}; {_CALM}")
        return self.fetch(name, folder).read_bytes()


def refreshed(folder: Path, origin: Origin, *, fetcher: Fetcher, now_s: int) -> Repository:
    """Bring the trusted metadata up to date.

    Args:
        folder: the trusted metadata; made at the first call.
        origin: where from.
        fetcher: how.
        now_s: the time to hold expiry against, seconds since 1970.

    Raises:
        VerificationError: what the repository shows is not to be believed.
        UpdateError: the repository cannot be reached.
        OutputError: the disk is full.
    """
    now = datetime.fromtimestamp(now_s, timezone.utc)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_torn(folder)
        with _told(origin.url, now=now):
            updater = Updater(
                str(folder), f"{origin.url.rstrip('/')}/metadata/", fetcher=fetcher, bootstrap=origin.root
            )
            # The client has no parameter for it, and asks the system's clock, which may run behind.
            updater._trusted_set.reference_time = now
            updater.refresh()
        _flush(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return Repository(updater, origin, fetcher)


@contextmanager
def _told(url: str, *, now: datetime | None) -> Iterator[None]:
    """Turn the client's exceptions into sentences."""
    try:
        yield
    except (tuf_errors.RepositoryError, tuf_errors.DownloadLengthMismatchError) as error:
        raise VerificationError(f"{url}: {_sentence(_RULES, error, now)}; {_CALM}") from error
    except tuf_errors.DownloadError as error:
        raise UpdateError(f"{url}: {_sentence(_NETWORK_RULES, error, now)}") from error


def _sentence(rules: tuple[_Rule, ...], error: Exception, now: datetime | None) -> str:
    words = " ".join(str(error).split())
    rule = next(rule for rule in rules if isinstance(error, rule.error) and re.search(rule.words, words))
    return rule.sentence.format(
        what=words.removesuffix(" is expired").rstrip("."), now=f"{now:%Y-%m-%d}" if now else ""
    )


def _remove_torn(folder: Path) -> None:
    """What the client leaves where it was killed while writing."""
    for path in folder.glob("tmp*"):
        with suppress(FileNotFoundError):
            path.unlink()


def _flush(folder: Path) -> None:
    """The client renames without flushing; what was believed must outlast a power cut."""
    for path in (*folder.rglob("*.json"), folder / "root_history", folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
