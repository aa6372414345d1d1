"""Which decoders exist, and how one is opened for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perception.decoders.argmax_mask import ArgmaxMask
from perception.decoders.decoder import Decoder
from perception.decoders.detr import open_detr
from perception.decoders.fastestdet import FastestDet
from perception.decoders.nanodet import NanoDet
from perception.decoders.yolov8 import YoloV8
from perception.decoders.yolox import YoloX
from perception.engines.engine import TensorInfo
from perception.errors import SpecError
from perception.model_spec import ModelSpec

OpenDecoder = Callable[[ModelSpec, Mapping[str, TensorInfo]], Decoder]

DETECTION: dict[str, OpenDecoder] = {
    "yolox": YoloX,
    "yolov8": YoloV8,
    "nanodet": NanoDet,
    "fastestdet": FastestDet,
    "detr": open_detr,
}
SEGMENTATION: dict[str, OpenDecoder] = {"argmax_mask": ArgmaxMask}

DECODERS: dict[str, OpenDecoder] = {**DETECTION, **SEGMENTATION}


def open_decoder(spec: ModelSpec, outputs: tuple[TensorInfo, ...]) -> Decoder:
    """The decoder a spec names, checked against the outputs a model or engine has.

    Raises:
        SpecError: unknown decoder, one of another task, or roles, options or shapes it cannot read.
    """
    name = spec.decoding.decoder
    if name not in DECODERS:
        raise SpecError(f"{spec.name}: decoder {name!r} is unknown, expected one of {', '.join(DECODERS)}")
    fitting = DETECTION if spec.task == "detection" else SEGMENTATION
    if name not in fitting:
        raise SpecError(
            f"{spec.name}: decoder {name} does not give a {spec.task}, expected one of {', '.join(fitting)}; "
            "correct task or decoding.decoder"
        )
    try:
        return DECODERS[name](spec, {info.name: info for info in outputs})
    except SpecError as error:
        raise SpecError(f"{spec.name}: {error}") from error
