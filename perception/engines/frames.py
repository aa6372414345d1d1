"""What a pipeline asks of whatever takes its frames from pixels to results, stage by stage."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from perception.engines.lending import Pixels
from perception.model_spec import ModelSpec
from perception.results import Result


class FrameWay(Protocol):
    """The way of frames of any size through one engine: `bring`, `infer`, `result`, by one thread at a time."""

    @property
    def told(self) -> str:
        """Which way it is, in words."""

    def bring(self, pixels: Pixels) -> None:
        """Make a picture ready for the engine.

        Args:
            pixels: (H, W, 3) uint8, BGR; only read, and only until `result` has returned.

        Raises:
            EngineError: there is no room for pictures of this size.
        """

    def infer(self) -> None:
        """Run the engine on the picture brought last.

        Raises:
            EngineError: it failed.
        """

    def result(self) -> Result:
        """What the network says of that picture; shares no memory with the engine.

        Raises:
            EngineError: the network gave numbers that are none.
        """

    def lend(self, shape: tuple[int, ...]) -> Pixels | None:
        """A buffer of the engine's own to decode a picture of this shape into, from any thread; None where it has none.

        `bring` then copies nothing. The buffer comes back by itself when nobody holds it any more, nor a part of it.
        """

    def adopt(self, memory: Pixels) -> None:
        """Take pictures that lie in this memory from where they are; `told` says where that cannot be.

        Args:
            memory: (slots, bytes of a slot), C-contiguous, mapped to be written, a picture at the start of each slot.
                It stays the caller's, and is there until the engine is closed. Given before the first picture.
        """


@runtime_checkable
class TakesFrames(Protocol):
    """An engine that knows a better way for frames than tensors prepared on the CPU."""

    def open_frames(self, spec: ModelSpec, *, score_threshold: float) -> FrameWay:
        """Open that way; it is closed with the engine.

        Raises:
            EngineError: it cannot be opened.
        """
