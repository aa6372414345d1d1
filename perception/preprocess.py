"""From a camera's pixels to the tensors a network is fed, exactly as the network's authors fed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.area import AreaShrinker, is_near_opencv
from perception.engines.engine import Tensors
from perception.geometry import RESIZES, Geometry
from perception.model_spec import PictureInput, SizeInput

_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one picture became.

    Attributes:
        feeds: input name → tensor. They belong to the Preprocessor and hold until its next `prepare`.
        geometry: where the picture lies inside the network's picture.
    """

    feeds: Tensors
    geometry: Geometry


class Preprocessor:
    """Resizes, orders, normalises and pads pictures into tensors that are allocated once, here.

    Only a picture of another size than the one before it makes new buffers and draws the padding anew.
    One thread at a time.
    """

    def __init__(self, picture: PictureInput, size_input: SizeInput | None = None) -> None:
        self._picture = picture
        self._tensor: NDArray[np.generic] = np.zeros(picture.shape, picture.dtype)
        self._feeds: dict[str, NDArray[np.generic]] = {picture.tensor: self._tensor}
        if size_input is not None:
            self._feeds[size_input.tensor] = size_tensor(picture, size_input)
        self._tables = _normalisation_tables(picture)
        self._interpolation = _INTERPOLATIONS[picture.interpolation]
        self._shrinker: AreaShrinker | None = None
        self._source_shape: tuple[int, ...] = ()

    def prepare(self, pixels: NDArray[np.uint8]) -> Prepared:
        """Fill the input tensors from one picture.

        Args:
            pixels: (H, W, 3) uint8, BGR; only read, and only during the call.
        """
        if pixels.shape != self._source_shape:
            self._lay_out(pixels.shape)
        parts = self._resize(pixels) if self._shrinker is None else self._shrink(self._shrinker, pixels)
        for part, target, table in zip(parts, self._targets, self._tables, strict=True):
            _normalise(part, target, table)
        return self._prepared

    def _resize(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        """The picture in the network's size, order and layout: three planes (NCHW) or one whole (NHWC)."""
        cv2.resize(pixels, self._resized.shape[1::-1], dst=self._resized, interpolation=self._interpolation)
        if self._picture.colour == "RGB":
            cv2.cvtColor(self._resized, cv2.COLOR_BGR2RGB, dst=self._resized)
        if self._picture.layout == "NHWC":
            return [self._resized]
        return cv2.split(self._resized, self._planes)

    def _shrink(self, shrinker: AreaShrinker, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        """The same by area average."""
        planes = shrinker.shrink(pixels)
        if self._picture.colour == "RGB":
            planes.reverse()
        return planes if self._picture.layout == "NCHW" else [cv2.merge(planes, dst=self._resized)]

    def _lay_out(self, source_shape: tuple[int, ...]) -> None:
        """Everything that follows from the size of the source picture: content buffers, views, padding."""
        picture = self._picture
        network_size_px = (picture.width_px, picture.height_px)
        geometry = RESIZES[picture.resize]((source_shape[1], source_shape[0]), network_size_px)
        size = (geometry.content_height_px, geometry.content_width_px)
        self._resized = np.empty((*size, 3), np.uint8)
        rows = slice(geometry.offset_y_px, geometry.offset_y_px + geometry.content_height_px)
        columns = slice(geometry.offset_x_px, geometry.offset_x_px + geometry.content_width_px)
        wholes = list(self._tensor[0]) if picture.layout == "NCHW" else [self._tensor[0]]
        self._planes = [np.empty(size, np.uint8) for _ in range(3)]
        self._targets = [whole[rows, columns] for whole in wholes]
        sizes_px = (source_shape[1], source_shape[0]), (size[1], size[0])
        shrinks = picture.interpolation == "area" and is_near_opencv(*sizes_px)
        self._shrinker = AreaShrinker(*sizes_px) if shrinks else None
        self._draw_padding(wholes)
        self._prepared = Prepared(self._feeds, geometry)
        self._source_shape = source_shape

    def _draw_padding(self, wholes: list[NDArray[np.generic]]) -> None:
        for whole, table in zip(wholes, self._tables, strict=True):
            _normalise(np.full(whole.shape, self._picture.pad_value, np.uint8), whole, table)


def _normalisation_tables(picture: PictureInput) -> list[NDArray[np.generic] | None]:
    """What each of the 256 pixel values becomes: a table a plane (NCHW) or one of three channels (NHWC).

    None where a pixel keeps its value: a uint8 input normalises inside the graph.
    """
    values = np.arange(256)[:, None]
    tables = ((values * picture.scale - picture.mean) / picture.std).astype(picture.dtype)
    count = 3 if picture.layout == "NCHW" else 1
    if picture.dtype == "uint8" or (picture.dtype == "float32" and (tables == values).all()):
        return [None] * count
    return [np.ascontiguousarray(part)[None] for part in (tables.T if count == 3 else [tables])]


def _normalise(pixels: NDArray[np.uint8], target: NDArray[np.generic], table: NDArray[np.generic] | None) -> None:
    """Write pixels into their place in the tensor."""
    if table is None:
        np.copyto(target, pixels)
    elif table.dtype == np.float16:  # a look-up only moves bits, and not every OpenCV knows half precision
        cv2.LUT(pixels, table.view(np.uint16), dst=target.view(np.uint16))
    else:
        cv2.LUT(pixels, table, dst=target)


def size_tensor(picture: PictureInput, size_input: SizeInput) -> NDArray[np.generic]:
    """(1, 2): the network's own input size, in the order the network asks for."""
    size = (picture.width_px, picture.height_px)
    return np.array([size if size_input.order == "width_height" else size[::-1]], size_input.dtype)
