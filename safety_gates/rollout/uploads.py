"""Where signed records come from: a folder, or an object store by its own protocol.

A store is listed a thousand objects a request, and what is new is read with one request an object, many at once, into
a folder for the time it takes. A folder or store that fails on the way ends the reading: what cannot be read now must
not be taken for read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from perception.errors import RolloutError
from perception.files import cannot_write

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PARQUET = ".parquet"
SUFFIXES = (".json", ".jsonl", ".ndjson", PARQUET)
SCHEMES = ("s3", "gs", "az", "abfss")
AT_ONCE = 64
MOST_AHEAD_BYTES = 256 * 1024 * 1024
_BACKOFF = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
_RETRIES = {"max_retries": 5, "retry_timeout": timedelta(minutes=1), "backoff": _BACKOFF}


@dataclass(frozen=True, slots=True)
class Upload:
    """One file with records.

    Attributes:
        key: its path within the source.
        name: its path among all sources.
        bytes: its size.
        version: what differs once other bytes stand under the name: instant of writing in nanoseconds, or the
            store's tag.
    """

    key: str
    name: str
    bytes: int
    version: int | str


class Uploads(Protocol):
    """A place that vehicles' records are put to."""

    def files(self) -> list[Upload]:
        """What is there now, in the order of the keys' parts.

        Raises:
            RolloutError: there is no such place, or it cannot be listed.
        """

    def read(self, files: Sequence[Upload], scratch: Path) -> Iterator[Path]:
        """Each file in turn, as a path that holds until the next one; `scratch` is a folder for copies.

        Raises:
            RolloutError: the place went away.
            OutputError: `scratch` is full.
        """


def uploads_at(where: str) -> Uploads:
    """A folder by its path, or an object store by its URL.

    Raises:
        RolloutError: neither, or the library for stores is missing.
    """
    scheme, separator, _ = where.partition("://")
    if not separator:
        return UploadFolder(Path(where))
    if scheme not in SCHEMES:
        raise RolloutError(f"{where}: expected a folder, or a store at {', '.join(f'{each}://' for each in SCHEMES)}")
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise RolloutError(f"{where}: obstore is not installed; run: pip install 'tollgate[store]'") from error
    try:
        store = from_url(where, client_options={"allow_http": True}, retry_config=_RETRIES)  # type: ignore[call-overload]
    except (BaseError, ValueError) as error:
        raise _refused(where, error) from error
    return UploadStore(where.rstrip("/"), store)


@dataclass(frozen=True, slots=True)
class UploadFolder:
    """A folder, searched through."""

    folder: Path

    def files(self) -> list[Upload]:
        """See `Uploads.files`."""
        if not self.folder.is_dir():
            raise RolloutError(f"{self.folder}: is no folder, expected one with signed records (JSON lines or Parquet)")
        try:
            found = (path for path in self.folder.rglob("*") if _is_upload(path) and path.is_file())
            return _in_order(map(self._upload, found))
        except OSError as error:
            raise unreadable(self.folder, error) from error

    def read(self, files: Sequence[Upload], scratch: Path) -> Iterator[Path]:
        """See `Uploads.read`; they are read where they lie."""
        for file in files:
            path = Path(file.name)
            try:
                path.open("rb").close()
            except OSError as error:
                raise unreadable(path, error) from error
            yield path

    def _upload(self, path: Path) -> Upload:
        status = path.stat()
        key = path.relative_to(self.folder).as_posix()
        return Upload(key, str(path.resolve()), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class UploadStore:
    """A bucket, or what of it begins with a prefix."""

    url: str
    store: ObjectStore

    def files(self) -> list[Upload]:
        """See `Uploads.files`. Nothing under a prefix is an error, since a wrong prefix looks the same."""
        import obstore

        try:
            found = [
                Upload(
                    each["path"],
                    f"{self.url}/{each['path']}",
                    each["size"],
                    each["e_tag"] or each["last_modified"].isoformat(),
                )
                for page in obstore.list(self.store)
                for each in page
                if _is_upload(PurePosixPath(each["path"]))
            ]
        except obstore.exceptions.BaseError as error:
            raise _refused(self.url, error) from error
        if not found:
            raise RolloutError(f"{self.url}: holds no {', '.join(SUFFIXES)}; check the bucket and the prefix")
        return _in_order(found)

    def read(self, files: Sequence[Upload], scratch: Path) -> Iterator[Path]:
        """See `Uploads.read`."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for copied in self._ahead(pool, files, scratch):
                    path = copied.result()
                    yield path
                    path.unlink()
            finally:
                pool.shutdown(cancel_futures=True)

    def _ahead(self, pool: ThreadPoolExecutor, files: Iterable[Upload], scratch: Path) -> Iterator[Future[Path]]:
        """Copies in the order of the files, begun while earlier ones are read."""
        begun: deque[tuple[Future[Path], int]] = deque()
        for number, file in enumerate(files):
            copy = scratch / f"{number}{PurePosixPath(file.key).suffix}"
            begun.append((pool.submit(self._copied, file, copy), file.bytes))
            while len(begun) > AT_ONCE or sum(size for _, size in begun) > MOST_AHEAD_BYTES:
                yield begun.popleft()[0]
        for copied, _ in begun:
            yield copied

    def _copied(self, file: Upload, copy: Path) -> Path:
        import obstore

        try:
            pieces = obstore.get(self.store, file.key).stream()
            with copy.open("wb") as out:
                out.writelines(pieces)
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise _refused(file.name, error) from error
        except OSError as error:
            raise cannot_write(copy, error) from error
        return copy


def unreadable(path: Path, error: OSError) -> RolloutError:
    """The one sentence for a file that is there and cannot be read, or no longer."""
    return RolloutError(f"{path}: cannot be read ({error.strerror}); nothing was counted, run it again")


def _is_upload(path: PurePath) -> bool:
    """By its name; a hidden one is what somebody is still writing."""
    return path.suffix in SUFFIXES and not path.name.startswith(".")


def _in_order(files: Iterable[Upload]) -> list[Upload]:
    return sorted(files, key=lambda file: file.key.split("/"))


def _refused(where: str, error: Exception) -> RolloutError:
    """What a store complained about, in one line; it answers in XML, and the library adds its innards."""
    text = str(error)
    if "/latest/api/token" in text:
        return RolloutError(f"{where}: no credentials in the environment, none from this machine; nothing was counted")
    answer = re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL)
    asked = re.search(r"(?:GET|PUT|HEAD) ([^\s?]+)", text)
    causes = [text.partition("\n")[0].rpartition(" - ")[2], *re.findall(r'(?:message|error): "([^"]+)"', text)]
    reason = ": ".join(answer.groups()) if answer else causes[-1]
    return RolloutError(
        f"{where}: {f'{asked[1]}: ' if asked else ''}{reason}; nothing was counted: check the bucket, the "
        "credentials and the endpoint in the environment (docs/rollout.md, Telemetry), then run it again"
    )
