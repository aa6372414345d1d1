from __future__ import annotations

import math

import numpy as np
import pytest

from compile.backends.onnxrt import build, opened
from compile.parity import Subject, compare
from perception.frame import Frame
from tests.compile.builders import SEGMENTER_SPEC, imported_graph, road_picture, segmenter
from tests.compile.test_quantize import quantized, random_feed


@pytest.fixture
def graph(tmp_path):
    return imported_graph(segmenter(), tmp_path)


def frames(*seeds: int) -> list[Frame]:
    return [Frame(road_picture(seed), "front", number, number, f"name{seed}") for number, seed in enumerate(seeds)]


def test_an_engine_is_at_parity_with_itself(graph):
    with opened(build(graph.model), threads=1) as one, opened(build(graph.model), threads=1) as other:
        parity = compare(
            Subject(SEGMENTER_SPEC, one), Subject(SEGMENTER_SPEC, other), frames(1, 2), advance=lambda: None
        )
    assert (parity.frames, parity.agreement, parity.worst_agreement) == (2, 1.0, 1.0)
    assert parity.outputs[0].largest == 0.0
    assert math.isinf(parity.outputs[0].sqnr_db)
    assert parity.document()["outputs"][0]["sqnr_db"] is None


def test_differences_and_the_worst_frame_are_found(graph):
    blank = Frame(np.full((64, 96, 3), 128, np.uint8), "front", 0, 0, "blank")
    content = quantized(graph, {"images": random_feed()})
    with opened(build(graph.model), threads=1) as one, opened(content, threads=1) as other:
        parity = compare(
            Subject(SEGMENTER_SPEC, one), Subject(SEGMENTER_SPEC, other), [blank, *frames(1)], advance=lambda: None
        )
        alone = [
            compare(Subject(SEGMENTER_SPEC, one), Subject(SEGMENTER_SPEC, other), [frame], advance=lambda: None)
            for frame in [blank, *frames(1)]
        ]
    assert 0 < parity.outputs[0].sqnr_db < 60
    assert parity.outputs[0].mean < parity.outputs[0].largest
    assert parity.worst_agreement == min(each.agreement for each in alone)
    assert parity.worst_frame == min(alone, key=lambda each: each.agreement).worst_frame


def test_comparing_on_nothing_is_the_callers_mistake(graph):
    with (
        opened(build(graph.model), threads=1) as one,
        pytest.raises(ValueError, match="expected at least one to compare"),
    ):
        compare(Subject(SEGMENTER_SPEC, one), Subject(SEGMENTER_SPEC, one), [], advance=lambda: None)
