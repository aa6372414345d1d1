"""YOLOv8 and its successors with the same head: boxes in network pixels and class scores, no objectness."""

from __future__ import annotations

from collections.abc import Mapping

from perception.decoders.boxes import Candidates, Selection, best_class, corners, surest
from perception.decoders.decoder import Outputs, options_of
from perception.engines.engine import TensorInfo, Tensors
from perception.geometry import Geometry, SizePx
from perception.model_spec import ModelSpec
from perception.results import Detections


class YoloV8:
    """Role `output`: [1, 4 + C, N] or [1, N, 4 + C], centre x y, width, height in network pixels, class scores.

    Source: ultralytics/ultralytics `nn/modules/head.py` Detect, as its ONNX export writes it.
    """

    def __init__(self, spec: ModelSpec, outputs: Mapping[str, TensorInfo]) -> None:
        self._outputs = Outputs(spec.decoding, outputs, ("output",))
        options_of(spec.decoding, {})
        self._fields = 4 + len(spec.classes)
        self._shapes = ((1, self._fields, -1), (1, -1, self._fields))
        self._outputs.require_shape("output", *self._shapes)
        self._select = Selection(spec.decoding)

    def __call__(
        self, tensors: Tensors, geometry: Geometry, source_size_px: SizePx, score_threshold: float
    ) -> Detections:
        """See `Decoder`."""
        tensor = self._outputs.read_floats("output", tensors, *self._shapes)[0]
        columns = tensor if tensor.shape[0] == self._fields else tensor.T  # (4 + C, N)
        rows = columns[:, surest(columns[4:].max(axis=0), score_threshold)].T
        class_ids, scores = best_class(rows[:, 4:])
        return self._select(Candidates(corners(rows[:, :2], rows[:, 2:4]), scores, class_ids), geometry)
