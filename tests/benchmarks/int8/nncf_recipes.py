"""NNCF, for OpenVINO and for ONNX Runtime, with and without accuracy control; and OpenVINO's float."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import openvino

from compile.accuracy import LOWEST_SCORE
from compile.backends.onnxrt import build as bytes_of
from compile.grading import read_labels
from compile.options import MAX_DROP_WITH_LABELS
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import LabelError
from perception.frame import Frame
from perception.preprocess import Preprocessor
from tests.benchmarks.int8.contender import OPENVINO_FLOAT, Built, Contender
from tests.benchmarks.int8.grades import matches_of, results_of, score_of
from tests.benchmarks.int8.material import THREADS, Material, frames_of
from tests.benchmarks.int8.openvino_engine import OpenVinoEngine
from tests.benchmarks.int8.shares import onnx_share, openvino_share

Model = Any  # onnx.ModelProto or openvino.Model, which have nothing in common

NOTHING_TO_FIND = 1.0
"""Score of a frame without an object: no engine can lose anything there."""


class Metric:
    """AP50 or IoU on the validation frames, as NNCF's accuracy control asks for it."""

    def __init__(self, material: Material) -> None:
        self._spec, self._class_map = material.spec(), material.class_map()
        self._labels = read_labels(self._spec, material.validation_labels)
        self.frames = list(frames_of(material.validation))
        self._preprocessor = Preprocessor(self._spec.picture, self._spec.size_input)

    def __call__(self, model: Model, frames: Any) -> tuple[float, list[float]]:
        """Score of a model over frames, and of each frame by itself; NNCF also asks for single frames."""
        engine = (
            OnnxRuntimeEngine(bytes_of(model), threads=THREADS)
            if isinstance(model, onnx.ModelProto)
            else OpenVinoEngine(model)
        )
        seen = list(frames)
        results = results_of(self._spec, engine, seen, LOWEST_SCORE)
        engine.close()
        try:
            matches = matches_of(self._spec, results, seen, labels=self._labels, class_map=self._class_map)
        except LabelError:  # nothing to find in any of them
            return NOTHING_TO_FIND, [NOTHING_TO_FIND] * len(seen)
        scores = [score_of(matches, alone) for alone in np.eye(len(seen), dtype=np.int64)]
        return score_of(matches), [NOTHING_TO_FIND if np.isnan(score) else score for score in scores]

    def feeds(self, frame: Frame) -> dict[str, Any]:
        """Input tensors of a frame, the caller's to keep."""
        return {name: tensor.copy() for name, tensor in self._preprocessor.prepare(frame.pixels).feeds.items()}


def quantized(material: Material, model: Model, **options: Any) -> Model:
    """The usual call."""
    feeds = material.calibration_feeds()
    return nncf.quantize(model, nncf.Dataset(feeds), subset_size=_count(material), **options)


def quantized_with_control(material: Material, model: Model, **options: Any) -> Model:
    """Layers go back to float until the metric on the validation frames is within the limit this project keeps too."""
    metric = Metric(material)
    return nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(material.calibration_feeds()),
        nncf.Dataset(metric.frames, metric.feeds),
        metric,
        max_drop=MAX_DROP_WITH_LABELS,
        drop_type=nncf.DropType.RELATIVE,
        subset_size=_count(material),
        **options,
    )


def for_openvino(material: Material, folder: Path, *, make: Any, **options: Any) -> Built:
    """Quantize OpenVINO's own model."""
    return _save(make(material, _read(material), **options), folder)


def for_onnx(material: Material, folder: Path, *, make: Any, **options: Any) -> Built:
    """Quantize the ONNX model, for ONNX Runtime."""
    model = make(material, material.model(), **options)
    (folder / "engine.onnx").write_bytes(bytes_of(model))
    return Built("onnxrt", onnx_share(model))


def openvino_float(material: Material, folder: Path) -> Built:
    """The float model in OpenVINO."""
    return _save(_read(material), folder)


MIXED = {"preset": nncf.QuantizationPreset.MIXED}
PERFORMANCE = {"preset": nncf.QuantizationPreset.PERFORMANCE}
CONTENDERS = (
    Contender(OPENVINO_FLOAT, openvino_float),
    Contender("NNCF OpenVINO mixed", partial(for_openvino, make=quantized, **MIXED)),
    Contender("NNCF OpenVINO performance", partial(for_openvino, make=quantized, **PERFORMANCE)),
    Contender("NNCF ONNX mixed", partial(for_onnx, make=quantized, **MIXED)),
    Contender("NNCF OpenVINO accuracy control", partial(for_openvino, make=quantized_with_control, **MIXED)),
    Contender("NNCF ONNX accuracy control", partial(for_onnx, make=quantized_with_control, **MIXED)),
)


def _read(material: Material) -> openvino.Model:
    return openvino.Core().read_model(material.float_path)


def _save(model: openvino.Model, folder: Path) -> Built:
    path = folder / "engine.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return Built("openvino", openvino_share(openvino.Core().read_model(path)))


def _count(material: Material) -> int:
    return len(list(material.calibration.iterdir()))
