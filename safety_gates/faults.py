"""Faults of a camera, planted into sound frames: what comes then, and which of it is not as it should be.

A stretch is `BEFORE + FAULTY + AFTER` sound frames of one camera and one size. Each fault begins at frame `BEFORE` and
lasts for `FAULTY` frames; before and after it the frames are the recording's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.camera_health import Ailment
from perception.frame import Frame

BEFORE, FAULTY, AFTER = 8, 4, 8
LENGTH = BEFORE + FAULTY + AFTER
JUMP_NS = 1_000_000_000
TORN_SHARE = 0.5  # of the rows, from below, are the picture's before
SMALLER = 2

Harmed: TypeAlias = tuple[NDArray[np.uint8], tuple[int, ...]]
"""Pixels, and the positions in the stretch of the pictures they show."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame as it comes.

    Attributes:
        frame: what comes.
        arrived_ns: when, on a steady clock.
        faulty: it is not as it should be.
        shows: positions in the stretch of the pictures it is made of; none where nothing can be seen.
        spoilt: the engine gives numbers that are none for it.
    """

    frame: Frame
    arrived_ns: int
    faulty: bool
    shows: tuple[int, ...]
    spoilt: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a camera.

    Attributes:
        plant: from a stretch to what arrives.
        flag: what the camera's health must say; None where the engine must refuse its own numbers.
    """

    plant: Callable[[Sequence[Frame]], list[Arrival]]
    flag: Ailment | None


def sound(stretch: Sequence[Frame]) -> list[Arrival]:
    """The stretch as it was recorded."""
    return [Arrival(frame, frame.captured_ns, faulty=False, shows=(place,)) for place, frame in enumerate(stretch)]


def _black(stretch: Sequence[Frame], place: int) -> Harmed:
    return np.zeros_like(stretch[place].pixels), ()


def _saturated(stretch: Sequence[Frame], place: int) -> Harmed:
    return np.full_like(stretch[place].pixels, 255), ()


def _frozen(stretch: Sequence[Frame], _: int) -> Harmed:
    return stretch[BEFORE - 1].pixels, (BEFORE - 1,)


def _torn(stretch: Sequence[Frame], place: int) -> Harmed:
    """The upper part is new, the lower one is still the picture's before."""
    pixels = stretch[place].pixels.copy()
    rows = round(TORN_SHARE * len(pixels))
    pixels[rows:] = stretch[place - 1].pixels[rows:]
    return pixels, (place - 1, place)


def _wrong_size(stretch: Sequence[Frame], place: int) -> Harmed:
    frame = stretch[place]
    size_px = (max(1, frame.width_px // SMALLER), max(1, frame.height_px // SMALLER))
    return np.asarray(cv2.resize(frame.pixels, size_px, interpolation=cv2.INTER_AREA), np.uint8), (place,)


def _pixels(harm: Callable[[Sequence[Frame], int], Harmed]) -> Callable[[Sequence[Frame]], list[Arrival]]:
    """Plant other pixels into the faulty frames; identity and time stay."""

    def plant(stretch: Sequence[Frame]) -> list[Arrival]:
        arrivals = sound(stretch)
        for place in range(BEFORE, BEFORE + FAULTY):
            pixels, shows = harm(stretch, place)
            frame = replace(stretch[place], pixels=pixels)
            arrivals[place] = replace(arrivals[place], frame=frame, faulty=True, shows=shows)
        return arrivals

    return plant


def _spoilt(stretch: Sequence[Frame]) -> list[Arrival]:
    arrivals = sound(stretch)
    middle = [replace(each, faulty=True, spoilt=True) for each in arrivals[BEFORE : BEFORE + FAULTY]]
    return [*arrivals[:BEFORE], *middle, *arrivals[BEFORE + FAULTY :]]


def _dropped(stretch: Sequence[Frame]) -> list[Arrival]:
    """The frames never come; the first that comes again is the one that can tell."""
    first, *rest = sound(stretch)[BEFORE + FAULTY :]
    return [*sound(stretch)[:BEFORE], replace(first, faulty=True), *rest]


def _duplicated(stretch: Sequence[Frame]) -> list[Arrival]:
    arrivals = sound(stretch)
    period_ns = stretch[BEFORE].captured_ns - stretch[BEFORE - 1].captured_ns
    again = replace(arrivals[BEFORE], arrived_ns=arrivals[BEFORE].arrived_ns + period_ns // 2, faulty=True)
    return [*arrivals[: BEFORE + 1], again, *arrivals[BEFORE + 1 :]]


def _reordered(stretch: Sequence[Frame]) -> list[Arrival]:
    """A frame comes after its next; both arrive when a frame should."""
    arrivals = sound(stretch)
    early, late = arrivals[BEFORE], arrivals[BEFORE + 1]
    arrivals[BEFORE] = replace(late, arrived_ns=early.arrived_ns)
    arrivals[BEFORE + 1] = replace(early, arrived_ns=late.arrived_ns, faulty=True)
    return arrivals


def _clock_jump(stretch: Sequence[Frame]) -> list[Arrival]:
    """From one frame on the camera's clock is another; that frame is the one that can tell."""
    arrivals = sound(stretch)
    for place in range(BEFORE, len(arrivals)):
        frame = replace(arrivals[place].frame, captured_ns=arrivals[place].frame.captured_ns + JUMP_NS)
        arrivals[place] = replace(arrivals[place], frame=frame, faulty=place == BEFORE)
    return arrivals


FAULTS: Mapping[str, Fault] = {
    "black": Fault(_pixels(_black), Ailment.BLACK),
    "saturated": Fault(_pixels(_saturated), Ailment.SATURATED),
    "frozen": Fault(_pixels(_frozen), Ailment.FROZEN),
    "torn": Fault(_pixels(_torn), Ailment.TORN),
    "wrong size": Fault(_pixels(_wrong_size), Ailment.WRONG_SIZE),
    "no numbers": Fault(_spoilt, None),
    "dropped": Fault(_dropped, Ailment.GAP),
    "duplicated": Fault(_duplicated, Ailment.DUPLICATE),
    "reordered": Fault(_reordered, Ailment.OUT_OF_ORDER),
    "clock jump": Fault(_clock_jump, Ailment.CLOCK_JUMP),
}
