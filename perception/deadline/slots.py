"""Frames in memory that the engines' processes see too: written once, by whoever delivers them, and never sent."""

from __future__ import annotations

import mmap
import os
from collections import deque

import numpy as np
from numpy.typing import NDArray


class Slots:
    """A fixed number of equal places for pictures in anonymous shared memory.

    `put` may be called from any one thread while another calls `hold` and `release`.
    """

    def __init__(self, count: int, slot_bytes: int) -> None:
        """Reserve the memory.

        Raises:
            OSError: there is not so much.
        """
        self.slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.file = os.memfd_create("tollgate-frames")
        os.ftruncate(self.file, count * self.slot_bytes)
        self._memory = mmap.mmap(self.file, count * self.slot_bytes)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8).reshape(count, self.slot_bytes)
        self._bytes[:] = 0  # every page is there before the first frame comes
        self._holders = [0] * count
        self._free = deque(range(count))

    def put(self, pixels: NDArray[np.uint8]) -> int | None:
        """Copy a picture into a free slot, held once; None where none is free or the picture is too large."""
        if pixels.nbytes > self.slot_bytes:
            return None
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        self._holders[slot] = 1
        np.copyto(self._bytes[slot, : pixels.nbytes].reshape(pixels.shape), pixels)
        return slot

    def hold(self, slot: int) -> None:
        """One more holder."""
        self._holders[slot] += 1

    def release(self, slot: int) -> None:
        """One holder less; the last one frees it."""
        self._holders[slot] -= 1
        if self._holders[slot] == 0:
            self._free.append(slot)

    @property
    def free(self) -> int:
        """How many are free."""
        return len(self._free)

    def close(self) -> None:
        """Give the memory back. A second call does nothing."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


class SeenSlots:
    """The same memory, as an engine's process sees it: to be read only.

    Attributes:
        memory: (slots, bytes of a slot); mapped to be written, since a GPU locks no other pages.
    """

    def __init__(self, file: int, slot_bytes: int) -> None:
        """Map an inherited file."""
        self.memory: NDArray[np.uint8] = np.frombuffer(mmap.mmap(file, 0), np.uint8).reshape(-1, slot_bytes)
        self.memory.flags.writeable = False

    def pixels(self, slot: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
        """(height_px, width_px, 3) uint8; valid until the slot is released in the process that owns it."""
        return self.memory[slot, : height_px * width_px * 3].reshape(height_px, width_px, 3)
