"""HTTP that distrusts the other side: nothing longer than promised, nothing slower than usable, resumed where it broke.

Metadata goes through `Fetcher`, which is python-tuf's interface. Files of a release go through `fetch_file`, which
keeps what it has: a download that breaks, or a vehicle that is switched off, goes on at the byte where it stopped. The
server is never believed: a file exists under its sha256 only after its bytes have it. A folder is read by the same
rules.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from perception.errors import UpdateError, VerificationError
from perception.files import cannot_write, sha256_of_file

_PIECE_BYTES = 1 << 16
_PARTIAL, _NOT_FOUND, _OUT_OF_RANGE = 206, 404, 416


@dataclass(frozen=True, slots=True)
class Pace:
    """What a connection must achieve.

    Attributes:
        connect_s: seconds to be reached.
        silence_s: seconds without one byte.
        window_s: the average is judged over so many seconds.
        slowest_bytes_per_s: slower than this average is as good as nothing.
    """

    connect_s: float = 10.0
    silence_s: float = 30.0
    window_s: float = 60.0
    slowest_bytes_per_s: float = 1024.0


class Fetcher(FetcherInterface):
    """Reads URLs in pieces, as python-tuf's client wants them."""

    def __init__(self, pace: Pace = Pace()) -> None:
        self._pace = pace
        timeout = urllib3.Timeout(connect=pace.connect_s, read=pace.silence_s)
        retries = urllib3.Retry(connect=1, read=0, redirect=3, status=0, other=0, backoff_factor=0.2)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=retries, headers={"Accept-Encoding": "identity"})

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.pieces(url)[1]

    def pieces(self, url: str, *, offset: int = 0) -> tuple[int, Iterator[bytes]]:
        """Ask for a URL from a byte on.

        Returns:
            The byte at which the answer begins (0 where the server does not resume), and its pieces.

        Raises:
            DownloadError: the server cannot be reached, or refuses; while reading also `SlowRetrievalError`.
        """
        headers = {**self._pool.headers, **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            response = self._pool.request("GET", url, headers=headers, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {_reason(error)}") from error
        if response.status >= 400:
            response.release_conn()
            raise DownloadHTTPError(f"{url}: HTTP status {response.status}", response.status)
        begins = offset if response.status == _PARTIAL else 0
        return begins, self._read(response, url)

    def _read(self, response: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
        began_s, received = time.monotonic(), 0
        try:
            while piece := response.read1(_PIECE_BYTES):
                yield piece
                received += len(piece)
                passed_s = time.monotonic() - began_s
                if passed_s < self._pace.window_s:
                    continue
                if received < passed_s * self._pace.slowest_bytes_per_s:
                    raise SlowRetrievalError(f"{url}: {received} bytes in {passed_s:.0f} s")
                began_s, received = time.monotonic(), 0
        except urllib3.exceptions.TimeoutError as error:
            raise SlowRetrievalError(f"{url}: nothing for {self._pace.silence_s:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise DownloadError(f"{url}: {_reason(error)}") from error
        finally:
            response.close()


class FolderFetcher(Fetcher):
    """The same from a folder: a stick in a workshop, or a repository that is checked before it is served."""

    def pieces(self, url: str, *, offset: int = 0) -> tuple[int, Iterator[bytes]]:
        """See `Fetcher.pieces`; `url` is a path."""
        path = Path(url)
        if not path.is_file():
            raise DownloadHTTPError(f"{path}: is not there", _NOT_FOUND)
        return offset, _pieces_of(path, offset)


def fetcher_for(url: str) -> Fetcher:
    """The one that reads a repository: at http:// or https://, or in a folder."""
    return Fetcher() if url.startswith(("http://", "https://")) else FolderFetcher()


def _pieces_of(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(_PIECE_BYTES):
                yield piece
    except OSError as error:
        raise DownloadError(f"{path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Wish:
    """One file wanted: where it is, how long and what its sha256 must be."""

    url: str
    bytes: int
    sha256: str


def fetch_file(fetcher: Fetcher, wish: Wish, folder: Path) -> Path:
    """Bring a file into `folder`, under its sha256; what is there already is used, a part is continued.

    A part that turns out wrong is thrown away and fetched once more from its first byte.

    Raises:
        VerificationError: the server sends more than promised, less, or other bytes.
        DownloadError: the server cannot be reached, or is too slow; the part stays.
        OutputError: the disk is full.
    """
    whole, part = folder / wish.sha256, folder / f"{wish.sha256}.part"
    if whole.exists():
        if sha256_of_file(whole) == wish.sha256:
            return whole
        whole.unlink()
    resumed = part.exists()
    _continue(fetcher, wish, part)
    if resumed and sha256_of_file(part) != wish.sha256:
        part.unlink()
        _continue(fetcher, wish, part)
    if (got := sha256_of_file(part)) != wish.sha256:
        part.unlink()
        raise VerificationError(
            f"{wish.url}: got sha256 {got[:16]}…, signed is {wish.sha256[:16]}…: swapped or damaged "
            "on the server; nothing on this vehicle changed"
        )
    part.replace(whole)
    return whole


def _continue(fetcher: Fetcher, wish: Wish, part: Path) -> None:
    """Append to `part` until it has the promised length."""
    have = part.stat().st_size if part.exists() else 0
    if have > wish.bytes:
        part.unlink()
        have = 0
    if have == wish.bytes and have:
        return
    try:
        begins, pieces = fetcher.pieces(wish.url, offset=have)
    except DownloadHTTPError as error:
        if error.status_code != _OUT_OF_RANGE or not have:
            raise
        begins, pieces = fetcher.pieces(wish.url)
    length = _append(part, pieces, begins=begins, wish=wish)
    if length < wish.bytes:
        raise UpdateError(
            f"{wish.url}: got {length} of {wish.bytes} bytes: truncated, or the connection broke; what came is kept, "
            "and the next attempt goes on from there"
        )


def _append(part: Path, pieces: Iterator[bytes], *, begins: int, wish: Wish) -> int:
    length = begins
    try:
        with part.open("r+b" if begins else "wb") as file:
            file.seek(begins)
            for piece in pieces:
                length += len(piece)
                if length > wish.bytes:
                    break
                file.write(piece)
            file.truncate()
    except OSError as error:
        raise cannot_write(part, error) from error
    if length > wish.bytes:
        part.unlink()
        raise VerificationError(
            f"{wish.url}: the server sends more than the {wish.bytes} bytes that are signed (endless data); "
            "nothing on this vehicle changed"
        )
    return length


def _reason(error: Exception) -> str:
    """The innermost cause in one line: urllib3 wraps it several times."""
    cause: BaseException = getattr(error, "reason", None) or error
    return " ".join(str(cause).split())
