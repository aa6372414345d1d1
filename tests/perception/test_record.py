from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.errors import EvidenceError
from perception.logged_frame import fields_from_frame, frame_from_fields
from perception.pipeline import FrameResult, Instants, Status
from perception.record import RunHeader, line_of, read_run_log
from perception.results import Detections, SegmentationMap
from perception.sinks.run_log import RunLogWriter
from perception.sources.digest import sha256_of_recording
from tests.perception.builders import null_package
from tests.perception.sinks.outcomes import HEADER, detections, outcome, segmentation, skipped
from tests.perception.sources.recordings import write_pictures

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def written(path: Path, outcomes: list[FrameResult]) -> Path:
    """A complete log of these frames."""
    writer = RunLogWriter(path, HEADER)
    for published in outcomes:
        writer.write(published)
    writer.close()
    return path


def through_json(published: FrameResult):
    return frame_from_fields(json.loads(line_of(fields_from_frame(published))))


def without_timing(path: Path) -> list[bytes]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [line_of({name: value for name, value in line.items() if name != "timing"}) for line in lines]


def test_everything_that_was_written_is_read_back(tmp_path):
    published = [outcome(0), outcome(1, infer_ns=50_000_000), skipped(2), outcome(3, segmentation())]
    log = read_run_log(written(tmp_path / "run.jsonl", published))
    assert log.header == HEADER
    assert (log.summary.complete, log.summary.frames) == (True, 4)
    assert [frame.status for frame in log.frames] == [Status.ON_TIME, Status.LATE, Status.SKIPPED, Status.ON_TIME]
    for frame, original in zip(log.frames, published, strict=True):
        assert frame.timings == original.timings
        assert frame.deadline_ns == original.deadline_ns
        assert (frame.camera_id, frame.frame_id) == ("front", original.frame.frame_id)
        assert (frame.captured_ns, frame.name) == (original.frame.captured_ns, original.frame.name)
    assert log.frames[2].result is None


def test_times_age_causes_and_companions_of_a_frame_come_back(tmp_path):
    published = replace(
        outcome(4),
        status=Status.STALE,
        model="signs",
        instants=Instants(captured_ns=5, arrived_ns=7, started_ns=9, finished_ns=40),
        age_ns=135,
        causes=("front: frozen", "engine hung, restarted"),
        set_id=12,
        skew_ns=-3,
    )
    (frame,) = read_run_log(written(tmp_path / "run.jsonl", [published])).frames
    assert (frame.model, frame.status, frame.causes) == ("signs", Status.STALE, published.causes)
    assert (frame.instants, frame.age_ns, frame.set_id, frame.skew_ns) == (published.instants, 135, 12, -3)
    assert frame.instants.age_ns == 35


@given(arrays(np.float32, (3, 4), elements=FLOATS), arrays(np.float32, (3,), elements=FLOATS))
def test_detections_come_back_to_the_last_bit(boxes_px, scores):
    original = Detections(boxes_px, scores, np.array([0, 2, 7], np.int32))
    copy = through_json(outcome(0, original)).result
    assert isinstance(copy, Detections)
    for mine, other in ((original.boxes_px, copy.boxes_px), (original.scores, copy.scores)):
        assert other.dtype == np.float32
        assert np.array_equal(mine, other)
    assert np.array_equal(original.class_ids, copy.class_ids)


def test_no_detection_comes_back_as_none():
    copy = through_json(outcome(0, Detections.empty())).result
    assert isinstance(copy, Detections)
    assert copy.boxes_px.shape == (0, 4)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_a_segmentation_comes_back_cell_by_cell(class_ids):
    copy = through_json(outcome(0, SegmentationMap(class_ids, 640, 360))).result
    assert isinstance(copy, SegmentationMap)
    assert np.array_equal(copy.class_ids, class_ids)
    assert copy.class_ids.dtype == np.uint8
    assert (copy.width_px, copy.height_px) == (640, 360)


def test_numbers_are_written_with_the_fewest_digits_that_carry_them():
    line = line_of(fields_from_frame(outcome(0, detections((0.1, 33.3, 100, 1e-7, 0.7, 0)))))
    assert b'"boxes_px":[[0.1,33.3,100.0,1e-07]],"scores":[0.7]' in line


def test_a_number_that_is_none_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        line_of(fields_from_frame(outcome(0, detections((float("nan"), 0, 1, 1, 0.7, 0)))))


def test_two_runs_of_equal_results_are_equal_byte_for_byte_but_for_timing(tmp_path):
    fast = written(tmp_path / "fast.jsonl", [outcome(index, infer_ns=9_000_000) for index in range(5)])
    slow = written(tmp_path / "slow.jsonl", [outcome(index, infer_ns=70_000_000 + index) for index in range(5)])
    assert fast.read_bytes() != slow.read_bytes()
    assert without_timing(fast) == without_timing(slow)
    assert read_run_log(fast).summary == read_run_log(slow).summary


def test_another_result_gives_another_digest(tmp_path):
    one = written(tmp_path / "one.jsonl", [outcome(0, detections((1, 2, 3, 4, 0.5, 0)))])
    other = written(tmp_path / "other.jsonl", [outcome(0, detections((1, 2, 3, 4, 0.5, 1)))])
    assert read_run_log(one).summary.results_sha256 != read_run_log(other).summary.results_sha256


def test_a_log_cut_off_after_any_line_is_refused(tmp_path):
    whole = written(tmp_path / "run.jsonl", [outcome(index) for index in range(3)]).read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:kept]))
        with pytest.raises(EvidenceError, match=f"ends after {kept} lines without a summary; the log was cut off"):
            read_run_log(tmp_path / "cut.jsonl")


def test_a_log_cut_off_inside_a_line_is_refused(tmp_path):
    whole = written(tmp_path / "run.jsonl", [outcome(index) for index in range(3)]).read_bytes()
    for kept in range(1, len(whole) - 1, 37):
        (tmp_path / "cut.jsonl").write_bytes(whole[:kept])
        with pytest.raises(EvidenceError, match=r"cut\.jsonl"):
            read_run_log(tmp_path / "cut.jsonl")


@pytest.mark.parametrize(
    ("before", "after"), [(b'"scores":[0.875]', b'"scores":[0.975]'), (b'"frame_id":1', b'"frame_id":7')]
)
def test_an_altered_result_is_refused(tmp_path, before, after):
    path = written(tmp_path / "run.jsonl", [outcome(index) for index in range(3)])
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    with pytest.raises(EvidenceError, match="the log was altered"):
        read_run_log(path)


def test_a_frame_taken_out_is_noticed(tmp_path):
    path = written(tmp_path / "run.jsonl", [outcome(index) for index in range(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(EvidenceError, match=r"got 2 frames of digest .* its summary says 3"):
        read_run_log(path)


def test_a_line_that_is_no_frame_is_named(tmp_path):
    path = written(tmp_path / "run.jsonl", [outcome(index) for index in range(3)])
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged, complaint in (
        (b"[]\n", "is no frame of a run log"),
        (b"{x\n", "is not JSON"),
        (b'{"a":1}\n', "is no frame"),
    ):
        path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
        with pytest.raises(EvidenceError, match=rf"run\.jsonl:2: {complaint}"):
            read_run_log(path)


@pytest.mark.parametrize("content", [b'{"format":"tollgate-run/9"}\n', b"camera,frame\n0,1\n", b"\x00\xff"])
def test_a_file_that_is_no_run_log_is_refused(tmp_path, content):
    (tmp_path / "run.jsonl").write_bytes(content)
    with pytest.raises(EvidenceError, match=r"run\.jsonl:1: is no header of a run log"):
        read_run_log(tmp_path / "run.jsonl")


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "run.jsonl").touch()
    with pytest.raises(EvidenceError, match="is empty"):
        read_run_log(tmp_path / "run.jsonl")
    with pytest.raises(EvidenceError, match="No such file"):
        read_run_log(tmp_path / "other.jsonl")


def test_the_header_names_package_engine_recording_and_libraries(tmp_path):
    package = null_package(tmp_path / "package")
    write_pictures(tmp_path / "drive", ["a.png"])
    header = RunHeader.of(package, tmp_path / "drive", options={"score": 0.3})
    assert (header.package_sha256, header.engine_sha256) == (package.sha256, package.engine_sha256)
    assert (header.recording.name, header.profile, header.classes) == ("drive", "x86_cpu", ("car",))
    assert header.recording.sha256 == sha256_of_recording(tmp_path / "drive")
    assert {"python", "tollgate", "numpy", "opencv-python", "av"} <= set(header.versions)
    assert header == RunHeader.of(package, Path(f"image_folder:{tmp_path}/drive"), options={"score": 0.3})
