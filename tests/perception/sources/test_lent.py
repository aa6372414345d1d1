from __future__ import annotations

import threading

import numpy as np
import pytest

from perception.engines.lending import Lender
from perception.engines.null import NullEngine
from perception.errors import SourceError
from perception.pipeline import Pipeline
from perception.sources.lent import Lent, lent
from tests.perception.builders import SPEC_OF_NULL, ListSource, frames_of, null_engine_file


class Lending(NullEngine):
    """A null engine that takes frames itself, from three buffers."""

    def open_frames(self, spec, *, score_threshold):
        return Way()


class Way:
    told = "into three buffers"

    def __init__(self) -> None:
        self.lender = Lender([np.zeros((24, 32, 3), np.uint8) for _ in range(3)])
        self.lenders: set[str] = set()
        self.brought: list[tuple[bool, int]] = []

    def bring(self, pixels) -> None:
        self.brought.append((self.lender.found(pixels) is not None, int(pixels[0, 0, 0])))

    def infer(self) -> None: ...

    def result(self): ...

    def lend(self, shape):
        self.lenders.add(threading.current_thread().name)
        return self.lender.lend_while_held() if shape == (24, 32, 3) else None


@pytest.fixture
def pipeline():
    engine = Lending.from_bytes(null_engine_file(), threads=1)
    return Pipeline(SPEC_OF_NULL, engine, deadline_ns=1)


def test_frames_are_brought_into_lent_buffers_in_order_by_another_thread(pipeline):
    for frame in lent(ListSource(frames_of("front", 50)), pipeline).frames():
        pipeline.step(frame)
        del frame
    way = pipeline._way
    assert [number for _, number in way.brought] == list(range(50))
    assert sum(known for known, _ in way.brought) >= 45
    assert way.lenders == {"lend buffers"}
    assert pipeline.way == "into three buffers"


def test_frames_that_are_kept_stay_as_they_were(pipeline):
    kept = list(Lent(ListSource(frames_of("front", 20)), pipeline).frames())
    assert [int(frame.pixels[5, 5, 1]) for frame in kept] == list(range(20))
    assert all(pipeline._way.lender.found(frame.pixels) is None for frame in kept[3:])
    assert not kept[0].pixels.flags.writeable


def test_a_failure_arrives_after_the_frames_before_it(pipeline):
    class Failing(ListSource):
        def frames(self):
            yield from frames_of("front", 3)
            raise SourceError("torn")

    seen = []
    with pytest.raises(SourceError, match="torn"):
        for frame in Lent(Failing([]), pipeline).frames():
            seen.append(frame.frame_id)
    assert seen == [0, 1, 2]


def test_a_pipeline_that_lends_nothing_is_served_by_the_source_itself():
    plain = Pipeline(SPEC_OF_NULL, NullEngine.from_bytes(null_engine_file(), threads=1), deadline_ns=1)
    source = ListSource(frames_of("front", 3))
    assert lent(source, plain) is source
    assert plain.lend((24, 32, 3)) is None
