"""Which slices an object stands in, and how the worst of several parts decides."""

from __future__ import annotations

import pytest

from compile.labels import LabelledFrame, LabelledObject
from safety_gates.object_slices import Situated, order_of, slices_of
from safety_gates.statistics import Interval
from safety_gates.worst import Part, bounded, worst_of


def _slices(frame=None, **fields):
    return slices_of(Situated(LabelledObject("car", (0, 0, 40, 60), **fields), "vehicles", frame or LabelledFrame(())))


def test_what_the_labels_do_not_say_makes_no_slice():
    assert _slices() == ("class: vehicles", "height: 50 to 100 px")


def test_everything_the_labels_say_makes_one():
    frame = LabelledFrame((), light="dusk", weather="rain")
    assert _slices(frame, distance_m=19.9, truncation=0.2, occlusion=0.5) == (
        *("class: vehicles", "height: 50 to 100 px", "distance: under 20 m", "truncation: cut"),
        *("occlusion: largely", "light: dusk", "weather: rain"),
    )


@pytest.mark.parametrize(("share", "word"), [(0.0, "visible"), (0.1, "partly"), (0.39, "partly"), (0.4, "largely")])
def test_shares_of_occlusion_become_words(share, word):
    assert f"occlusion: {word}" in _slices(occlusion=share)


def test_levels_of_occlusion_are_words_already():
    assert "occlusion: unknown" in _slices(hidden="unknown")


def test_slices_are_shown_from_small_to_large():
    names = ["height: from 100 px", "class: b", "height: 25 to 50 px", "height: under 25 px", "class: a"]
    assert sorted(names, key=order_of) == [
        *("class: a", "class: b", "height: under 25 px", "height: 25 to 50 px", "height: from 100 px"),
    ]


def _part(name, got, low, high, samples=100):
    return bounded(Part(name, got, samples, Interval(low, high)), 30, (0.0, 1.0))


def test_the_worst_lies_between_the_worst_ends():
    parts = [_part("a", 0.9, 0.8, 0.95), _part("b", 0.7, 0.4, 0.85), _part("c", 0.75, 0.6, 0.8)]
    measured = worst_of(parts, "at_least", sampled="objects", least=30, evidence="0" * 64)
    assert (measured.got, measured.interval.low, measured.interval.high) == (0.7, 0.4, 0.8)
    measured = worst_of(parts, "at_most", sampled="objects", least=30, evidence="0" * 64)
    assert (measured.got, measured.interval.low, measured.interval.high) == (0.9, 0.8, 0.95)


def test_a_part_that_is_too_small_is_named_and_bounds_nothing():
    parts = [_part("a", 0.9, 0.8, 0.95), _part("night", 1.0, 0.9, 1.0, samples=29)]
    measured = worst_of(parts, "at_least", sampled="objects", least=30, evidence="0" * 64)
    assert (measured.interval.low, measured.interval.high) == (0.0, 0.95)
    assert "too few objects (under 30): night (29)" in measured.note
    assert measured.remedy == "label objects: 1 more of night"
