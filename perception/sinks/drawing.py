"""A published frame as a picture for people: what was seen, in which frame, and whether it came in time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.pipeline import FrameResult, Status
from perception.results import Detections, SegmentationMap

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]  # blue, green, red, as everywhere in OpenCV

# Told apart with every kind of colour blindness. Source: M. Okabe and K. Ito, Color Universal Design, 2008,
# jfly.uni-koeln.de/color; their black is left out, since it does not stand out from a road, for a light grey.
PALETTE: tuple[Colour, ...] = (
    (0, 159, 230),
    (233, 180, 86),
    (115, 158, 0),
    (66, 228, 240),
    (178, 114, 0),
    (0, 94, 213),
    (167, 121, 204),
    (225, 225, 225),
)
STATUS_COLOURS = {
    Status.ON_TIME: (115, 158, 0),
    Status.LATE: (0, 94, 213),
    Status.SKIPPED: (130, 130, 130),
    Status.STALE: (66, 150, 215),
    Status.DEGRADED: (0, 159, 230),
    Status.FAULT: (60, 30, 190),
}
UNTINTED = frozenset({"background", "unlabelled", "unlabeled", "void", "other"})

_STRIP, _TRACK, _WHITE, _DIM, _BLACK = (32, 28, 26), (74, 68, 64), (245, 245, 245), (176, 172, 168), (12, 12, 12)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_TINT = 0.45
_MOST_LABELS = 40
_UNIX_TIME_FROM_NS = 10**18  # 2001: clocks below it count from the start of the recording


def draw(outcome: FrameResult, classes: Sequence[str]) -> Pixels:
    """Draw one frame with its result, under a strip that says which frame it is and whether it came in time.

    Args:
        outcome: a published frame.
        classes: name of each class id.

    Returns:
        (H + strip, W, 3) uint8 BGR, a new array; nothing of the picture is hidden by the strip.
    """
    pen = _Pen.for_picture(outcome.frame.width_px, outcome.frame.height_px)
    canvas = np.empty((outcome.frame.height_px + pen.strip_px, outcome.frame.width_px, 3), np.uint8)
    picture = canvas[pen.strip_px :]
    np.copyto(picture, outcome.frame.pixels)
    if outcome.result is None:
        np.multiply(picture, 0.5, out=picture, casting="unsafe")
    elif isinstance(outcome.result, SegmentationMap):
        _draw_map(picture, outcome.result, classes, pen)
    else:
        _draw_detections(picture, outcome.result, classes, pen)
    _draw_strip(canvas[: pen.strip_px], outcome, pen)
    return canvas


def colour_of(class_id: int) -> Colour:
    """The colour of a class, the same in every picture; colours repeat after eight classes, names do not."""
    return PALETTE[class_id % len(PALETTE)]


@dataclass(frozen=True, slots=True)
class _Pen:
    """Sizes that suit a picture, all in pixels of it."""

    unit: float

    @classmethod
    def for_picture(cls, width_px: int, height_px: int) -> _Pen:
        """One unit is a pixel at 1280 wide; small pictures keep a size that can be read."""
        return cls(min(max(min(width_px / 1280, height_px / 360), 0.65), 4.0))

    def px(self, units: float) -> int:
        """A length, at least one pixel."""
        return max(1, round(units * self.unit))

    @property
    def strip_px(self) -> int:
        """Height of the strip, an even number so that the whole stays even where the picture is."""
        return 2 * round(17 * self.unit)

    @property
    def text_thickness(self) -> int:
        return max(1, round(self.unit))

    @property
    def text_scale(self) -> float:
        return 0.5 * self.unit

    def text_size(self, text: str) -> tuple[int, int]:
        """Width and height of capital letters."""
        width, _ = cv2.getTextSize(text, _FONT, self.text_scale, self.text_thickness)[0]
        height = cv2.getTextSize("H", _FONT, self.text_scale, self.text_thickness)[0][1]
        return int(width), int(height)

    def label_size(self, text: str) -> tuple[int, int]:
        """Width and height of a label with its margins."""
        width, height = self.text_size(text)
        return width + 2 * self.px(5), height + 2 * self.px(5)

    def write(self, picture: Pixels, text: str, *, left_px: int, middle_px: int, colour: Colour) -> int:
        """Write text whose capitals are centred on a row; returns where it ends."""
        width, height = self.text_size(text)
        baseline = (left_px, middle_px + height // 2)
        cv2.putText(picture, text, baseline, _FONT, self.text_scale, colour, self.text_thickness, cv2.LINE_AA)
        return left_px + width


@dataclass(frozen=True, slots=True)
class _Area:
    """A rectangle in pixels; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)

    def common_area(self, other: _Area) -> int:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)

    def overlaps(self, other: _Area) -> bool:
        return self.common_area(other) > 0

    def lies_in(self, other: _Area) -> bool:
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


def _draw_detections(picture: Pixels, found: Detections, classes: Sequence[str], pen: _Pen) -> None:
    """Boxes from the weakest to the best, so that the best lie on top; then labels, the best first choosing a place."""
    height, width = picture.shape[:2]
    corners = np.clip(np.rint(found.boxes_px), 0, (width - 1, height - 1, width - 1, height - 1)).astype(int)
    areas = [_Area(*corner) for corner in corners.tolist()]
    for area, class_id in zip(reversed(areas), reversed(found.class_ids.tolist()), strict=True):
        for colour, units in ((_BLACK, 4), (colour_of(class_id), 2)):
            cv2.rectangle(picture, (area.left, area.top), (area.right, area.bottom), colour, pen.px(units))
    for text, place, colour in _labels_of(found, areas, classes, pen=pen, within=_Area(0, 0, width, height)):
        _draw_label(picture, text, place, colour=colour, pen=pen)


def _labels_of(
    found: Detections, boxes: Sequence[_Area], classes: Sequence[str], *, pen: _Pen, within: _Area
) -> Iterator[tuple[str, _Area, Colour]]:
    """Text, place and colour of each label, those of the best boxes first choosing where to stand.

    No label covers another, and one larger than its own box covers no other box: what is small and crowded goes
    unnamed, and so does everything after the first few dozen, where nobody could read on.
    """
    taken: list[_Area] = []
    boxes = boxes[:_MOST_LABELS]
    for box, class_id, score in zip(boxes, found.class_ids.tolist(), found.scores.tolist(), strict=False):
        text = f"{name_of(class_id, classes)} {score:.2f}"
        others = [other for other in boxes if other != box]
        free = [
            place
            for place in _places_beside(box, *pen.label_size(text), edge_px=pen.px(2), within=within)
            if not any(map(place.overlaps, taken)) and (place.area < box.area or not any(map(place.overlaps, others)))
        ]
        if free:
            taken.append(min(free, key=lambda place: sum(map(place.common_area, others))))
            yield text, taken[-1], colour_of(class_id)


def _places_beside(box: _Area, width: int, height: int, *, edge_px: int, within: _Area) -> Iterator[_Area]:
    """Where a label may stand, best place first: above its box, inside it, below it, above its right end."""
    corners = (
        (box.left - edge_px, box.top - height),
        (box.left + edge_px, box.top + edge_px),
        (box.left - edge_px, box.bottom),
        (box.right + edge_px - width, box.top - height),
    )
    for left, top in corners:
        left = min(max(left, within.left), within.right - width)
        place = _Area(left, top, left + width, top + height)
        if place.lies_in(within):
            yield place


def _draw_label(picture: Pixels, text: str, place: _Area, *, colour: Colour, pen: _Pen) -> None:
    _fill_rounded(picture, place, colour=colour, radius_px=pen.px(3))
    middle = (place.top + place.bottom) // 2
    pen.write(picture, text, left_px=place.left + pen.px(5), middle_px=middle, colour=_ink_on(colour))


def _draw_map(picture: Pixels, found: SegmentationMap, classes: Sequence[str], pen: _Pen) -> None:
    """Tint each class and name those that are there."""
    height, width = picture.shape[:2]
    class_ids = cv2.resize(found.class_ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    present = np.flatnonzero(np.bincount(found.class_ids.ravel())).tolist()
    tinted = [class_id for class_id in present if name_of(class_id, classes).lower() not in UNTINTED]
    colours, shown = np.zeros((256, 1, 3), np.uint8), np.zeros(256, np.uint8)
    for class_id in tinted:
        colours[class_id], shown[class_id] = colour_of(class_id), 255
    blended = cv2.addWeighted(picture, 1 - _TINT, cv2.applyColorMap(class_ids, colours), _TINT, 0)
    cv2.copyTo(blended, cv2.LUT(class_ids, shown), picture)
    _draw_legend(picture, [(name_of(class_id, classes), colour_of(class_id)) for class_id in tinted], pen)


def _draw_legend(picture: Pixels, entries: Sequence[tuple[str, Colour]], pen: _Pen) -> None:
    """Names on their colours, along the lower edge."""
    left, bottom = pen.px(10), picture.shape[0] - pen.px(10)
    for name, colour in entries:
        width, height = pen.text_size(name)
        place = _Area(left, bottom - height - 2 * pen.px(6), left + width + 2 * pen.px(7), bottom)
        if place.right > picture.shape[1] or place.top < 0:
            return
        _draw_label(picture, name, place, colour=colour, pen=pen)
        left = place.right + pen.px(8)


def _draw_strip(strip: Pixels, outcome: FrameResult, pen: _Pen) -> None:
    """Identity from the left, punctuality from the right; what does not fit is left out, least important first."""
    strip[:] = _STRIP
    middle, gap = strip.shape[0] // 2, pen.px(18)
    free_from = pen.write(strip, outcome.frame.camera_id, left_px=pen.px(12), middle_px=middle, colour=_WHITE) + gap
    free_to = _draw_status(strip, outcome.status, pen) - gap
    latency = f"{outcome.timings.total_ns / 1e6:.1f} / {outcome.deadline_ns / 1e6:.1f} ms"
    for text in (f"frame {outcome.frame.frame_id}", _clock(outcome.frame.captured_ns)):
        if free_from + pen.text_size(text)[0] + gap + pen.text_size(latency)[0] <= free_to:
            free_from = pen.write(strip, text, left_px=free_from, middle_px=middle, colour=_DIM) + gap
    if outcome.result is None or free_from + pen.text_size(latency)[0] > free_to:
        return
    free_to -= pen.text_size(latency)[0]
    pen.write(strip, latency, left_px=free_to, middle_px=middle, colour=_WHITE)
    if free_from + pen.px(150) <= free_to - gap:
        _draw_budget(strip, outcome, right_px=free_to - gap, pen=pen)


def _draw_status(strip: Pixels, status: Status, pen: _Pen) -> int:
    """The status on its colour at the right end; returns where it begins."""
    text = status.value.replace("_", " ")
    width, height = pen.text_size(text)
    middle, right = strip.shape[0] // 2, strip.shape[1] - pen.px(10)
    reach = height // 2 + pen.px(6)
    place = _Area(right - width - 2 * pen.px(9), middle - reach, right, middle + reach)
    _draw_pill(strip, text, place, colour=STATUS_COLOURS[status], pen=pen)
    return place.left


def _draw_pill(strip: Pixels, text: str, place: _Area, *, colour: Colour, pen: _Pen) -> None:
    _fill_rounded(strip, place, colour=colour, radius_px=(place.bottom - place.top) / 2)
    middle = (place.top + place.bottom) // 2
    pen.write(strip, text, left_px=place.left + pen.px(9), middle_px=middle, colour=_ink_on(colour))


def _draw_budget(strip: Pixels, outcome: FrameResult, *, right_px: int, pen: _Pen) -> None:
    """How much of the deadline was used, as a bar; a late frame fills it."""
    middle, reach = strip.shape[0] // 2, pen.px(4)
    whole = _Area(right_px - pen.px(140), middle - reach, right_px, middle + reach)
    used = min(1.0, outcome.timings.total_ns / max(1, outcome.deadline_ns))
    end = whole.left + max(2 * reach, round(used * (whole.right - whole.left)))
    _fill_rounded(strip, whole, colour=_TRACK, radius_px=reach)
    _fill_rounded(
        strip, _Area(whole.left, whole.top, end, whole.bottom), colour=STATUS_COLOURS[outcome.status], radius_px=reach
    )


def _fill_rounded(picture: Pixels, area: _Area, *, colour: Colour, radius_px: float) -> None:
    """A filled rectangle with round corners. Corners are drawn in sixteenths of a pixel, or they would bulge."""
    left, top, right, bottom = area.left, area.top, area.right - 1, area.bottom - 1
    reach = math.ceil(radius_px)
    cv2.rectangle(picture, (left + reach, top), (right - reach, bottom), colour, cv2.FILLED)
    cv2.rectangle(picture, (left, top + reach), (right, bottom - reach), colour, cv2.FILLED)
    radius = round((radius_px - 0.75) * 16)
    for x in (left + radius_px - 0.5, right - radius_px + 0.5):
        for y in (top + radius_px - 0.5, bottom - radius_px + 0.5):
            cv2.circle(picture, (round(x * 16), round(y * 16)), radius, colour, cv2.FILLED, cv2.LINE_AA, shift=4)


def _ink_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out (luma weights of ITU-R BT.601)."""
    blue, green, red = colour
    return _BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else _WHITE


def name_of(class_id: int, classes: Sequence[str]) -> str:
    """The name of a class; a number where it has none."""
    return classes[class_id] if class_id < len(classes) else f"class {class_id}"


def _clock(captured_ns: int) -> str:
    """Seconds of the recording, or the time of day where its clock is the world's."""
    if captured_ns < _UNIX_TIME_FROM_NS:
        return f"{captured_ns / 1e9:.3f} s"
    instant = datetime.fromtimestamp(captured_ns // 1_000_000_000, tz=timezone.utc)
    return f"{instant:%Y-%m-%d %H:%M:%S}.{captured_ns // 1_000_000 % 1000:03d}"
