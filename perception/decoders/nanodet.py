"""NanoDet: class scores and distances to the four sides as distributions, level by level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.decoders.boxes import Candidates, Floats, Selection, best_class, grid, level_shapes, promising, surest
from perception.decoders.decoder import Outputs, options_of
from perception.engines.engine import TensorInfo, Tensors
from perception.errors import SpecError
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import Detections


class NanoDet:
    """Roles `cls_S` [1, N, C] (after sigmoid) and `dis_S` [1, N, 4 * B] (before softmax) for each stride S.

    The distance to each side is the mean of a distribution over 0 … B - 1 strides.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388; RangiLyu/nanodet `model/head/nanodet_head.py`.
    """

    def __init__(self, spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> None:
        shapes, strides_px = level_shapes(spec), spec.decoding.strides_px
        roles = tuple(f"{kind}_{stride_px}" for stride_px in strides_px for kind in ("cls", "dis"))
        self._outputs = Outputs(spec.decoding, outputs, roles)
        options_of(spec.decoding, {})
        self._levels = [
            _Level(self._outputs, stride_px, shape, len(spec.classes))
            for stride_px, shape in zip(strides_px, shapes, strict=True)
        ]
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        found = [level.found(tensors, score_threshold) for level in self._levels]
        boxes_px, scores, class_ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
        best = surest(scores, score_threshold)
        return self._select(Candidates(boxes_px[best], scores[best], class_ids[best]), geometry)


class _Level:
    """One stride of the pyramid."""

    def __init__(self, outputs: Outputs, stride_px: int, shape: tuple[int, int], class_count: int) -> None:
        self._outputs = outputs
        self._classes, self._distances = f"cls_{stride_px}", f"dis_{stride_px}"
        cells = shape[0] * shape[1]
        bins = _bins(outputs.infos[self._distances])
        self._class_shape, self._distance_shape = (1, cells, class_count), (1, cells, 4 * bins)
        outputs.require_shape(self._classes, self._class_shape)
        outputs.require_shape(self._distances, self._distance_shape)
        self._centres_px = grid(*shape) * stride_px + (stride_px - 1) / np.float32(2)
        self._bins_px = np.arange(bins, dtype=np.float32) * stride_px

    def found(self, tensors: Tensors, score_threshold: float) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """Boxes, scores and classes of the cells from the threshold on."""
        class_scores = self._outputs.read_floats(self._classes, tensors, self._class_shape)[0]
        distances = self._outputs.read_floats(self._distances, tensors, self._distance_shape)[0]
        cells = promising(class_scores, score_threshold)
        class_ids, scores = best_class(class_scores.take(cells, axis=0))
        return self._boxes(distances.take(cells, axis=0), cells), scores, class_ids

    def _boxes(self, logits: Floats, cells: NDArray[np.intp]) -> Floats:
        logits = logits.reshape(len(cells), 4, len(self._bins_px))
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        left_top_right_bottom = (weights @ self._bins_px) / weights.sum(axis=-1)
        centres_px = self._centres_px[cells]
        return np.concatenate(
            (centres_px - left_top_right_bottom[:, :2], centres_px + left_top_right_bottom[:, 2:]), axis=1
        )


def _bins(distances: TensorInfo) -> int:
    fields = distances.shape[-1]
    if fields < 8 or fields % 4:
        raise SpecError(
            f"decoder nanodet: output {distances.name} has shape {list(distances.shape)}, expected [1, N, 4 * B] with "
            "B of at least 2; correct decoding.tensors"
        )
    return fields // 4
