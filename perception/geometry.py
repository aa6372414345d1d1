"""Where a point of the source picture lies in the picture the network sees, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SizePx: TypeAlias = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True, slots=True)
class Geometry:
    """network_from_source: `x_network = x_source * scale_x + offset_x_px`, and the same for y.

    Attributes:
        scale_x: network pixels per source pixel along x.
        scale_y: network pixels per source pixel along y.
        offset_x_px: columns of padding left of the content, in network pixels.
        offset_y_px: rows of padding above the content, in network pixels.
        content_width_px: columns of the network's picture that show the source; the rest is padding.
        content_height_px: rows of the network's picture that show the source.
    """

    scale_x: float
    scale_y: float
    offset_x_px: int
    offset_y_px: int
    content_width_px: int
    content_height_px: int
    _scales: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _offsets: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay both out as boxes are: x y x y."""
        object.__setattr__(self, "_scales", np.array((self.scale_x, self.scale_y) * 2, np.float32))
        object.__setattr__(self, "_offsets", np.array((self.offset_x_px, self.offset_y_px) * 2, np.float32))

    def to_source(self, boxes_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) x1 y1 x2 y2 from network pixels to source pixels; a new array."""
        source: NDArray[np.float32] = (boxes_px - self._offsets) / self._scales
        return source

    def to_network(self, boxes_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) x1 y1 x2 y2 from source pixels to network pixels; a new array."""
        network: NDArray[np.float32] = boxes_px * self._scales + self._offsets
        return network


def letterbox(source_size_px: SizePx, network_size_px: SizePx, *, centred: bool) -> Geometry:
    """Keep the picture's proportions, its sides rounded down, and pad the rest.

    The scales are those of the rounded content: where the content lost part of a pixel, dividing boxes by the
    unrounded ratio, as demo code does, would shift them by up to that part times the ratio.

    Args:
        source_size_px: width and height of the source picture.
        network_size_px: width and height of the network's picture.
        centred: pad on all sides; otherwise right and below only.

    Source: Megvii-BaseDetection/YOLOX `yolox/data/data_augment.py` (top left); opencv/opencv_zoo
        `models/object_detection_nanodet/demo.py` (centred).
    """
    (source_width_px, source_height_px), (network_width_px, network_height_px) = source_size_px, network_size_px
    width_px = min(network_width_px, max(1, source_width_px * network_height_px // source_height_px))
    height_px = min(network_height_px, max(1, source_height_px * network_width_px // source_width_px))
    left_px = (network_width_px - width_px) // 2 if centred else 0
    top_px = (network_height_px - height_px) // 2 if centred else 0
    return _placed(source_size_px, (width_px, height_px), left_px, top_px)


def stretch(source_size_px: SizePx, network_size_px: SizePx) -> Geometry:
    """Fill the network's picture, whatever that does to the proportions."""
    return _placed(source_size_px, network_size_px, 0, 0)


RESIZES: dict[str, Callable[[SizePx, SizePx], Geometry]] = {
    "letterbox_top_left": partial(letterbox, centred=False),
    "letterbox_centre": partial(letterbox, centred=True),
    "stretch": stretch,
}


def _placed(source_size_px: SizePx, content_size_px: SizePx, left_px: int, top_px: int) -> Geometry:
    (width_px, height_px), (source_width_px, source_height_px) = content_size_px, source_size_px
    return Geometry(width_px / source_width_px, height_px / source_height_px, left_px, top_px, width_px, height_px)
