"""How a network wants its pixels: from its own first nodes, from its family, from the size of its first weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from compile.guess.clue import Clue, Confidence
from compile.guess.finding import Finding, is_ultralytics
from compile.guess.seen import Picture, Seen

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
"""Red, green, blue, of pixels in 0..1. Source: torchvision.transforms documentation."""

UNIT = 1 / 255
BYTES_ABOVE, UNIT_BELOW = 4.0, 1.5
"""Bounds on |bias| / |weight| of the first convolution. Seen on eight trained networks: 18.7 and 35.9 where pixels are
0..255, 0.07 to 0.56 where they are 0..1 or normalised."""

LEAST_STD_OF_BYTES = 16.0
"""A graph that divides by this or more is fed 0..255: pictures deviate by 40 to 70 there, by 0.2 to 0.3 in 0..1."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """How a family is fed: fields of `PictureInput`, where that was read, and which fields its members differ in.

    Attributes:
        source: repository and file.
        doubts: field → why the family alone does not settle it.
    """

    colour: str
    scale: float
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    resize: str = "stretch"
    pad_value: int = 0
    interpolation: str = "linear"
    source: str = ""
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def pixel_range(self) -> str:
        """`bytes` where the network sees 0..255, `unit` where it sees numbers of about 1."""
        return "bytes" if self.scale / max(self.std) > 0.2 else "unit"


RANGE_FIELDS = ("scale", "mean", "std")
GEOMETRY_FIELDS = ("resize", "pad_value", "interpolation")
FIELDS = ("colour", *RANGE_FIELDS, *GEOMETRY_FIELDS)

_LETTERBOXED = Feeding(
    "RGB", UNIT, resize="letterbox_centre", pad_value=114, source="ultralytics data/augment.py LetterBox"
)
_NORMALISED = Feeding("RGB", UNIT, IMAGENET_MEAN, IMAGENET_STD)

FAMILIES: dict[str, Feeding] = {
    "yolox": Feeding(
        "BGR", 1.0, resize="letterbox_top_left", pad_value=114, source="YOLOX yolox/data/data_augment.py preproc"
    ),
    "ultralytics": _LETTERBOXED,
    "decoded_rows": replace(
        _LETTERBOXED, doubts=dict.fromkeys(FIELDS, "several YOLOs have such rows and are fed differently")
    ),
    "nanodet": Feeding(
        "BGR",
        1.0,
        (103.53, 116.28, 123.675),
        (57.375, 57.12, 58.395),
        "letterbox_centre",
        interpolation="area",
        source="nanodet config/*.yml normalize, demo_* resize_uniform",
        doubts={"interpolation": "its demos shrink linearly, by area keeps more of large frames: compare both"},
    ),
    "fastestdet": Feeding("BGR", UNIT, interpolation="area", source="FastestDet example/onnx-runtime/runtime.py"),
    "rtdetr": Feeding("RGB", UNIT, source="RT-DETR rtdetrv2_pytorch/references/deploy"),
    "rfdetr": replace(
        _NORMALISED,
        source="RF-DETR rfdetr/detr.py",
        doubts=dict.fromkeys(("mean", "std"), "RF-DETR normalises as ImageNet, RT-DETR not at all: check which it is"),
    ),
    "detr": replace(
        _NORMALISED,
        source="DETR datasets/coco.py make_coco_transforms",
        doubts=dict.fromkeys(GEOMETRY_FIELDS, "DETR itself keeps the aspect ratio and has no fixed size"),
    ),
}


def guess_pixels(seen: Seen, picture: Picture, finding: Finding) -> list[Clue]:
    """Clues for colour, scale, mean, std, resize, pad_value and interpolation.

    What the graph does itself weighs most, then the family, then the size of the first weights.
    """
    if picture.dtype == "uint8":
        return _fed_bytes(finding)
    own = own_normalisation(seen, picture)
    if own is not None:
        return _beside_own(finding, own)
    if finding.family in FAMILIES:
        return _as_family(seen, picture, finding)
    return _by_weights(seen, picture, finding)


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
    """As the family is published, unless its members differ or the first weights contradict it."""
    feeding = FAMILIES[finding.family]
    signed = finding.family == "ultralytics" and is_ultralytics(seen)
    sure: Confidence = "certain" if signed else "likely"
    why = f"{'signed by its exporter' if signed else f'as {finding.title} is fed'} ({feeding.source})"
    clues = {name: _clue(feeding, name, sure, why) for name in FIELDS}
    measured, reason = pixel_range(seen, picture)
    if measured == feeding.pixel_range:
        clues |= {name: _clue(feeding, name, sure, f"{why}; {reason}") for name in RANGE_FIELDS}
    elif measured is not None:
        other = Feeding(feeding.colour, 1.0 if measured == "bytes" else UNIT)
        against = f"{why}, but {reason}: compare both on pictures"
        clues |= {name: _clue(other, name, "unsure", against) for name in RANGE_FIELDS}
    return list(clues.values())


def _beside_own(finding: Finding, own: OwnNormalisation) -> list[Clue]:
    """The graph subtracts and divides itself: only the range that it expects is left to be fed."""
    in_bytes = float(own.std.max()) >= LEAST_STD_OF_BYTES
    why = (
        f"the graph itself computes (x - {_numbers(own.mean)}) / {_numbers(own.std)} in {', '.join(own.nodes)}, "
        f"so that x is {'0..255' if in_bytes else '0..1'}"
    )
    colour, sure, colour_why = _colour_of(own, finding)
    plain = Feeding(colour, 1.0 if in_bytes else UNIT)
    return [
        _clue(plain, "colour", sure, colour_why),
        *(_clue(plain, name, "certain", why) for name in RANGE_FIELDS),
        *_geometry(finding),
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


def _fed_bytes(finding: Finding) -> list[Clue]:
    known = FAMILIES.get(finding.family)
    plain = Feeding(known.colour if known else "RGB", 1.0)
    why = f"as {finding.title} is fed ({known.source})" if known else "nothing tells; feed both orders and compare"
    return [
        _clue(plain, "colour", "likely" if known else "unsure", why),
        *(_clue(plain, name, "certain", "the input is uint8: pixels go in as they are") for name in RANGE_FIELDS),
        *_geometry(finding),
    ]


def _by_weights(seen: Seen, picture: Picture, finding: Finding) -> list[Clue]:
    measured, reason = pixel_range(seen, picture)
    in_bytes = measured == "bytes"
    feeding = Feeding("RGB" if seen.producer == "pytorch" else "BGR", 1.0 if in_bytes else UNIT)
    normal = reason if in_bytes else f"{reason}; 0..1 and ImageNet's mean and std both fit: check how it was trained"
    sure: Confidence = "likely" if in_bytes else "unsure"
    return [
        _clue(feeding, "colour", "unsure", "nothing in the file tells; feed RGB and BGR to it and compare"),
        _clue(feeding, "scale", "likely" if measured else "unsure", reason),
        _clue(feeding, "mean", sure, normal),
        _clue(feeding, "std", sure, normal),
        *_geometry(finding),
    ]


def _geometry(finding: Finding) -> list[Clue]:
    """Resizing as the family does it; stretched, and unsure, where there is none."""
    known = FAMILIES.get(finding.family)
    if known is not None:
        return [_clue(known, n, "likely", f"as {finding.title} is fed ({known.source})") for n in GEOMETRY_FIELDS]
    why = "nothing in the file tells; stretched is the simplest: check how it was trained"
    return [_clue(Feeding("RGB", 1.0), name, "unsure", why) for name in GEOMETRY_FIELDS]


def _clue(feeding: Feeding, name: str, sure: Confidence, why: str) -> Clue:
    """One field as fed; a doubt of the family makes it unsure."""
    doubt = feeding.doubts.get(name)
    return Clue(f"picture.{name}", getattr(feeding, name), doubt or why, "unsure" if doubt else sure)


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
