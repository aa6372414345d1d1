"""Slices of labelled objects: by class, size, distance, how much of them shows, and the light and weather around.

What the labels do not say makes no slice. An object belongs to one slice of each kind; slices are not crossed, since
each crossing halves the objects that must carry a verdict.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledObject

HEIGHTS_PX = (25.0, 50.0, 100.0)  # KITTI's easy objects are 40 px and more, its others 25 and more
DISTANCES_M = (20.0, 40.0, 60.0)
CUT = 0.15  # of the object beyond the picture's edge: KITTI counts up to here as easy
HIDDEN = (0.1, 0.4)
HIDDEN_WORDS = ("visible", "partly", "largely")


@dataclass(frozen=True, slots=True)
class Situated:
    """A labelled object that is asked for, the group it is asked in, and the frame around it."""

    labelled: LabelledObject
    group: str
    frame: LabelledFrame

    @property
    def height_px(self) -> float:
        """Of its labelled box."""
        _, top, _, bottom = self.labelled.box_px
        return bottom - top


def slices_of(each: Situated) -> tuple[str, ...]:
    """The names of the slices an object belongs to, `kind: value`."""
    named = ((kind, value(each)) for kind, value in KINDS.items())
    return tuple(f"{kind}: {value}" for kind, value in named if value is not None)


def order_of(name: str) -> tuple[int, float, str]:
    """Sorts slices by kind, sizes and distances from small to large, words by the alphabet."""
    kind, _, value = name.partition(": ")
    numbers = [float(word) for word in value.split() if word.replace(".", "").isdecimal()]
    return list(KINDS).index(kind), -1.0 if value.startswith("under") else min(numbers, default=0.0), value


def groups_asked_for(labelled: LabelledObject, class_map: ClassMap) -> tuple[str, ...]:
    """The groups of the class map in which an object counts; none for one that is too small or ignored."""
    if not class_map.asks_for(labelled):
        return ()
    return tuple(name for name, group in class_map.groups.items() if labelled.class_name in group.labels)


def _height(each: Situated) -> str:
    return _between(each.height_px, HEIGHTS_PX, "px")


def _distance(each: Situated) -> str | None:
    distance_m = each.labelled.distance_m
    return None if distance_m is None else _between(distance_m, DISTANCES_M, "m")


def _truncation(each: Situated) -> str | None:
    truncation = each.labelled.truncation
    return None if truncation is None else "cut" if truncation > CUT else "whole"


def _occlusion(each: Situated) -> str | None:
    if each.labelled.hidden is not None or each.labelled.occlusion is None:
        return each.labelled.hidden
    return HIDDEN_WORDS[bisect_right(HIDDEN, each.labelled.occlusion)]


def _between(value: float, steps: Sequence[float], unit: str) -> str:
    place = bisect_right(steps, value)
    if place == 0:
        return f"under {steps[0]:g} {unit}"
    if place == len(steps):
        return f"from {steps[-1]:g} {unit}"
    return f"{steps[place - 1]:g} to {steps[place]:g} {unit}"


KINDS: Mapping[str, Callable[[Situated], str | None]] = {
    "class": lambda each: each.group,
    "height": _height,
    "distance": _distance,
    "truncation": _truncation,
    "occlusion": _occlusion,
    "light": lambda each: each.frame.light,
    "weather": lambda each: each.frame.weather,
}
