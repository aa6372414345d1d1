from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.pipeline import Status
from perception.results import Detections, SegmentationMap
from perception.sinks import drawing
from perception.sinks.drawing import PALETTE, STATUS_COLOURS, colour_of, draw
from tests.perception.sinks.outcomes import CLASSES, detections, outcome, skipped


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(axis=2).any())


def test_the_picture_stands_whole_under_the_strip():
    bare = outcome(result=Detections.empty())
    drawn = draw(bare, CLASSES)
    strip_px = drawn.shape[0] - 180
    assert drawn.shape[1] == 320
    assert 16 <= strip_px <= 36
    assert strip_px % 2 == 0
    assert np.array_equal(drawn[strip_px:], bare.frame.pixels)


def test_the_frame_itself_is_not_drawn_on():
    published = outcome()
    before = published.frame.pixels.copy()
    draw(published, CLASSES)
    assert np.array_equal(published.frame.pixels, before)


def test_a_box_stands_where_it_was_found_in_the_colour_of_its_class():
    drawn = draw(outcome(result=detections((40, 60, 120, 140, 0.9, 1)), size_px=(640, 360)), CLASSES)
    picture = drawn[drawn.shape[0] - 360 :]
    assert all(tuple(picture[y, x]) == colour_of(1) for y, x in ((60, 100), (140, 80), (100, 40), (100, 120)))
    assert tuple(picture[100, 80]) == (90, 100, 110)


def test_the_best_box_lies_on_top():
    drawn = draw(outcome(result=detections((40, 60, 120, 140, 0.9, 0), (40, 60, 120, 140, 0.4, 1))), CLASSES)
    picture = drawn[drawn.shape[0] - 180 :]
    assert tuple(picture[140, 80]) == colour_of(0)


def test_boxes_that_reach_beyond_the_picture_are_drawn_at_its_edge():
    drawn = draw(outcome(result=detections((-500, -20, 1e6, 90, 0.9, 2), (400, 500, 900, 900, 0.8, 1))), CLASSES)
    assert drawn.shape[1] == 320


@pytest.mark.parametrize("status", list(Status))
def test_the_status_has_its_own_colour_in_the_strip(status):
    published = replace(skipped() if status is Status.SKIPPED else outcome(), status=status)
    strip = draw(published, CLASSES)[:20]
    assert [other for other in Status if has_colour(strip, STATUS_COLOURS[other])] == [status]


def test_a_skipped_frame_is_dimmed():
    drawn = draw(skipped(), CLASSES)
    assert drawn[-90:].mean() < 0.6 * outcome().frame.pixels.mean()


def test_a_segmentation_tints_its_classes_and_leaves_the_background_alone():
    class_ids = np.zeros((12, 16), np.uint8)
    class_ids[6:] = 1
    drawn = draw(outcome(result=SegmentationMap(class_ids, 640, 360), size_px=(640, 360)), ("background", "road"))
    picture = drawn[drawn.shape[0] - 360 :]
    assert np.array_equal(picture[:175], outcome(size_px=(640, 360)).frame.pixels[:175])
    expected = 0.55 * np.array((90, 100, 110)) + 0.45 * np.array(colour_of(1))
    assert np.abs(picture[201, 301] - expected).max() <= 1
    assert has_colour(picture[-60:], colour_of(1)), "the legend names the class on its colour"


def test_a_class_without_a_name_is_still_labelled():
    assert draw(outcome(result=detections((40, 60, 120, 140, 0.9, 77))), CLASSES).shape[1] == 320
    assert drawing.name_of(77, CLASSES) == "class 77"


BOXES = st.lists(
    st.tuples(st.integers(-50, 700), st.integers(-50, 400), st.integers(0, 300), st.integers(0, 300)), max_size=25
)


@settings(max_examples=50)
@given(BOXES)
def test_no_label_covers_another_or_leaves_the_picture(corners):
    found = detections(*((x, y, x + w, y + h, 0.9, i % 3) for i, (x, y, w, h) in enumerate(corners)))
    pen, whole = drawing._Pen.for_picture(640, 360), drawing._Area(0, 0, 640, 360)
    boxes = [drawing._Area(*(int(side) for side in box)) for box in found.boxes_px]
    places = [place for _, place, _ in drawing._labels_of(found, boxes, CLASSES, pen=pen, within=whole)]
    assert all(place.lies_in(whole) for place in places)
    assert not any(a.overlaps(b) for i, a in enumerate(places) for b in places[:i])


def test_a_crowd_keeps_the_labels_of_its_best():
    found = detections(*((100 + i, 100 + i, 300 + i, 300 + i, 0.9 - 0.01 * i, 0) for i in range(60)))
    pen, whole = drawing._Pen.for_picture(640, 360), drawing._Area(0, 0, 640, 360)
    boxes = [drawing._Area(*(int(side) for side in box)) for box in found.boxes_px]
    texts = [text for text, _, _ in drawing._labels_of(found, boxes, CLASSES, pen=pen, within=whole)]
    assert texts[:2] == ["car 0.90", "car 0.89"]
    assert len(texts) < 20


def test_a_label_larger_than_its_box_covers_no_other_box():
    found = detections((100, 100, 300, 300, 0.9, 0), (150, 150, 160, 160, 0.8, 1), (400, 200, 410, 210, 0.7, 2))
    pen, whole = drawing._Pen.for_picture(640, 360), drawing._Area(0, 0, 640, 360)
    boxes = [drawing._Area(*(int(side) for side in box)) for box in found.boxes_px]
    texts = [text for text, _, _ in drawing._labels_of(found, boxes, CLASSES, pen=pen, within=whole)]
    assert texts == ["car 0.90", "cyclist 0.70"]


@pytest.mark.parametrize("size_px", [(1, 1), (33, 17), (1242, 375), (3840, 2160)])
def test_any_size_of_picture_can_be_drawn(size_px):
    drawn = draw(outcome(size_px=size_px), CLASSES)
    assert drawn.shape[1] == size_px[0]
    assert drawn.shape[0] > size_px[1]


def test_neighbouring_classes_differ_in_colour():
    assert len(set(PALETTE)) == len(PALETTE) == 8
    assert colour_of(0) == colour_of(8)


@pytest.mark.parametrize(
    ("captured_ns", "text"),
    [(4_100_000_000, "4.100 s"), (0, "0.000 s"), (1317042272351950336, "2011-09-26 13:04:32.351")],
)
def test_time_is_shown_as_its_clock_counts(captured_ns, text):
    assert drawing._clock(captured_ns) == text
