"""Frames brought into an engine's own buffers before they are asked for, so that nobody waits for the copy."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from perception.frame import Frame
from perception.pipeline import Pipeline
from perception.sources.prefetch import Ahead
from perception.sources.source import Camera, FrameSource

_FRAMES_AHEAD = 2  # with one in this thread's hands and one in the reader's: all that an engine lends


class Lent:
    """A source whose frames lie where its reader's pipeline wants them; a thread of its own brings them there."""

    def __init__(self, source: FrameSource, pipeline: Pipeline) -> None:
        """Wrap an open source, which from now on is closed through this; the pipeline stays the caller's."""
        self.cameras: tuple[Camera, ...] = source.cameras
        self._source, self._pipeline = source, pipeline

    def frames(self) -> Generator[Frame]:
        """See `FrameSource.frames`. A failure arrives after the frames that were read before it."""
        ahead = Ahead(self._brought(), _FRAMES_AHEAD, name="lend buffers")
        try:
            yield from ahead
        finally:
            ahead.stop()

    def close(self) -> None:
        """See `FrameSource.close`."""
        self._source.close()

    def _brought(self) -> Generator[Frame]:
        for frame in self._source.frames():
            buffer = self._pipeline.lend(frame.pixels.shape)
            if buffer is None:
                yield frame
                continue
            np.copyto(buffer, frame.pixels)
            buffer.flags.writeable = False
            yield replace(frame, pixels=buffer)
            del buffer


def lent(source: FrameSource, pipeline: Pipeline) -> FrameSource:
    """The source as a pipeline is best served: through buffers of its engine, where it lends any."""
    return Lent(source, pipeline) if pipeline.lends else source
