"""How a network wants its pixels: from its own first nodes, from its family, from the size of its first weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.guess.clue import Clue, Confidence
from compile.guess.families import Finding, is_ultralytics
from compile.guess.seen import Picture, Seen

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""Red, green, blue, of pixels in 0..1. Source: torchvision.transforms documentation."""

UNIT = 1 / 255
BYTES_ABOVE, UNIT_BELOW = 4.0, 1.5
"""Bounds on |bias| / |weight| of the first convolution. Seen on eight trained networks: 18.7 and 35.9 where pixels are
0..255, 0.07 to 0.56 where they are 0..1 or normalised."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """Fields of `PictureInput`, and where they were read."""

    colour: str
    scale: float
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    resize: str = "stretch"
    pad_value: int = 0
    interpolation: str = "linear"
    source: str = ""

    @property
    def pixel_range(self) -> str:
        """`bytes` where the network sees 0..255, `unit` where it sees numbers of about 1."""
        return "bytes" if self.scale / max(self.std) > 0.2 else "unit"


_LETTERBOXED = Feeding(
    "RGB", UNIT, resize="letterbox_centre", pad_value=114, source="ultralytics data/augment.py LetterBox"
)

FAMILIES: dict[str, Feeding] = {
    "yolox": Feeding(
        "BGR", 1.0, resize="letterbox_top_left", pad_value=114, source="YOLOX yolox/data/data_augment.py preproc"
    ),
    "ultralytics": _LETTERBOXED,
    "decoded_rows": _LETTERBOXED,
    "nanodet": Feeding(
        "BGR",
        1.0,
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        "letterbox_centre",
        interpolation="area",
        source="nanodet config/*.yml normalize, demo_* resize_uniform",
    ),
    "fastestdet": Feeding("BGR", UNIT, interpolation="area", source="FastestDet example/onnx-runtime/runtime.py"),
    "rtdetr": Feeding("RGB", UNIT, source="RT-DETR rtdetrv2_pytorch configs and references/deploy"),
    "rfdetr": Feeding("RGB", UNIT, IMAGENET_MEAN, IMAGENET_STD, source="RF-DETR rfdetr/detr.py"),
    "detr": Feeding("RGB", UNIT, IMAGENET_MEAN, IMAGENET_STD, source="DETR datasets/coco.py make_coco_transforms"),
}

KIN_DIFFER = {"decoded_rows": "several YOLOs look so", "rfdetr": "RF-DETR normalises as ImageNet, RT-DETR does not"}
"""Families whose members are fed differently, so that the family alone does not settle it."""

STRETCHED_BY_RULE = {"detr": "DETR itself keeps the aspect ratio and has no fixed size"}


def guess_pixels(seen: Seen, picture: Picture, finding: Finding) -> list[Clue]:
    """Clues for colour, scale, mean, std, resize, pad_value and interpolation.

    What the graph does itself weighs most, then the family, then the size of the first weights.
    """
    if picture.dtype == "uint8":
        return _fed_bytes(seen, finding, "the input is uint8: pixels go in as they are")
    own = own_normalisation(seen, picture)
    if own is not None:
        return _beside_own(seen, finding, own)
    if finding.family in FAMILIES:
        return _as_family(seen, picture, finding)
    return _by_weights(seen, picture)


@dataclass(frozen=True, slots=True)
class OwnNormalisation:
    """(x - mean) / std, done by the first nodes of the graph itself, channel by channel."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    nodes: tuple[str, ...]


def own_normalisation(seen: Seen, picture: Picture) -> OwnNormalisation | None:
    """The affine steps between the picture and the first layer; None where there are none."""
    factor, shift = np.ones(3), np.zeros(3)
    nodes: list[str] = []
    tensor = picture.tensor
    while len(readers := seen.readers.get(tensor, [])) == 1:
        node = readers[0]
        step = (1.0, 0.0) if node.op_type in ("Transpose", "Cast", "Identity") else _affine(seen, node, tensor)
        if step is None:
            break
        if node.op_type not in ("Transpose", "Cast", "Identity"):
            nodes.append(f"{node.op_type} {node.name}")
        factor, shift = factor * step[0], shift * step[0] + step[1]
        tensor = node.output[0]
    if not nodes or not (factor > 0).all():
        return None
    return OwnNormalisation(-shift / factor, 1 / factor, tuple(nodes))


def pixel_range(seen: Seen, picture: Picture) -> tuple[str | None, str]:
    """Whether the first convolution's weights are sized for pixels in 0..255 (`bytes`) or about 1 (`unit`), and why.

    A trained layer's weighted sums are of the order of its biases: with pixels of hundreds its weights are small.
    """
    node = next((n for n in _from_picture(seen, picture) if n.op_type == "Conv"), None)
    if node is None or len(node.input) < 3 or not {node.input[1], node.input[2]} <= set(seen.weights):
        return None, "nothing tells the range: the first convolution has no bias to compare its weights with"
    weight = np.asarray(seen.weights[node.input[1]], np.float64)
    gain = float(np.median(np.sqrt((weight**2).reshape(len(weight), -1).sum(axis=1))))
    ratio = float(np.median(np.abs(seen.weights[node.input[2]]))) / max(gain, 1e-12)
    if ratio >= BYTES_ABOVE:
        return "bytes", f"the first weights are {ratio:.0f} times smaller than their biases, so made for 0..255"
    if ratio <= UNIT_BELOW:
        return "unit", "the first weights are no smaller than their biases, so made for numbers of about 1"
    return None, f"the first weights are {ratio:.1f} times smaller than their biases, which fits no range well"


def _as_family(seen: Seen, picture: Picture, finding: Finding) -> list[Clue]:
    """As the family is published, unless its kin differ or the first weights contradict it."""
    feeding = FAMILIES[finding.family]
    signed = finding.family == "ultralytics" and is_ultralytics(seen)
    sure: Confidence = "certain" if signed else "likely"
    why = f"{'signed by its exporter' if signed else f'as {finding.title} is fed'} ({feeding.source})"
    if finding.family in KIN_DIFFER:
        sure, why = "unsure", f"{why}, but {KIN_DIFFER[finding.family]}: check with its author"
    fixed_shape = STRETCHED_BY_RULE.get(finding.family)
    geometry = _geometry(feeding, "unsure" if fixed_shape else sure, fixed_shape or why)
    measured, reason = pixel_range(seen, picture)
    if measured in (None, feeding.pixel_range):
        fits = why if measured is None else f"{why}; {reason}"
        return [Clue("picture.colour", feeding.colour, why, sure), *_clues(feeding, sure, fits)[1:], *geometry]
    against = f"{why}, but {reason}: compare both on pictures"
    other = replace(feeding, scale=1.0 if measured == "bytes" else UNIT, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return [Clue("picture.colour", feeding.colour, why, sure), *_clues(other, "unsure", against)[1:], *geometry]


def _beside_own(seen: Seen, finding: Finding, own: OwnNormalisation) -> list[Clue]:
    """The graph subtracts and divides itself: only the range that it expects is left to be fed."""
    done = f"the graph itself computes (x - {_numbers(own.mean)}) / {_numbers(own.std)} in {', '.join(own.nodes)}"
    in_bytes = float(own.std.max()) >= 16
    ranged = "so that x is 0..255" if in_bytes else "so that x is 0..1"
    colour, sure, why = _colour_of(own, finding)
    feeding = replace(
        FAMILIES.get(finding.family, Feeding(colour, 1.0)), colour=colour, scale=1.0 if in_bytes else UNIT
    )
    feeding = replace(feeding, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    known = finding.family in FAMILIES
    geometry_why = (
        f"as {finding.title} is fed ({feeding.source})" if known else "nothing tells; check how it was trained"
    )
    return [
        Clue("picture.colour", colour, why, sure),
        Clue("picture.scale", feeding.scale, f"{done}, {ranged}", "certain"),
        Clue("picture.mean", feeding.mean, done, "certain"),
        Clue("picture.std", feeding.std, done, "certain"),
        *_geometry(feeding, "likely" if known else "unsure", geometry_why),
    ]


def _colour_of(own: OwnNormalisation, finding: Finding) -> tuple[str, Confidence, str]:
    """Means of natural pictures fall from red to blue, so their order tells the order of the channels."""
    first, last = float(own.mean[0]), float(own.mean[2])
    if first != last:
        colour = "RGB" if first > last else "BGR"
        return colour, "likely", f"the graph subtracts {_numbers(own.mean)}: pictures' means fall from red to blue"
    if finding.family in FAMILIES:
        return FAMILIES[finding.family].colour, "likely", f"as {finding.title} is fed"
    return "RGB", "unsure", "nothing tells; feed both orders and compare"


def _fed_bytes(seen: Seen, finding: Finding, why: str) -> list[Clue]:
    feeding = FAMILIES.get(finding.family, Feeding("RGB", 1.0))
    known: Confidence = "likely" if finding.family in FAMILIES else "unsure"
    reason = (
        f"as {finding.title} is fed ({feeding.source})" if known == "likely" else "nothing tells; compare both orders"
    )
    plain = Feeding(feeding.colour, 1.0)
    return [
        Clue("picture.colour", plain.colour, reason, known),
        *(Clue(clue.field, clue.value, why, "certain") for clue in _clues(plain, "certain", why)[1:]),
        *_geometry(feeding, known, reason),
    ]


def _by_weights(seen: Seen, picture: Picture) -> list[Clue]:
    measured, reason = pixel_range(seen, picture)
    in_bytes = measured == "bytes"
    feeding = Feeding("RGB" if seen.producer == "pytorch" else "BGR", 1.0 if in_bytes else UNIT)
    colour_why = "nothing in the file tells; feed RGB and BGR to it and compare"
    mean_why = reason if in_bytes else f"{reason}; 0..1 and ImageNet's mean and std both fit: check how it was trained"
    sure: Confidence = "likely" if in_bytes else "unsure"
    return [
        Clue("picture.colour", feeding.colour, colour_why, "unsure"),
        Clue("picture.scale", feeding.scale, reason, "likely" if measured else "unsure"),
        Clue("picture.mean", feeding.mean, mean_why, sure),
        Clue("picture.std", feeding.std, mean_why, sure),
        *_geometry(feeding, "unsure", "nothing in the file tells; stretched is the simplest: check how it was trained"),
    ]


def _clues(feeding: Feeding, sure: Confidence, why: str) -> list[Clue]:
    fields = ("colour", "scale", "mean", "std")
    return [Clue(f"picture.{name}", getattr(feeding, name), why, sure) for name in fields]


def _geometry(feeding: Feeding, sure: Confidence, why: str) -> list[Clue]:
    fields = ("resize", "pad_value", "interpolation")
    return [Clue(f"picture.{name}", getattr(feeding, name), why, sure) for name in fields]


def _affine(seen: Seen, node: onnx.NodeProto, tensor: str) -> tuple[NDArray[np.float64] | float, ...] | None:
    """Factor and shift of a node that adds, multiplies or normalises by constants; None for any other."""
    if node.op_type == "BatchNormalization":
        values = [np.asarray(seen.weights[name], np.float64) for name in node.input[1:5] if name in seen.weights]
        if len(values) < 4 or values[0].size != 3:
            return None
        gamma, beta, mean, variance = values
        factor = gamma / np.sqrt(variance + 1e-5)
        return factor, beta - mean * factor
    others = [name for name in node.input if name != tensor]
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(others) != 1 or others[0] not in seen.weights:
        return None
    value = np.asarray(seen.weights[others[0]], np.float64).reshape(-1)
    turned = node.input[0] != tensor and node.op_type in ("Sub", "Div")
    if value.size not in (1, 3) or turned or (node.op_type == "Div" and not value.all()):
        return None
    if node.op_type in ("Add", "Sub"):
        return 1.0, value if node.op_type == "Add" else -value
    return value if node.op_type == "Mul" else 1 / value, 0.0


def _from_picture(seen: Seen, picture: Picture) -> list[onnx.NodeProto]:
    """Nodes after the picture, nearest first, as far as the first convolutions."""
    found: list[onnx.NodeProto] = []
    waiting: list[str] = [picture.tensor]
    visited: set[str] = set()
    while waiting and len(found) < 30:
        for node in seen.readers.get(waiting.pop(0), []):
            if node.name not in visited:
                visited.add(node.name)
                found.append(node)
                waiting.extend(node.output)
    return found


def _numbers(values: NDArray[np.float64]) -> str:
    distinct = [f"{value:.4g}" for value in values]
    return distinct[0] if len(set(distinct)) == 1 else f"[{', '.join(distinct)}]"
