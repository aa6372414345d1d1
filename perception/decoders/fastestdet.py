"""FastestDet: one grid, one box a cell, objectness and class score weighed against each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.decoders.boxes import Candidates, Floats, Selection, corners, grid, level_shapes, sigmoid, surest
from perception.decoders.decoder import Outputs, options_of
from perception.engines.engine import TensorInfo, Tensors
from perception.errors import SpecError
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import Detections


class FastestDet:
    """Role `output`: [1, 5 + C, rows, columns], objectness, x y (before tanh), w h (before sigmoid), class scores.

    A box's centre is (cell + tanh) cells from the top left, its size a share of the picture; its score is
    objectness ** .6 * class ** .4.

    Source: dog-qiuqiu/FastestDet `utils/tool.py` handle_preds.
    """

    def __init__(self, spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> None:
        self._outputs = Outputs(spec.decoding, outputs, ("output",))
        options_of(spec.decoding, {})
        columns, rows = _only_level(spec)
        self._shape = (1, 5 + len(spec.classes), rows, columns)
        self._outputs.require_shape("output", self._shape)
        self._cells = grid(columns, rows)
        self._counts = np.array((columns, rows), np.float32)
        self._size_px = np.array((spec.picture.width_px, spec.picture.height_px), np.float32)
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        planes = self._outputs.read_floats("output", tensors, self._shape)[0].reshape(self._shape[1], -1)
        class_scores = planes[5:].max(axis=0)
        # A quantized engine may answer a hair below zero, where a broken power has no value.
        scores = np.maximum(planes[0], 0) ** np.float32(0.6) * np.maximum(class_scores, 0) ** np.float32(0.4)
        best = surest(scores, score_threshold)
        found = planes[:, best].T
        class_ids = found[:, 5:].argmax(axis=1)
        return self._select(Candidates(self._boxes(found[:, 1:5], best), scores[best], class_ids), geometry)

    def _boxes(self, offsets: Floats, cells: NDArray[np.intp]) -> Floats:
        centres_px = (self._cells[cells] + np.tanh(offsets[:, :2])) / self._counts * self._size_px
        return corners(centres_px, sigmoid(offsets[:, 2:]) * self._size_px)


def _only_level(spec: ModelSpec) -> tuple[int, int]:
    shapes = level_shapes(spec)
    if len(shapes) > 1:
        raise SpecError(f"decoder fastestdet: got strides_px {list(spec.decoding.strides_px)}, expected exactly one")
    return shapes[0]
