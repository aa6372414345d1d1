"""The frames in which engine and reference differ most, with what each of them says drawn into the picture."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Frame
from perception.results import Detections, Result, SegmentationMap
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.parity import differences, paired, reported
from safety_gates.result_log import FrameKey, ResultLog
from safety_gates.trial import Trial

MOST_FRAMES = 10
WIDTH_PX = 720
JPEG_QUALITY = 82
BOX_LINE_PX = 2
DASH_PX = 9

Colour: TypeAlias = tuple[int, int, int]  # BGR
# Told apart by shape as well as by colour: Okabe & Ito 2008, "Color Universal Design".
AGREED: Colour = (233, 180, 86)
ALONE: Colour = (0, 159, 230)
KEY = (("both report it", "#56b4e9", False), ("only this model reports it", "#e69f00", True))
MASK_KEY = (("pixels to which the two models give different classes", "#e69f00", False),)


@dataclass(frozen=True, slots=True)
class Side:
    """One picture of a pair."""

    uri: str
    width_px: int
    height_px: int
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A frame as the reference and as the engine see it."""

    title: str
    sides: tuple[Side, Side]


def worst_comparisons(trial: Trial, parity: KeptEvidence) -> tuple[Comparison, ...]:
    """The frames with the largest differences, worst first; none where the two agree everywhere.

    Raises:
        SourceError: the recording cannot be read again.
    """
    difference = differences(parity)
    order = [int(index) for index in np.argsort(-difference, kind="stable")[:MOST_FRAMES] if difference[index] > 0]
    if not order or trial.case.reference is None:
        return ()
    packages = (trial.case.reference, trial.case.package)
    logs = [ResultLog.from_arrays(trial.results(each).arrays, each.spec.task) for each in packages]
    frames = _frames_at(trial, set(order))
    classes = trial.case.package.spec.classes
    found = []
    for index in order:
        sides = [log.results[index] for log in logs]
        shown = [
            reported(each, [result])[0] if isinstance(result, Detections) else result
            for each, result in zip(packages, sides, strict=True)
        ]
        found.append(_comparison(frames[index], logs[0].frames[index], shown, classes))
    return tuple(found)


def _frames_at(trial: Trial, wanted: set[int]) -> dict[int, Frame]:
    """The frames at these positions of the recording; reading stops at the last of them."""
    found: dict[int, Frame] = {}
    with trial.reader.frames("pictures of the worst frames") as frames:
        for index, frame in enumerate(frames):
            if index in wanted:
                found[index] = frame
            if len(found) == len(wanted):
                break
    return found


def _comparison(frame: Frame, key: FrameKey, shown: Sequence[Result], classes: Sequence[str]) -> Comparison:
    reference, engine = shown
    title = f"{key.camera_id}, frame {key.name}"
    if isinstance(reference, Detections) and isinstance(engine, Detections):
        pairing = paired(reference, engine)
        sides = (
            _boxes_side(frame, reference, pairing.missed, "reference", classes),
            _boxes_side(frame, engine, pairing.ghosts, "engine", classes),
        )
        return Comparison(f"{title}: {len(pairing.missed)} missed, {len(pairing.ghosts)} added", sides)
    if isinstance(reference, SegmentationMap) and isinstance(engine, SegmentationMap):
        differs = reference.at_source_size() != engine.at_source_size()
        sides = (_mask_side(frame, reference, differs, "reference"), _mask_side(frame, engine, differs, "engine"))
        return Comparison(f"{title}: {differs.mean():.2%} of the pixels differ", sides)
    raise ValueError(f"{title}: got {type(reference).__name__} and {type(engine).__name__}, expected two of a kind")


def _boxes_side(
    frame: Frame, detections: Detections, alone: NDArray[np.intp], who: str, classes: Sequence[str]
) -> Side:
    picture, scale = _scaled(frame)
    for index in range(len(detections)):
        box = detections.boxes_px[index] * scale
        name = f"{classes[int(detections.class_ids[index])]} {detections.scores[index]:.2f}"
        if index in alone:
            _dashed_box(picture, box, ALONE)
            _label(picture, box, name, ALONE)
        else:
            cv2.rectangle(picture, _point(box[:2]), _point(box[2:]), AGREED, BOX_LINE_PX, cv2.LINE_AA)
    caption = f"{who}: {len(detections)} objects, {len(alone)} of them reported by it alone"
    return _side(picture, f"{frame.name} as the {who} sees it", caption)


def _mask_side(frame: Frame, result: SegmentationMap, differs: NDArray[np.bool_], who: str) -> Side:
    """Classes as shades of blue over a grey picture, differences on top."""
    picture, _ = _scaled(frame)
    size_px = (picture.shape[1], picture.shape[0])
    shade = cv2.resize(result.at_source_size(), size_px, interpolation=cv2.INTER_NEAREST).astype(np.float64)
    mixed = picture * 0.55 + (shade / max(1.0, shade.max()))[..., None] * np.array(AGREED) * 0.45
    picture = mixed.astype(np.uint8)
    picture[cv2.resize(differs.astype(np.uint8), size_px, interpolation=cv2.INTER_NEAREST) > 0] = ALONE
    return _side(picture, f"{frame.name} as the {who} sees it", who)


def _scaled(frame: Frame) -> tuple[NDArray[np.uint8], float]:
    """A picture of its own at the report's width, and source → report scale; small pictures stay as they are."""
    scale = min(1.0, WIDTH_PX / frame.width_px)
    size_px = (round(frame.width_px * scale), round(frame.height_px * scale))
    return np.array(cv2.resize(frame.pixels, size_px, interpolation=cv2.INTER_AREA)), scale


def _side(picture: NDArray[np.uint8], alt: str, caption: str) -> Side:
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
    return Side(uri, picture.shape[1], picture.shape[0], alt, caption)


def _dashed_box(picture: NDArray[np.uint8], box: NDArray[np.float32], colour: Colour) -> None:
    x1, y1, x2, y2 = (float(side) for side in box)
    corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)])
    for start, end in pairwise(corners):
        length = max(1.0, float(np.linalg.norm(end - start)))
        for begin in np.arange(0.0, length, 2 * DASH_PX):
            dash = [start + (end - start) * share for share in (begin / length, min(1.0, (begin + DASH_PX) / length))]
            cv2.line(picture, _point(dash[0]), _point(dash[1]), colour, BOX_LINE_PX + 1, cv2.LINE_AA)


def _label(picture: NDArray[np.uint8], box: NDArray[np.float32], text: str, colour: Colour) -> None:
    (width_px, height_px), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    left = int(np.clip(box[0], 0, max(0, picture.shape[1] - width_px - 6)))
    bottom = int(np.clip(box[1], height_px + 6, picture.shape[0] - 2))
    cv2.rectangle(picture, (left, bottom - height_px - 6), (left + width_px + 6, bottom), colour, cv2.FILLED)
    cv2.putText(picture, text, (left + 3, bottom - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def _point(xy: NDArray[np.floating]) -> tuple[int, int]:
    return round(float(xy[0])), round(float(xy[1]))
