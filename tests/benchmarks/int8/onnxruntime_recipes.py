"""ONNX Runtime's own static quantization: its defaults, and what its documentation advises for CPUs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.benchmarks.int8.contender import Built, Contender
from tests.benchmarks.int8.material import Feeds, Material
from tests.benchmarks.int8.shares import onnx_share

FRAMES_AT_ONCE = 8
"""ONNX Runtime holds every tensor of all frames it collects at once: 64 would not fit in most memories."""

U8S8 = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
RECIPES: dict[str, dict[str, Any]] = {
    "ONNX Runtime MinMax S8S8": {},
    "ONNX Runtime MinMax S8S8 per channel": {"per_channel": True},
    "ONNX Runtime MinMax U8S8 per channel": U8S8,
    "ONNX Runtime percentile U8S8 per channel": {**U8S8, "calibrate_method": CalibrationMethod.Percentile},
    "ONNX Runtime entropy U8S8 per channel": {**U8S8, "calibrate_method": CalibrationMethod.Entropy},
}


class Reader(CalibrationDataReader):
    """Feeds, a stretch at a time."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = list(feeds)
        self._rest = iter(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Begin a stretch."""
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Any:
        """The next frame's tensors; None at the end."""
        return next(self._rest, None)


def build(material: Material, folder: Path, *, recipe: dict[str, Any]) -> Built:
    """Prepare as the documentation says, then quantize to Q/DQ."""
    prepared, engine = folder / "prepared.onnx", folder / "engine.onnx"
    quant_pre_process(str(material.float_path), str(prepared), skip_symbolic_shape=True)
    reader = Reader(material.calibration_feeds())
    at_once = max(count for count in range(1, FRAMES_AT_ONCE + 1) if len(reader) % count == 0)
    quantize_static(prepared, engine, reader, extra_options={"CalibStridedMinMax": at_once}, **recipe)
    prepared.unlink()
    return Built("onnxrt", onnx_share(onnx.load(engine)))


CONTENDERS = tuple(Contender(name, partial(build, recipe=recipe)) for name, recipe in RECIPES.items())
