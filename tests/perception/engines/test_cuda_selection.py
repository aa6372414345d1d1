"""What the GPU keeps of candidates, by the kernel's own source on the CPU, against the host's selection."""

from __future__ import annotations

import numpy as np
import pytest

from perception.decoders.boxes import Selection
from perception.engines.cuda_candidates import ANSWER, WIDTH, Answer, candidates_of
from perception.engines.cuda_selection import HEADER, ROOM, TOLD, selection_source
from perception.errors import EngineError
from perception.geometry import letterbox
from perception.model_spec import Decoding
from perception.results import Detections
from tests.perception.engines.cuda_on_cpu import address, library_of, separated

GEOMETRY = letterbox((1243, 377), (416, 416), centred=True)


def decoding_of(**options) -> Decoding:
    return Decoding(decoder="yolox", tensors={"output": "output"}, **options)


DECODINGS = (
    decoding_of(nms_iou=0.45),
    decoding_of(nms_iou=0.65, nms_across_classes=True, max_detections=20),
    decoding_of(nms_iou=None, max_detections=ROOM),
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    programs = []
    for number, decoding in enumerate(DECODINGS):
        programs.append(separated(selection_source(decoding, GEOMETRY), "detections_of_candidates", number))
        programs.append(f"""
extern "C" void run_{number}(int* header, const float* found, int* told, float* boxes, float* scores, int* classes)
{{
    over_a_block({ROOM}, [=] {{ program_{number}::detections_of_candidates_{number}(
        header, found, told, boxes, scores, classes); }});
}}""")
    return library_of(programs, tmp_path_factory.mktemp("kernels"))


def rows_of(count: int, *, seed: int = 0) -> np.ndarray:
    """Boxes in heaps, some the same, some without area, some of one score, in no order; as the first kernel writes."""
    chance = np.random.default_rng(seed)
    rows = np.zeros((count, WIDTH), np.float32)
    heaps = chance.uniform(-20, 400, (max(1, count // 6), 2))[chance.integers(0, max(1, count // 6), count)]
    rows[:, :2] = heaps + chance.normal(0, 4, (count, 2))
    rows[:, 2:4] = rows[:, :2] + chance.uniform(10, 60, (count, 2))
    rows[::9, :4] = rows[: len(rows[::9]), :4]
    rows[::17, 2:4] = rows[::17, :2]
    rows[:, 4] = chance.random(count, np.float32).round(2)
    bits = rows.view(np.uint32)
    bits[:, 5], bits[:, 6] = chance.integers(0, 3, count), chance.permutation(count)
    bits[::17, 5] = 0  # OpenCV lets boxes without area suppress each other across classes too
    bits[:, 7] = ~bits[:, 4]
    return rows


def answer_of(kernels, number: int, rows: np.ndarray, *, bad: int = 0) -> Answer:
    header, memory = np.array([len(rows), bad], np.int32), np.full(ANSWER, -7, np.float32)
    boxes, scores, classes = np.split(memory[TOLD:], (4 * ROOM, 5 * ROOM))
    getattr(kernels, f"run_{number}")(*map(address, (header, rows, memory, boxes, scores, classes)))
    assert header.tolist() == [0] * HEADER  # as the next frame wants it
    return Answer(memory)


def detections_of(kernels, number: int, rows: np.ndarray) -> Detections:
    answer = answer_of(kernels, number, rows)
    kept, count = answer.counts()
    assert count == len(rows)
    return answer.detections(kept)


@pytest.mark.parametrize("number", range(len(DECODINGS)))
@pytest.mark.parametrize("count", [0, 1, 2, 40, ROOM])
def test_what_is_kept_is_what_the_host_keeps_bit_for_bit(kernels, number, count):
    rows = rows_of(count, seed=count)
    got = detections_of(kernels, number, rows)
    expected = Selection(DECODINGS[number])(candidates_of(rows.ravel(), count), GEOMETRY)
    np.testing.assert_array_equal(got.scores, expected.scores)
    np.testing.assert_array_equal(got.class_ids, expected.class_ids)
    np.testing.assert_array_equal(got.boxes_px, expected.boxes_px)
    assert (count < 40) or (DECODINGS[number].nms_iou is None) == (len(got) == count)


def test_of_more_candidates_than_there_is_room_for_only_their_number_is_told(kernels):
    answer = answer_of(kernels, 0, rows_of(ROOM + 1))
    assert answer.counts()[1] == ROOM + 1


def test_values_that_are_none_are_refused(kernels):
    with pytest.raises(EngineError, match="3 values are NaN or infinite; no result is given for this frame"):
        answer_of(kernels, 0, rows_of(5), bad=3).counts()
