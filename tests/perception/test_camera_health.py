"""Each ailment is planted into a healthy drive and flagged within its stated delay; healthy recordings stay healthy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.camera_health import UNFIT, Ailment, CameraHealth, _cell_means
from perception.frame import Frame
from perception.sources.table import open_source

PERIOD_NS = 33_333_333
WELL_FOR = 60
DRIVE = Path(__file__).resolve().parents[2] / "data" / "samples" / "drive"
Fault = Callable[[Frame, list[Frame]], Frame]


@pytest.fixture(scope="module")
def drive() -> list[Frame]:
    """A sharp textured world that moves past the camera, with the noise of a sensor."""
    chance = np.random.default_rng(3)
    world = cv2.resize(chance.integers(0, 255, (70, 400, 3), np.uint8), (1600, 280), interpolation=cv2.INTER_CUBIC)
    frames = []
    for index in range(300):
        left = (index * 7) % 1200
        noisy = world[:, left : left + 400].astype(np.int16) + chance.integers(-12, 12, (280, 400, 1))
        frames.append(frame_of(np.clip(noisy, 21, 249).astype(np.uint8), index))
    return frames


def frame_of(pixels: np.ndarray, index: int, captured_ns: int | None = None) -> Frame:
    return Frame(pixels, "front", index, index * PERIOD_NS if captured_ns is None else captured_ns, str(index))


def first_flagged(frames: list[Frame], fault: Fault | None) -> dict[Ailment, int]:
    """Ailment → how many faulty frames it took until it was flagged, counting the one it was flagged with."""
    camera, delays = CameraHealth(size_px=(400, 280), rate_hz=30), {}
    for index, frame in enumerate(frames):
        shown = fault(frame, frames) if fault and index >= WELL_FOR else frame
        for ailment in camera.observe(shown, arrived_ns=index * PERIOD_NS + 1_000_000):
            delays.setdefault(ailment, index - WELL_FOR + 1)
    return delays


def torn(frame: Frame, frames: list[Frame]) -> Frame:
    pixels = frame.pixels.copy()
    pixels[180:] = frames[frame.frame_id - 1].pixels[180:]
    return frame_of(pixels, frame.frame_id)


def unwritten(frame: Frame, _: list[Frame]) -> Frame:
    pixels = frame.pixels.copy()
    pixels[200:] = 0
    return frame_of(pixels, frame.frame_id)


def smeared(frame: Frame, _: list[Frame]) -> Frame:
    pixels = frame.pixels.copy()
    pixels[60:220, 80:260] = (50, 60, 70)
    return frame_of(pixels, frame.frame_id)


def at(captured_ns: Callable[[int], int]) -> Fault:
    return lambda frame, _: frame_of(frame.pixels, frame.frame_id, captured_ns(frame.frame_id))


def seen_as(pixels: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda frame, _: frame_of(np.ascontiguousarray(pixels(frame.pixels)), frame.frame_id)


PLANTED: dict[str, tuple[Ailment, int, Fault]] = {
    "lens cap": (Ailment.BLACK, 1, seen_as(lambda pixels: pixels // 16)),
    "into the sun": (Ailment.SATURATED, 1, seen_as(lambda pixels: np.maximum(pixels, 252))),
    "half an old picture": (Ailment.TORN, 1, torn),
    "half a picture": (Ailment.TORN, 1, unwritten),
    "another mode": (Ailment.WRONG_SIZE, 1, seen_as(lambda pixels: pixels[:200])),
    "same picture": (Ailment.FROZEN, 3, lambda frame, frames: frame_of(frames[WELL_FOR].pixels, frame.frame_id)),
    "sent twice": (Ailment.DUPLICATE, 2, lambda frame, frames: frames[WELL_FOR]),
    "old one": (Ailment.OUT_OF_ORDER, 1, lambda frame, frames: frames[frame.frame_id - 5]),
    "clock set back": (Ailment.CLOCK_JUMP, 1, at(lambda index: index * PERIOD_NS - 10**9)),
    "clock set forward": (Ailment.CLOCK_JUMP, 1, at(lambda index: index * PERIOD_NS + 10**9)),
    "slower": (
        Ailment.RATE_DRIFT,
        33,
        at(lambda index: WELL_FOR * PERIOD_NS + (index - WELL_FOR) * PERIOD_NS * 11 // 10),
    ),
    "out of focus": (Ailment.BLURRED, 10, seen_as(lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 3))),
    "mud": (Ailment.DIRTY, 150, smeared),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_flagged_within_its_stated_delay(drive: list[Frame], name: str) -> None:
    ailment, delay, fault = PLANTED[name]
    assert ailment not in first_flagged(drive, None)
    assert first_flagged(drive, fault)[ailment] <= delay


def test_a_well_camera_is_called_well(drive: list[Frame]) -> None:
    assert first_flagged(drive, None) == {}


def test_a_lost_frame_is_a_gap_and_silence_is_overdue(drive: list[Frame]) -> None:
    camera = CameraHealth(size_px=(400, 280), rate_hz=30)
    camera.observe(drive[0], arrived_ns=0)
    assert not camera.overdue(PERIOD_NS * 14 // 10)
    assert camera.overdue(PERIOD_NS * 16 // 10)
    assert camera.observe(drive[2], arrived_ns=2 * PERIOD_NS) == {Ailment.GAP}
    assert camera.observe(drive[3], arrived_ns=3 * PERIOD_NS) == frozenset()


def test_a_delay_on_the_way_is_no_jump_of_the_clock(drive: list[Frame]) -> None:
    camera = CameraHealth(rate_hz=30)
    late_ns = [0, 0, 0, 600_000_000, 580_000_000, 550_000_000, 520_000_000, 0]
    found = [
        camera.observe(frame, arrived_ns=frame.captured_ns + late) for frame, late in zip(drive, late_ns, strict=False)
    ]
    assert found == [frozenset()] * len(late_ns)


def test_a_camera_recovers_when_its_fault_is_over(drive: list[Frame]) -> None:
    camera = CameraHealth(rate_hz=30)
    black = [frame_of(np.zeros_like(frame.pixels), frame.frame_id) for frame in drive[5:10]]
    found = [camera.observe(frame) for frame in [*drive[:5], *black, *drive[10:15]]]
    assert [Ailment.BLACK in ailments for ailments in found] == [False] * 5 + [True] * 5 + [False] * 5
    assert found[-1] == frozenset()


def test_what_shows_nothing_is_unfit_and_what_only_hurts_is_not() -> None:
    assert Ailment.FROZEN in UNFIT
    assert Ailment.BLURRED not in UNFIT


def test_the_sample_drive_is_well() -> None:
    source = open_source(DRIVE)
    cameras = {
        camera.camera_id: CameraHealth(size_px=(camera.width_px, camera.height_px), rate_hz=camera.rate_hz)
        for camera in source.cameras
    }
    found = {ailment for frame in source.frames() for ailment in cameras[frame.camera_id].observe(frame)}
    source.close()
    assert found == set()


@pytest.mark.parametrize(("height", "width"), [(68, 478), (4, 8), (1, 3), (7, 100)])
def test_the_texture_of_a_place_is_the_mean_of_its_samples_however_small_the_picture(height: int, width: int) -> None:
    samples = np.random.default_rng(2).integers(0, 256, (height, width), np.uint8)
    rows = [number * height // 4 for number in range(5)]
    columns = [number * width // 8 for number in range(9)]
    expected = [
        [samples[top : max(bottom, top + 1), left : max(right, left + 1)].mean() for left, right in pairwise(columns)]
        for top, bottom in pairwise(rows)
    ]
    assert np.allclose(_cell_means(samples), expected)
