"""Small real things the compiler's tests share: pictures that look like roads, networks that segment them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from compile.graph import GraphView
from compile.importer import import_model
from perception.model_spec import Decoding, ModelSpec, PictureInput
from tests.compile.graphs import Sketch

WIDTH_PX, HEIGHT_PX = 96, 64
CLASSES = ("sky", "road", "car")


def road_picture(seed: int) -> np.ndarray:
    """(64, 96, 3) uint8: a sky, a road, a few boxes of colour, the sensor's noise."""
    random = np.random.default_rng(seed)
    rows = np.linspace(0, 1, HEIGHT_PX)[:, None, None]
    tints = random.integers(60, 200, (2, 3))
    picture = np.where(rows < 0.4, tints[0] * (1 - rows / 2), tints[1] * rows) * np.ones((1, WIDTH_PX, 1))
    for _ in range(4):
        left, top = random.integers(0, WIDTH_PX - 20), random.integers(15, HEIGHT_PX - 20)
        picture[top : top + random.integers(8, 18), left : left + random.integers(8, 18)] = random.integers(0, 255, 3)
    return np.clip(picture + random.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, pictures: list[np.ndarray]) -> Path:
    """A folder of PNG files, in order."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number:04}.png"), picture)
    return folder


def write_drive(folder: Path, *, seed: int, count: int = 24) -> Path:
    """A recording of distinct road pictures."""
    return write_pictures(folder, [road_picture(1000 * seed + number) for number in range(count)])


def segmenter(*, outlier: float = 1.0) -> Sketch:
    """Three convolutions, the first two with a Relu. `outlier` scales one channel between the first and the second.

    What the network computes does not depend on `outlier`, but a large one leaves the other channels of that tensor
    without codes in 8 bits. A Clip stands in the place of a Relu then: no factor passes it, so nothing can be spread.
    """
    random = np.random.default_rng(7)
    sketch = Sketch(images=[1, 3, HEIGHT_PX, WIDTH_PX])
    first, second, third = (
        random.normal(0, gain, shape).astype(np.float32)
        for gain, shape in ((0.3, (8, 3, 3, 3)), (0.3, (8, 8, 3, 3)), (0.5, (3, 8, 1, 1)))
    )
    first[0] *= outlier
    second[:, 0] /= outlier
    biases = [random.normal(0, 0.2, len(weight)).astype(np.float32) for weight in (first, second, third)]
    biases[0][0] *= outlier
    tensor = "images"
    for name, weight, bias in zip(("first", "second"), (first, second), biases, strict=False):
        read = [tensor, sketch.weight(weight), sketch.weight(bias)]
        grown = sketch.node("Conv", *read, name=name, pads=[1, 1, 1, 1])
        clipped = [sketch.weight(np.float32(limit)) for limit in (0, 1e9)] if outlier != 1.0 else []
        tensor = sketch.node("Clip" if clipped else "Relu", grown, *clipped, name=f"{name}_relu")
    scores = sketch.node("Conv", tensor, sketch.weight(third), sketch.weight(biases[2]), name="third")
    sketch.output(scores, "mask", [1, 3, HEIGHT_PX, WIDTH_PX])
    return sketch


SEGMENTER_SPEC = ModelSpec(
    name="segmenter",
    task="segmentation",
    picture=PictureInput(
        tensor="images",
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        scale=1 / 255,
        mean=(0.5, 0.4, 0.3),
        std=(0.5, 0.5, 0.5),
    ),
    decoding=Decoding(decoder="argmax_mask", tensors={"output": "mask"}),
    classes=CLASSES,
)


def write_segmenter(folder: Path, *, outlier: float = 1.0) -> Path:
    """The network with its ModelSpec beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    SEGMENTER_SPEC.save(folder / "segmenter.yaml")
    return segmenter(outlier=outlier).save(folder / "segmenter.onnx")


def imported_graph(sketch: Sketch, folder: Path) -> GraphView:
    """A graph view of a sketch, imported as a compilation would."""
    return GraphView.of(import_model(sketch.save(folder / "sketch.onnx")).model)
