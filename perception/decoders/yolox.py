"""YOLOX: anchor-free boxes over a pyramid of grids, objectness times class score."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.decoders.boxes import Candidates, Floats, Selection, best_class, corners, grid, level_shapes, surest
from perception.decoders.decoder import Outputs, finite, options_of
from perception.engines.engine import TensorInfo, Tensors
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import Detections


class YoloX:
    """Role `output`: [1, N, 5 + C], x y w h, objectness, class scores, after their sigmoids.

    x y w h are offsets on the grids of `strides_px`; with option `decoded` they are network pixels already.

    Source: Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430.
    """

    def __init__(self, spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> None:
        self._outputs = Outputs(spec.decoding, outputs, ("output",))
        self._decoded = options_of(spec.decoding, {"decoded": False})["decoded"]
        shapes = level_shapes(spec)
        self._shape = (1, sum(columns * rows for columns, rows in shapes), 5 + len(spec.classes))
        self._outputs.require_shape("output", self._shape)
        self._cells = np.concatenate([grid(columns, rows) for columns, rows in shapes])
        counts = [columns * rows for columns, rows in shapes]
        self._strides_px = np.repeat(np.array(spec.decoding.strides_px, np.float32), counts)[:, None]
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        rows = self._outputs.read_floats("output", tensors, self._shape)[0]
        likely = np.flatnonzero(rows[:, 4] >= score_threshold)  # a class score is at most 1
        found = rows.take(likely, axis=0)
        class_ids, class_scores = best_class(found[:, 5:])
        scores = found[:, 4] * class_scores
        best = surest(scores, score_threshold)
        boxes_px = self._boxes(found[:, :4].take(best, axis=0), likely.take(best))
        boxes_px = finite(boxes_px, self._outputs.infos["output"].name)
        return self._select(Candidates(boxes_px, scores.take(best), class_ids.take(best)), geometry)

    def _boxes(self, offsets: Floats, cells: NDArray[np.intp]) -> Floats:
        if self._decoded:
            return corners(offsets[:, :2], offsets[:, 2:])
        strides_px = self._strides_px.take(cells, axis=0)
        centres_px = (offsets[:, :2] + self._cells.take(cells, axis=0)) * strides_px
        with np.errstate(over="ignore"):  # an infinite box is refused by the caller
            return corners(centres_px, np.exp(offsets[:, 2:]) * strides_px)
