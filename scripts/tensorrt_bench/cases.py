"""The models that are measured: float and INT8 ONNX, how they are fed, the pictures that grade them, their plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.model_spec import ModelSpec

FP16, COMPATIBLE = "fp16", "fp16-compatible"
PRECISIONS = (FP16, "fp32", "int8", "int8-equalized", "int8-minmax")
"""What is compared, the most important first: it is built in this order. INT8 is as the compiler makes it, without
operators of its own; equalized, they stand where they help the accuracy.
"""

CAMERAS = 6
_OF_FLOAT = ("fp32", FP16, COMPATIBLE)
_BATCH = f"-batch{CAMERAS}"


@dataclass(frozen=True, slots=True)
class Case:
    """One model in a folder: NAME.onnx, NAME.PRECISION.onnx, NAME.yaml, and its pictures."""

    name: str
    folder: Path
    pictures: Path
    plans: Path

    @property
    def spec(self) -> ModelSpec:
        """How it is fed."""
        return ModelSpec.load(self.folder / f"{self.name}.yaml")

    def model(self, precision: str) -> Path:
        """The ONNX file that a precision is built from; `batch_of` one, of a network for six pictures at once."""
        precision, batch, _ = precision.partition(_BATCH)
        quantized = "" if precision in _OF_FLOAT else f".{precision}"
        return self.folder / f"{self.name}{quantized}{batch.replace('-', '.')}.onnx"

    @staticmethod
    def batch_of(precision: str) -> str:
        """The precision's plan for six pictures at once."""
        return precision + _BATCH

    def plan(self, precision: str) -> Path:
        """Where its plan lies."""
        return self.plans / f"{self.name}.{precision}.plan"

    def built(self) -> list[str]:
        """Precisions whose plan was built."""
        return [precision for precision in PRECISIONS if self.plan(precision).is_file()]

    def files(self, count: int | None = None) -> list[Path]:
        """Its pictures, in order."""
        found = sorted(path for path in self.pictures.iterdir() if path.suffix in (".png", ".jpg"))
        return found[:count]

    def images(self, count: int) -> list[NDArray[np.uint8]]:
        """The first pictures, BGR."""
        return [np.asarray(cv2.imread(str(path)), np.uint8) for path in self.files(count)]


def cases_in(folder: Path, plans: Path) -> list[Case]:
    """Every model of the folder; pictures lie in `frames` for detectors and in `frames_segmentation`."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        if not path.with_suffix(".onnx").is_file():
            continue
        task = ModelSpec.load(path).task
        pictures = folder / ("frames" if task == "detection" else "frames_segmentation")
        found.append(Case(path.stem, folder, pictures, plans))
    return found
