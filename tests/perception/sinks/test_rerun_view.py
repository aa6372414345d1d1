from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from perception.errors import OutputError
from perception.pipeline import Status
from perception.sinks import rerun_view
from perception.sinks.rerun_view import RerunFile, RerunViewer
from tests.perception.sinks.outcomes import HEADER, outcome, segmentation, skipped


def column(path: Path, entity: str, name: str) -> list[object]:
    """The values of one column that was logged for an entity, in order; the reader came after Python 3.10."""
    reader = pytest.importorskip("rerun.chunk").RrdReader(path)
    batches = [chunk.to_record_batch() for chunk in reader.stream().to_chunks() if chunk.entity_path == entity]
    return [value for batch in batches if name in batch.schema.names for value in batch.column(name).to_pylist()]


def test_pictures_boxes_and_times_are_in_the_file(tmp_path):
    sink = RerunFile(tmp_path / "run.rrd", HEADER)
    for index in range(3):
        sink.write(outcome(index))
    sink.close()
    path = tmp_path / "run.rrd"
    assert column(path, "/front/image", "frame") == [0, 1, 2]
    assert column(path, "/front/image/found", "Boxes2D:labels") == [["car 0.88"]] * 3
    assert column(path, "/front/image/found", "Boxes2D:class_ids") == [[0]] * 3
    assert column(path, "/front/total_ms", "Scalars:scalars") == [[10.5]] * 3
    assert "tollgate-run/1" in str(column(path, "/run", "TextDocument:text"))


def test_frames_that_were_not_in_time_are_events_with_their_causes(tmp_path):
    sink = RerunFile(tmp_path / "run.rrd", HEADER)
    late = replace(outcome(1), status=Status.LATE, causes=("engine slow",))
    for each in (outcome(0), late, skipped(2)):
        sink.write(each)
    sink.close()
    assert column(tmp_path / "run.rrd", "/front/events", "TextLog:text") == [["LATE engine slow"], ["SKIPPED"]]


def test_the_viewer_is_told_to_show_each_camera_once(tmp_path):
    header = HEADER.model_copy(update={"clocks": {"/front": "the sensor's stamp", "rear": "the sensor's stamp"}})
    sink = RerunFile(tmp_path / "run.rrd", header)
    sink.write(outcome(0))
    sink.close()
    reader = pytest.importorskip("rerun.chunk").RrdReader(tmp_path / "run.rrd")
    batches = [chunk.to_record_batch() for chunk in reader.stream(store=reader.blueprints()[0]).to_chunks()]
    told = " ".join(str(batch.column(name)) for batch in batches for name in batch.schema.names if ":" in name)
    assert told.count("front/image") == 1
    assert told.count("rear/image") == 1


def test_a_segmentation_lies_over_the_picture(tmp_path):
    sink = RerunFile(tmp_path / "run.rrd", HEADER)
    sink.write(outcome(0, segmentation(320, 180)))
    sink.close()
    ((cells,),) = column(tmp_path / "run.rrd", "/front/image/found", "SegmentationImage:buffer")
    assert len(cells) == 320 * 180


def test_an_open_viewer_is_told_while_the_run_goes_on(tmp_path):
    """Rerun's own server without a window, which saves what it is told."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    saved = tmp_path / "told.rrd"
    command = [sys.executable, "-m", "rerun", "--port", str(port), "--bind", "127.0.0.1", "--save", str(saved)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        sink = RerunViewer(Path(f"127.0.0.1:{port}"), HEADER)
        sink.write(outcome(0))
        sink.close()
        sink.close()
        deadline_s = time.monotonic() + 20
        while b"front/image" not in (saved.read_bytes() if saved.exists() else b""):
            assert time.monotonic() < deadline_s, "the viewer was told nothing"
            time.sleep(0.1)
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere", "127.0.0.1:port"])
def test_where_no_viewer_answers_the_run_is_refused(monkeypatch, address):
    monkeypatch.setattr(rerun_view, "OPENS_WITHIN_S", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(OutputError, match=r"no viewer of Rerun answers \(.*--rerun FILE"):
        RerunViewer(Path(address.format(port=port)), HEADER)


def wait_for_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("Rerun's server did not start")
