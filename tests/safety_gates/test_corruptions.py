"""Spoilt pictures: repeatable, worse with each severity, and the original stays as it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from safety_gates.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from tests.mutation.road import SAMPLES


@pytest.fixture(scope="module")
def street():
    """A picture of the bundled drive, 640 x 360."""
    video = cv2.VideoCapture(str(SAMPLES / "drive" / "front.mp4"))
    picture = cv2.resize(video.read()[1], (640, 360), interpolation=cv2.INTER_AREA)
    video.release()
    return picture


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_takes_the_picture_further_from_what_it_was(street, kind):
    before = street.copy()
    spoilt = [[corrupted(street, kind, severity, number=n) for n in range(6)] for severity in SEVERITIES]
    apart = [np.mean([np.abs(each.astype(int) - street).mean() for each in pictures]) for pictures in spoilt]
    assert apart[0] > 0.5
    assert apart == sorted(apart)
    assert (street == before).all()
    assert all(each.shape == street.shape and each.dtype == np.uint8 for pictures in spoilt for each in pictures)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_picture_is_spoilt_the_same_way_again(street, kind):
    assert (corrupted(street, kind, 3, number=7) == corrupted(street, kind, 3, number=7)).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 200, 3), (200, 33, 3)])
def test_pictures_of_any_shape_can_be_spoilt(kind, shape):
    assert corrupted(np.full(shape, 90, np.uint8), kind, 5, number=0).shape == shape
