"""Decoded video pictures → BGR, in memory that is lent and taken back."""

from __future__ import annotations

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

_ROTATIONS = {
    0: (),
    90: (("transpose", "cclock"),),
    180: (("hflip", None), ("vflip", None)),
    270: (("transpose", "clock"),),
}
_IN_PLACE = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p"}


class Converter:
    """Turns decoded pictures into upright BGR, in buffers that FFmpeg's filters lend from a pool and take back.

    A picture's buffer returns to the pool when nobody holds its pixels any more, so a loop that lets go of its frames
    runs in two or three buffers, whatever their size and the recording's length. One filter graph serves all pictures
    of a kind, on this thread: one thread a picture would wake every core at two to four times the cost.

    Rare kinds (10 bits, odd heights) get a buffer a picture: their colours lie where the file says, which the filters
    cannot be asked to follow, so a scaler reads them first.
    """

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] = ()

    def pixels(self, picture: VideoFrame, rotation: int = 0) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR, read-only, turned counter-clockwise by `rotation`; rows may be padded in memory."""
        if not _is_converted_in_place(picture):
            picture = self._scaler.reformat(picture, format="bgr24", threads=1)
        size_px = (picture.width, picture.height)
        kind = (*size_px, picture.format.name, picture.colorspace, picture.color_range, rotation)
        if self._graph is None or self._kind != kind:
            self._graph, self._kind = _filters(picture, rotation), kind
        self._graph.vpush(picture)
        shown = self._graph.vpull()
        plane = shown.planes[0]
        rows = np.frombuffer(plane, np.uint8)
        shape, strides = (shown.height, shown.width, 3), (plane.line_size, 3, 1)
        return np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)


def _is_converted_in_place(picture: VideoFrame) -> bool:
    """Whether each colour sample simply serves the pixels over it, wherever the file says it was taken."""
    return picture.format.name in _IN_PLACE and picture.height % 2 == 0


def _filters(picture: VideoFrame, rotation: int) -> av.filter.Graph:
    """From the decoder's format to BGR, then upright.

    Transfer and primaries are hidden from the scaler: it converts neither here, but refuses kinds it cannot convert.
    """
    graph = av.filter.Graph()
    graph.threads = 1
    steps = [
        graph.add(
            "buffer",
            video_size=f"{picture.width}x{picture.height}",
            pix_fmt=picture.format.name,
            time_base=str(picture.time_base),
            colorspace=str(int(picture.colorspace)),
            range=str(int(picture.color_range)),
        ),
        graph.add("setparams", "color_trc=unknown:color_primaries=unknown"),
        graph.add("scale", "flags=bilinear:interl=-1"),
        graph.add("format", "bgr24"),
        *(graph.add(name, setting) for name, setting in _ROTATIONS[rotation]),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*steps).configure()
    return graph
