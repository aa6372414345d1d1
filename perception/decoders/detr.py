"""DETR and its kin: a fixed set of queries, each one box, mostly without suppression.

Source: Carion et al., DETR, arXiv:2005.12872 (softmax); Zhao et al., RT-DETR, arXiv:2304.08069 (sigmoid).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.decoders.boxes import Candidates, Floats, Selection, best_class, corners, sigmoid, surest
from perception.decoders.decoder import Decoder, Outputs, known_classes, options_of, require_choice
from perception.engines.engine import TensorInfo, Tensors
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import Detections

_QUERIES, _DETECTIONS = ("boxes", "logits"), ("boxes", "labels", "scores")


def open_detr(spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> Decoder:
    """The decoder for what the graph leaves to be done, told by the roles.

    Raises:
        SpecError: the roles are neither of the two sets.
    """
    tensors = Outputs(spec.decoding, outputs, _QUERIES, _DETECTIONS)
    return DetrQueries(spec, tensors) if "logits" in spec.decoding.tensors else DetrDetections(spec, tensors)


class DetrDetections:
    """Roles `boxes` [1, N, 4], `labels` [1, N], `scores` [1, N]: decoded inside the graph.

    Boxes are x1 y1 x2 y2 in the pixels of the size that was fed, which is always the network's own.
    """

    def __init__(self, spec: ModelSpec, outputs: Outputs) -> None:
        self._outputs = outputs
        options_of(spec.decoding, {})
        self._outputs.require_shape("boxes", (1, -1, 4))
        self._outputs.require_shape("labels", (1, -1))
        self._outputs.require_shape("scores", (1, -1))
        self._class_count = len(spec.classes)
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        boxes_px = self._outputs.read_floats("boxes", tensors, (1, -1, 4))[0]
        queries = (1, len(boxes_px))
        labels = self._outputs.read("labels", tensors, queries)[0]
        scores = self._outputs.read_floats("scores", tensors, queries)[0]
        best = surest(scores, score_threshold)
        class_ids = known_classes(labels[best], self._class_count, self._outputs.infos["labels"].name)
        return self._select(Candidates(boxes_px[best], scores[best], class_ids), geometry)


class DetrQueries:
    """Roles `boxes` [1, N, 4] and `logits` [1, N, C], or [1, N, C + 1] with option `activation: softmax`.

    Boxes are centre x y, width, height as shares of the network's picture; softmax has "no object" as its last class.
    """

    def __init__(self, spec: ModelSpec, outputs: Outputs) -> None:
        self._outputs = outputs
        activation = options_of(spec.decoding, {"activation": "sigmoid"})["activation"]
        require_choice(spec.decoding, "activation", activation, ("sigmoid", "softmax"))
        self._softmax = activation == "softmax"
        self._fields = len(spec.classes) + self._softmax
        self._outputs.require_shape("boxes", (1, -1, 4))
        self._outputs.require_shape("logits", (1, -1, self._fields))
        self._size_px = np.array((spec.picture.width_px, spec.picture.height_px), np.float32)
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        boxes = self._outputs.read_floats("boxes", tensors, (1, -1, 4))[0]
        logits = self._outputs.read_floats("logits", tensors, (1, len(boxes), self._fields))[0]
        class_ids, scores = self._best(logits)
        best = surest(scores, score_threshold)
        boxes_px = corners(boxes[best, :2] * self._size_px, boxes[best, 2:] * self._size_px)
        return self._select(Candidates(boxes_px, scores[best], class_ids[best]), geometry)

    def _best(self, logits: Floats) -> tuple[NDArray[np.intp], Floats]:
        if not self._softmax:
            class_ids, best = best_class(logits)
            return class_ids, sigmoid(best)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        class_ids, best = best_class(weights[:, :-1])
        return class_ids, best / weights.sum(axis=1)
