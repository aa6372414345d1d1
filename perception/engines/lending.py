"""Buffers that an engine lends to whoever captures or decodes frames, so that no frame is copied on the host."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Lender:
    """A fixed set of equal buffers: out with a source, in use by the engine, or free.

    A buffer is lent by `lend`, filled by its borrower, named to the engine any number of times, and given back; or by
    `lend_while_held`, from any thread. All else is for one thread at a time.
    """

    def __init__(self, buffers: Sequence[Pixels]) -> None:
        """Own the buffers; all of them are free."""
        self._buffers = tuple(buffers)
        self._numbers = {buffer.ctypes.data: number for number, buffer in enumerate(self._buffers)}
        self._known = {id(buffer): number for number, buffer in enumerate(self._buffers)}
        self._free = list(reversed(range(len(self._buffers))))
        self._closed = False

    def lend(self) -> Pixels:
        """A free buffer; the borrower may write to it until it gives it back.

        Raises:
            RuntimeError: all are lent, or the lender is closed.
        """
        if self._closed:
            raise RuntimeError("frame buffers: the engine is closed, expected an open one; borrow before closing")
        if not self._free:
            raise RuntimeError(
                f"frame buffers: all {len(self._buffers)} are lent, expected a free one; give one back, or open more"
            )
        return self._buffers[self._free.pop()]

    def lend_while_held(self) -> Pixels | None:
        """A free buffer that comes back by itself when nobody holds it any more, nor a part of it; else None."""
        if self._closed:
            return None
        try:
            number = self._free.pop()
        except IndexError:
            return None
        buffer = self._buffers[number]
        # Every view of this array refers to it and not to the buffer below, since a memoryview lies between.
        held = np.frombuffer(buffer.data, np.uint8)
        weakref.finalize(held, self._free.append, number).atexit = False
        return held.reshape(buffer.shape)

    def give_back(self, pixels: Pixels) -> None:
        """Take a lent buffer back; its borrower may not touch it from here on.

        Raises:
            ValueError: it is none of these buffers.
            RuntimeError: it was not lent.
        """
        number = self.number_of(pixels)
        if number in self._free:
            raise RuntimeError(f"frame buffer {number}: given back twice, expected once for each time it was lent")
        self._free.append(number)

    def found(self, pixels: Pixels) -> int | None:
        """Which of these buffers it is; None for any other array, and for a part of one."""
        known = self._known.get(id(pixels))  # the buffers live as long as this lender: their identities are theirs
        if known is not None:
            return known
        number = self._numbers.get(pixels.ctypes.data)
        if number is None or pixels.shape != self._buffers[number].shape or not pixels.flags.c_contiguous:
            return None
        return number

    def number_of(self, pixels: Pixels) -> int:
        """Which buffer this is.

        Raises:
            ValueError: it is none of these buffers, or only a part of one.
        """
        number = self.found(pixels)
        if number is None:
            shape = list(self._buffers[0].shape) if self._buffers else []
            raise ValueError(
                f"frame {list(pixels.shape)}: is no buffer of this engine, expected one of shape {shape} that lend() "
                "gave; decode into that one"
            )
        return number

    def close(self) -> bool:
        """Lend nothing more; whether buffers are still out. The memory is freed when nobody holds any of it."""
        self._closed = True
        return len(self._free) < len(self._buffers)
