from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory

from perception.logged_frame import frame_from_fields
from perception.record import RunHeader
from perception.sinks.drawing import colour_of
from perception.sinks.mcap_file import McapWriter
from perception.sources.mcap_file import McapFile
from tests.perception.sinks.outcomes import HEADER, detections, outcome, segmentation, skipped

LINE_LOOP = 2
ROADS = HEADER.model_copy(update={"classes": ("background", "road")})


def written(path: Path, *outcomes: Any, header: RunHeader = HEADER) -> Path:
    sink = McapWriter(path, header)
    for each in outcomes:
        sink.write(each)
    sink.close()
    return path


def messages(path: Path, topic: str) -> list[Any]:
    """As the reference reader decodes them with the schemas that lie in the file."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return [decoded for _, _, _, decoded in reader.iter_decoded_messages(topics=[topic])]


def test_foxglove_finds_its_own_schemas_on_each_topic(tmp_path):
    path = written(tmp_path / "run.mcap", outcome(0), outcome(1, camera_id="/rear"))
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    found = {
        each.topic: (summary.schemas[each.schema_id].name, each.message_encoding) for each in summary.channels.values()
    }
    assert found == {
        f"/{camera}/{topic}": schema
        for camera in ("front", "rear")
        for topic, schema in (
            ("image", ("foxglove.CompressedImage", "protobuf")),
            ("annotations", ("foxglove.ImageAnnotations", "protobuf")),
            ("result", ("tollgate.FrameResult", "json")),
        )
    }


def test_boxes_are_closed_lines_in_pixels_with_class_score_and_colour(tmp_path):
    found = detections((10, 20, 110, 90, 0.875, 1), (5, 6, 7, 8, 0.25, 0))
    (annotations,) = messages(written(tmp_path / "run.mcap", outcome(3, found)), "/front/annotations")
    corners = [(point.x, point.y) for point in annotations.points[0].points]
    assert corners == [(10, 20), (110, 20), (110, 90), (10, 90)]
    assert annotations.points[0].type == LINE_LOOP
    assert [text.text for text in annotations.texts] == ["pedestrian 0.88", "car 0.25"]
    colour = annotations.points[0].outline_color
    assert [round(255 * each) for each in (colour.b, colour.g, colour.r)] == list(colour_of(1))
    assert annotations.points[0].timestamp.ToNanoseconds() == outcome(3).frame.captured_ns


def test_a_segmentation_is_outlined_in_pixels_of_the_picture(tmp_path):
    path = written(
        tmp_path / "run.mcap",
        outcome(0, segmentation(320, 180)),
        header=ROADS,
    )
    (annotations,) = messages(path, "/front/annotations")
    (outline,) = annotations.points
    xs, ys = ([getattr(point, axis) for point in outline.points] for axis in "xy")
    assert (min(xs), max(xs)) == (10, 310)  # centres of cells of 20 px
    assert (min(ys), max(ys)) == (97.5, 172.5)


def test_a_frame_without_result_takes_older_boxes_away(tmp_path):
    first, second = messages(written(tmp_path / "run.mcap", outcome(0), skipped(1)), "/front/annotations")
    assert (len(first.points), len(second.points), len(second.texts)) == (1, 0, 0)


def test_the_line_of_the_run_log_comes_along(tmp_path):
    path = written(tmp_path / "run.mcap", outcome(0))
    with path.open("rb") as file:
        ((_, _, message),) = make_reader(file).iter_messages(topics=["/front/result"])
    frame = frame_from_fields(json.loads(message.data))
    assert (frame.frame_id, frame.timings) == (0, outcome(0).timings)
    assert message.log_time == outcome(0).frame.captured_ns


def test_the_header_lies_in_the_file(tmp_path):
    with written(tmp_path / "run.mcap", outcome(0)).open("rb") as file:
        (metadata,) = make_reader(file).iter_metadata()
    assert RunHeader.model_validate_json(metadata.metadata["header"]) == HEADER


def test_several_models_share_a_picture(tmp_path):
    results = [replace(outcome(index), model=model) for index in range(2) for model in ("boxes", "lanes")]
    path = written(tmp_path / "run.mcap", *results)
    assert len(messages(path, "/front/image")) == 2
    assert len(messages(path, "/front/boxes/annotations")) == len(messages(path, "/front/lanes/annotations")) == 2


def test_two_runs_on_a_simulated_clock_are_the_same_file(tmp_path):
    header = HEADER.model_copy(update={"clock": "simulated"})
    slow, fast = (written(tmp_path / f"{ns}.mcap", outcome(0, infer_ns=ns), header=header) for ns in (10**6, 10**8))
    assert slow.read_bytes() == fast.read_bytes()


def test_what_was_written_is_a_recording_again(tmp_path):
    source = McapFile(written(tmp_path / "run.mcap", outcome(0), outcome(1)))
    frames = list(source.frames())
    assert [frame.captured_ns for frame in frames] == [outcome(index).frame.captured_ns for index in range(2)]
    assert frames[0].pixels.shape == outcome(0).frame.pixels.shape
    assert abs(int(frames[0].pixels[3, 3, 0]) - 90) < 12


@pytest.mark.parametrize("captured_ns", [0, -5])
def test_a_clock_that_begins_at_nothing_is_taken(tmp_path, captured_ns):
    frame = replace(outcome(0).frame, captured_ns=captured_ns)
    (picture,) = messages(written(tmp_path / "run.mcap", replace(outcome(0), frame=frame)), "/front/image")
    assert picture.timestamp.ToNanoseconds() == captured_ns
