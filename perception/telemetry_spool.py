"""Signed records wait here, in a folder with a bound, until there is a network.

One file a record, named by its sequence, whole or not there. When the folder grows beyond its bound the oldest
records go first. Uploading is idempotent: a record is put under its vehicle and sequence, and leaves the spool only
when the server has answered; a process that dies in between sends it again, to the same place.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from perception.errors import OutputError, RolloutError
from perception.files import cannot_write, write_atomically

MOST_BYTES = 32 * 1024 * 1024
NEXT = "next_sequence"
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What an upload did: records sent, records left, and why it stopped early, where it did."""

    sent: int
    left: int
    reason: str | None = None


class Spool:
    """The records of one vehicle that were not sent yet."""

    def __init__(self, folder: Path, vehicle_id: str, *, most_bytes: int = MOST_BYTES) -> None:
        """Open or make the spool.

        Args:
            folder: its own folder.
            vehicle_id: whose records these are.
            most_bytes: bound on the sum of the records' sizes.

        Raises:
            OutputError: the folder cannot be made.
        """
        self.folder, self.vehicle_id = folder, vehicle_id
        self._most_bytes = most_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error

    def reserve(self) -> int:
        """A sequence number nobody gets again, whatever happens next: it is on disk as used before it is returned.

        Raises:
            OutputError: the disk is full.
            RolloutError: the counter's file was damaged.
        """
        path = self.folder / NEXT
        try:
            sequence = int(path.read_text()) if path.exists() else 0
        except ValueError as error:
            raise RolloutError(f"{path}: holds no number; write one above every sequence sent before") from error
        write_atomically(path, str(sequence + 1).encode())
        return sequence

    def put(self, sequence: int, line: bytes) -> int:
        """Keep a record, and let go the oldest ones that no longer fit; returns how many went.

        Raises:
            OutputError: the disk is full; nothing that waited before is lost.
        """
        write_atomically(self.folder / f"{sequence:020d}.json", line)
        return self._trim()

    def pending(self) -> tuple[Path, ...]:
        """Records that wait, oldest first."""
        return tuple(sorted(self.folder.glob("[0-9]*.json")))

    def upload(self, base_url: str, *, timeout_s: float = TIMEOUT_S) -> Delivery:
        """Put every waiting record to `BASE/VEHICLE/SEQUENCE.json`, oldest first, until one does not get through.

        No network is no error: the records wait.

        Raises:
            ValueError: the address is not http or https.
            OutputError: a record that was sent cannot be removed.
        """
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url: got {base_url!r}, expected http://… or https://…")
        waiting = self.pending()
        for sent, path in enumerate(waiting):
            address = f"{base_url.rstrip('/')}/{quote(self.vehicle_id, safe='')}/{path.name}"
            reason = _put(address, path, timeout_s)
            if reason is not None:
                return Delivery(sent, len(waiting) - sent, reason)
            _remove(path)
        return Delivery(len(waiting), 0)

    def _trim(self) -> int:
        waiting = self.pending()
        sizes = [path.stat().st_size for path in waiting]
        excess, gone = sum(sizes) - self._most_bytes, 0
        while excess > 0 and gone < len(waiting) - 1:
            _remove(waiting[gone])
            excess -= sizes[gone]
            gone += 1
        return gone


def _put(address: str, path: Path, timeout_s: float) -> str | None:
    """Send one record; returns why it did not get through, None where it did."""
    try:
        content = path.read_bytes()
        request = urllib.request.Request(address, content, {"Content-Type": "application/json"}, method="PUT")
        with urllib.request.urlopen(request, timeout=timeout_s):
            return None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        return f"{address}: {error}"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror}); make the spool writable") from error
