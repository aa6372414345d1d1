"""Semantic segmentation: the class with the highest score, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.decoders.decoder import Outputs, can_be, known_classes, options_of, require_choice
from perception.engines.engine import TensorInfo, Tensors
from perception.errors import SpecError
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import SegmentationMap

_MOST_CLASSES = 256  # a SegmentationMap holds uint8


class ArgmaxMask:
    """Role `output`: scores [1, C, h, w] or [1, h, w, C], or the classes themselves, [1, h, w], [1, 1, h, w]
    or [1, h, w, 1].

    Option `layout` says which axis of a score tensor counts the classes; `auto` goes by its length, and takes NCHW
    where both fit. Padding of a letterbox is cut off, to the nearest cell. No score threshold applies.
    """

    def __init__(self, spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> None:
        self._outputs = Outputs(spec.decoding, outputs, ("output",))
        layout = options_of(spec.decoding, {"layout": "auto"})["layout"]
        require_choice(spec.decoding, "layout", layout, ("auto", "NCHW", "NHWC"))
        self._class_count = class_count = len(spec.classes)
        if not 2 <= class_count <= _MOST_CLASSES:
            raise SpecError(f"decoder argmax_mask: got {class_count} classes, expected 2 to {_MOST_CLASSES}")
        shapes = {"NCHW": (1, class_count, -1, -1), "NHWC": (1, -1, -1, class_count)}
        self._score_shapes = {name: shape for name, shape in shapes.items() if layout in ("auto", name)}
        self._shapes = (*self._score_shapes.values(), (1, -1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
        self._outputs.require_shape("output", *self._shapes)
        self._network_size_px = (spec.picture.width_px, spec.picture.height_px)
        self._best: NDArray[np.generic] = np.zeros((0, 0), np.float32)
        self._better = np.zeros((0, 0), np.uint8)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> SegmentationMap:
        """See `Decoder`."""
        tensor = self._outputs.read("output", tensors, *self._shapes)
        planes = self._score_planes(tensor)
        class_ids = self._named(tensor) if planes is None else self._argmax(planes)
        return SegmentationMap(_content(class_ids, geometry, self._network_size_px), *source_size_px)

    def _score_planes(self, tensor: NDArray[np.generic]) -> list[NDArray[np.generic]] | None:
        """One (h, w) view a class, or None where the tensor names the classes itself."""
        for layout, shape in self._score_shapes.items():
            if can_be(tensor.shape, shape):
                return list(tensor[0] if layout == "NCHW" else np.moveaxis(tensor[0], -1, 0))
        return None

    def _named(self, tensor: NDArray[np.generic]) -> NDArray[np.uint8]:
        sides = tensor.shape[1:-1] if tensor.ndim == 4 and tensor.shape[1] > 1 else tensor.shape[-2:]
        name = self._outputs.infos["output"].name
        return known_classes(tensor.reshape(sides), self._class_count, name).astype(np.uint8)

    def _argmax(self, planes: list[NDArray[np.generic]]) -> NDArray[np.uint8]:
        """(h, w) uint8; of equal scores the first class wins.

        One pass over each plane, results in place: `np.argmax` takes several times as long over so short an axis.
        """
        if self._best.shape != planes[0].shape or self._best.dtype != planes[0].dtype:
            self._best, self._better = np.empty_like(planes[0], order="C"), np.empty(planes[0].shape, np.uint8)
        np.copyto(self._best, planes[0])
        class_ids = np.zeros(planes[0].shape, np.uint8)
        for class_id, plane in enumerate(planes[1:], start=1):
            np.greater(plane, self._best, out=self._better.view(np.bool_))
            self._better *= np.uint8(class_id)
            np.maximum(class_ids, self._better, out=class_ids)
            np.maximum(self._best, plane, out=self._best)
        return class_ids


def _content(class_ids: NDArray[np.uint8], geometry: Geometry, network_size_px: SizePx) -> NDArray[np.uint8]:
    """The cells that show the source picture."""
    columns = _cells(geometry.offset_x_px, geometry.content_width_px, class_ids.shape[1] / network_size_px[0])
    rows = _cells(geometry.offset_y_px, geometry.content_height_px, class_ids.shape[0] / network_size_px[1])
    return np.ascontiguousarray(class_ids[rows, columns])


def _cells(offset_px: int, length_px: int, cells_per_px: float) -> slice:
    first = int(offset_px * cells_per_px)
    return slice(first, max(first + 1, round((offset_px + length_px) * cells_per_px)))
