from __future__ import annotations

import numpy as np
import pytest

from perception.engines.lending import Lender
from perception.engines.null import NullEngine
from tests.perception.builders import SPEC_OF_NULL, null_engine_file

SHAPE = (24, 32, 3)


@pytest.fixture
def lender():
    return Lender([np.zeros(SHAPE, np.uint8) for _ in range(3)])


def test_all_buffers_are_lent_once_and_then_no_more(lender):
    lent = [lender.lend() for _ in range(3)]
    assert len({id(pixels) for pixels in lent}) == 3
    with pytest.raises(RuntimeError, match="all 3 are lent, expected a free one; give one back, or open more"):
        lender.lend()


def test_a_buffer_given_back_is_lent_again(lender):
    lent = [lender.lend() for _ in range(3)]
    lender.give_back(lent[1])
    assert lender.lend() is lent[1]


def test_a_buffer_given_back_twice_is_refused_and_stays_lent_once(lender):
    pixels = lender.lend()
    lender.give_back(pixels)
    with pytest.raises(RuntimeError, match="frame buffer 0: given back twice"):
        lender.give_back(pixels)
    assert len({id(lender.lend()) for _ in range(3)}) == 3


def test_a_foreign_array_is_refused_with_both_shapes(lender):
    with pytest.raises(ValueError, match=r"frame \[10, 10, 3\]: is no buffer .* \[24, 32, 3\] that lend\(\) gave"):
        lender.number_of(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ValueError, match="is no buffer of this engine"):
        lender.give_back(np.zeros(SHAPE, np.uint8))


def test_a_part_of_a_buffer_is_refused_and_a_view_of_all_of_it_is_known(lender):
    pixels = lender.lend()
    with pytest.raises(ValueError, match=r"frame \[12, 32, 3\]: is no buffer of this engine"):
        lender.number_of(pixels[:12])
    with pytest.raises(ValueError, match="is no buffer of this engine"):
        lender.number_of(pixels[12:])
    assert lender.number_of(pixels[:]) == lender.number_of(pixels) == 0


def test_a_closed_lender_lends_nothing_and_still_takes_back(lender):
    pixels = lender.lend()
    lender.close()
    lender.close()
    with pytest.raises(RuntimeError, match="the engine is closed, expected an open one"):
        lender.lend()
    lender.give_back(pixels)


def test_frames_decoded_into_lent_buffers_reach_an_engine_without_a_copy():
    """The life of a buffer through a drive: lent, filled, inferred from, given back, a frame of delay between."""
    engine = NullEngine.from_bytes(null_engine_file(), threads=1)
    picture = SPEC_OF_NULL.picture
    stored = [np.zeros(picture.shape, np.float32).view(np.uint8) for _ in range(2)]
    lender = Lender(stored)
    waiting, seen = [], []
    for number in range(10):
        pixels = lender.lend()
        pixels[...] = number
        waiting.append(pixels)
        if len(waiting) == 2:
            oldest = waiting.pop(0)
            assert any(oldest is buffer for buffer in stored)
            answers = engine.infer({picture.tensor: oldest.view(np.float32)})
            assert set(answers) == {"output"}
            seen.append(int(oldest.flat[0]))
            lender.give_back(oldest)
    assert seen == list(range(9))
