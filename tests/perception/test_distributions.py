"""What a drive looks like in counts: equal drives are equal, another image path or a blinder model is far away."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from perception.distributions import LEAST_FRAMES, MOST_OBJECTS, InputCounts, OutputCounts, drift_of
from perception.results import Detections, SegmentationMap
from perception.telemetry_record import Counted


def pictures(count=150, *, seed=0):
    """Blurred noise of changing brightness, bluish: something a camera could see."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        noise = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        smooth = cv2.GaussianBlur(noise, (5, 5), 1.0).astype(np.float32)
        yield np.clip(smooth * random.uniform(0.6, 1.2) + (25, 0, -25), 0, 255).astype(np.uint8)


def results(count=150, *, seed=0, kept=1.0, fainter=0.0, one_class=False):
    """What a detector says, or would say if it kept fewer, was less sure, or knew one class."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        objects = random.poisson(5 * kept)
        scores = np.sort(random.beta(6, 2, objects) - fainter)[::-1].astype(np.float32)
        classes = np.zeros(objects) if one_class else random.integers(0, 4, objects)
        yield Detections(np.zeros((objects, 4), np.float32), scores, classes.astype(np.int32))


def counted(counts, each):
    for one in each:
        counts.add(one)
    return counts.counted()


def input_drift(change):
    drive = counted(InputCounts(), (change(picture) for picture in pictures(seed=1)))
    return drift_of(drive, counted(InputCounts(), pictures())).divergence


def output_drift(**changes):
    drive = counted(OutputCounts(), results(seed=1, **changes))
    return drift_of(drive, counted(OutputCounts(), results())).divergence


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture[..., ::-1],
        lambda picture: picture // 2,
        lambda picture: cv2.GaussianBlur(picture, (9, 9), 3.0),
        lambda picture: np.full_like(picture, 128),
    ],
    ids=["red and blue swapped", "dark", "blurred", "grey"],
)
def test_another_image_path_lies_far_from_what_chance_does(change):
    chance = input_drift(lambda picture: picture)
    assert 0 < chance < 0.02
    assert input_drift(change) > 5 * chance


@pytest.mark.parametrize("change", [{"kept": 0.5}, {"fainter": 0.2}, {"one_class": True}, {"kept": 0.0}])
def test_a_model_that_says_something_else_lies_far_from_what_chance_does(change):
    chance = output_drift()
    assert 0 < chance < 0.02
    assert output_drift(**change) > 3 * chance


def test_the_same_drive_is_no_drift_at_all():
    reference = counted(OutputCounts(), results())
    drift = drift_of(reference, reference)
    assert drift.divergence == 0
    assert sum(drift.counts) == sum(sum(counts) for counts in reference.parts.values())


def test_masks_are_told_by_their_classes():
    def masks(road, seed):
        random = np.random.default_rng(seed)
        for _ in range(120):
            yield SegmentationMap((random.random((40, 60)) > road).astype(np.uint8), 60, 40)

    reference = counted(OutputCounts(), masks(0.5, 0))
    assert drift_of(counted(OutputCounts(), masks(0.5, 1)), reference).divergence < 0.001
    assert drift_of(counted(OutputCounts(), masks(0.9, 1)), reference).divergence > 0.1


def test_nothing_is_said_of_too_few_frames_or_other_bins():
    reference = counted(OutputCounts(), results())
    assert drift_of(counted(OutputCounts(), results(LEAST_FRAMES)), reference) is not None
    assert drift_of(counted(OutputCounts(), results(LEAST_FRAMES - 1)), reference) is None
    assert drift_of(reference, counted(OutputCounts(), results(LEAST_FRAMES - 1))) is None
    assert drift_of(reference, None) is None
    other = Counted(frames=reference.frames, parts={**reference.parts, "scores": (1, 2, 3)})
    assert drift_of(reference, other) is None


def test_the_smallest_picture_and_the_fullest_frame_are_counted():
    assert counted(InputCounts(), [np.zeros((1, 1, 3), np.uint8), np.full((2, 3, 3), 255, np.uint8)]).frames == 2
    crowd = Detections(np.zeros((900, 4), np.float32), np.ones(900, np.float32), np.full(900, 500, np.int32))
    parts = counted(OutputCounts(), [crowd]).parts
    assert parts["objects"][MOST_OBJECTS] == 1
    assert sum(parts["scores"]) == sum(parts["classes"]) == 900
