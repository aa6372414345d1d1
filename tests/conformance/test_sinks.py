"""What every sink promises, asked of each in turn.

Two are asked by themselves: the live viewer writes nothing, and the agent's reports are there from the first frame on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from mcap.reader import make_reader

from perception.errors import OutputError
from perception.record import read_run_log
from perception.sinks.sink import Sink
from perception.sinks.table import SINKS, open_sink
from tests.disk import room_for
from tests.perception.sinks.outcomes import HEADER, outcome, segmentation, skipped
from tests.perception.sinks.test_rerun_view import column

FRAMES = 5


def frames_in_video(path: Path) -> int:
    with av.open(str(path / "front.mp4")) as container:
        return sum(1 for _ in container.decode(video=0))


def frames_in_mcap(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in make_reader(file).iter_messages(topics=["/front/result"]))


def frames_in_rerun(path: Path) -> int:
    return len(column(path, "/front/image", "frame"))


NAMES = {"run_log": "run.jsonl", "overlay": "overlay", "mcap": "run.mcap", "rerun": "run.rrd"}
COUNTS: dict[str, Callable[[Path], int]] = {
    "run_log": lambda path: len(read_run_log(path).frames),
    "overlay": frames_in_video,
    "mcap": frames_in_mcap,
    "rerun": frames_in_rerun,
}


@pytest.fixture(params=sorted(NAMES))
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def path(kind, tmp_path) -> Path:
    return Path(tmp_path / "out" / NAMES[kind])


def visible(folder: Path) -> list[str]:
    """Everything that a user sees below a folder; what is being written has a hidden name."""
    if not folder.exists():
        return []
    return sorted(each.name for each in folder.rglob("*") if not each.name.startswith(".") and each.is_file())


def written(sink: Sink, count: int = FRAMES) -> Sink:
    for index in range(count):
        sink.write(outcome(index))
    return sink


def test_every_sink_is_asked():
    assert set(NAMES) | {"view", "agent"} == set(SINKS)


def test_every_frame_is_there_after_the_end_and_nothing_before_it(kind, path):
    sink = written(open_sink(kind, path, HEADER))
    assert visible(path.parent) == []
    sink.close()
    assert COUNTS[kind](path) == FRAMES


def test_an_ending_is_final(kind, path):
    sink = written(open_sink(kind, path, HEADER))
    sink.close()
    before = visible(path.parent)
    sink.close()
    sink.abort()
    assert visible(path.parent) == before


def test_an_aborted_run_leaves_nothing_at_its_path(kind, path):
    sink = written(open_sink(kind, path, HEADER))
    sink.abort()
    sink.abort()
    sink.close()
    assert not path.exists()
    assert visible(path.parent) == (["run.incomplete.jsonl"] if kind == "run_log" else [])


def test_an_earlier_output_is_replaced_only_by_a_whole_one(kind, path):
    written(open_sink(kind, path, HEADER), 3).close()
    written(open_sink(kind, path, HEADER)).abort()
    assert COUNTS[kind](path) == 3
    written(open_sink(kind, path, HEADER)).close()
    assert COUNTS[kind](path) == FRAMES


def test_frames_without_a_result_and_segmentations_are_taken_too(kind, path):
    sink = open_sink(kind, path, HEADER)
    for index, each in enumerate((skipped(0), outcome(1, segmentation(320, 180)), outcome(2))):
        assert each.frame.frame_id == index
        sink.write(each)
    sink.close()
    assert COUNTS[kind](path) == 3


def test_what_was_written_does_not_change_with_its_arrays(kind, tmp_path):
    for name in ("kept", "changed"):
        sink = open_sink(kind, tmp_path / name / NAMES[kind], HEADER)
        for index in range(FRAMES):
            each = outcome(index)
            sink.write(each)
            if name == "changed":
                each.result.boxes_px[:] = 0
                each.result.scores[:] = 0
        sink.close()
    contents = [content_of(kind, tmp_path / name / NAMES[kind]) for name in ("kept", "changed")]
    assert contents[0] == contents[1]


def content_of(kind: str, path: Path) -> list[bytes]:
    if kind == "overlay":
        with av.open(str(path / "front.mp4")) as container:
            return [frame.to_ndarray(format="bgr24").tobytes() for frame in container.decode(video=0)]
    if kind == "rerun":
        return [str(column(path, "/front/image/found", "Boxes2D:centers")).encode()]
    return [path.read_bytes()]


@pytest.mark.parametrize("kind", ["run_log", "overlay", "mcap"])
def test_a_full_disk_is_told_in_a_sentence(kind, path):
    sink = open_sink(kind, path, HEADER)
    noise = np.random.default_rng(1).integers(0, 255, (180, 320, 3), np.uint8)
    with room_for(4096), pytest.raises(OutputError, match=r"cannot be (written|encoded)"):
        for index in range(400):
            each = outcome(index)
            each.frame.pixels.flags.writeable = True
            each.frame.pixels[:] = noise
            sink.write(each)
        sink.close()
    sink.abort()
    assert not path.exists()
