"""Files that are written whole or not at all, and their digests."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perception.errors import OutputError, TollgateError


def sha256_of_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def json_bytes(content: object) -> bytes:
    """`content` as UTF-8 JSON with sorted keys and a final newline: equal content gives equal bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename.

    Raises:
        OutputError: the folder is missing, read-only or full; an earlier file at `path` is untouched.
    """
    with staged_file(path) as staged:
        staged.write_bytes(content)


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file that must not exist: whole under a hidden name, then linked, which never overwrites.

    Raises:
        FileExistsError: it exists, and is untouched.
        OutputError: the folder is read-only or full.
    """
    try:
        with _made_for(path):
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(mode)
                os.link(name, path)
            finally:
                Path(name).unlink()
            _fsync(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; on success it is flushed to disk and takes its place.

    For writers that need a path of their own (video encoders). On any exception, an interrupt included, the
    temporary file goes, with the folders that were made for it, and an earlier file at `path` is untouched.

    Raises:
        OutputError: the folder is read-only or full, or `path` is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is no file, and only files are replaced; choose another output path")
    with _named(path), _made_for(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        staged = Path(name)
        try:
            yield staged
            _fsync(staged)
            staged.chmod(0o644)
            staged.replace(path)
            _fsync(path.parent)
        finally:
            staged.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Lend a temporary folder beside `path`; on success it is flushed and takes its place, replacing an older one.

    On any exception, an interrupt included, the temporary folder goes, with those that were made for it, and an older
    folder at `path` is untouched.

    Raises:
        OutputError: the parent folder is read-only or full, or `path` is a file.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file, expected a folder or nothing; choose another output path")
    with _named(path), _made_for(path):
        staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield staged
            staged.chmod(0o755)
            _fsync_tree(staged)
            _take_place(staged, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def locked(path: Path, *, busy: TollgateError) -> Iterator[None]:
    """Hold a lock file while the block runs; the kernel drops the lock of a process that dies, however it dies.

    Raises:
        OutputError: the lock's folder is read-only or full.
        TollgateError: `busy`, where another process holds the lock.
    """
    with _named(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        yield


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: what was renamed in it stays renamed when the power goes.

    Raises:
        OSError: the disk fails.
    """
    _fsync(folder)


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The one sentence for a failed write."""
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written ({reason}); free space or choose a writable folder")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in one sentence what the disk complained about."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def _made_for(path: Path) -> Iterator[None]:
    """Make the folders above `path`; on any exception those that were missing go again, unless others use them."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def _take_place(staged: Path, path: Path) -> None:
    """Rename `staged` to `path`. An older folder steps aside first, and comes back if the rename fails."""
    if not path.exists():
        staged.replace(path)
        return
    aside = staged.with_name(staged.name + ".old")
    path.replace(aside)
    try:
        staged.replace(path)
    except OSError:
        aside.replace(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _fsync_tree(folder: Path) -> None:
    for child in folder.rglob("*"):
        _fsync(child)
    _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
