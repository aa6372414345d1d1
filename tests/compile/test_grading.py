from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import helper

from compile.backends.onnxrt import build, opened
from compile.class_map import ClassMap
from compile.grading import Evaluation, Examination, frames_again, read_labels
from compile.recordings import Recordings, survey
from perception.errors import CalibrationError, LabelError
from perception.model_spec import Decoding, ModelSpec, PictureInput
from tests.compile.builders import CLASSES, SEGMENTER_SPEC, imported_graph, segmenter, write_drive
from tests.compile.graphs import yolox
from tests.compile.test_quantize import quantized, random_feed

DETECTOR_SPEC = ModelSpec(
    name="detector",
    task="detection",
    picture=PictureInput(tensor="images", width_px=64, height_px=64, scale=1 / 255),
    decoding=Decoding(decoder="yolox", tensors={"output": "output"}, strides_px=(8, 16, 32), nms_iou=0.5),
    classes=("a", "b", "c"),
)


def recorded(tmp_path: Path) -> Recordings:
    folder = write_drive(tmp_path / "drive", seed=3, count=4)
    return Recordings((folder,), tuple(survey((folder,))))


def write_masks(folder: Path, masks: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, mask in enumerate(masks):
        cv2.imwrite(str(folder / f"{number:04}.png"), mask)
    return folder


def float_masks(graph, recordings: Recordings) -> list[np.ndarray]:
    with opened(build(graph.model), threads=1) as engine:
        exam = Examination(SEGMENTER_SPEC, Evaluation(recordings, None, None), engine)
        return [result.class_ids for result in exam.results(SEGMENTER_SPEC, engine)]


def test_without_labels_float_agrees_with_itself_and_int8_less(tmp_path):
    graph, recordings = imported_graph(segmenter(outlier=3000), tmp_path), recorded(tmp_path)
    content = quantized(graph, {"images": random_feed()})
    with opened(build(graph.model), threads=1) as reference, opened(content, threads=1) as candidate:
        exam = Examination(SEGMENTER_SPEC, Evaluation(recordings, None, None), reference)
        assert exam.metric == "what float reports"
        assert exam.grade(exam.results(SEGMENTER_SPEC, reference)).loss == 0.0
        grade = exam.grade(exam.results(SEGMENTER_SPEC, candidate))
    assert 0.02 < grade.loss < 1.0
    assert grade.scores["agreement"] == pytest.approx(1 - grade.loss)


def test_with_labels_the_loss_is_relative_to_what_float_reaches(tmp_path):
    graph, recordings = imported_graph(segmenter(outlier=3000), tmp_path), recorded(tmp_path)
    labels = read_labels(SEGMENTER_SPEC, write_masks(tmp_path / "masks", float_masks(graph, recordings)))
    content = quantized(graph, {"images": random_feed()})
    with opened(build(graph.model), threads=1) as reference, opened(content, threads=1) as candidate:
        exam = Examination(SEGMENTER_SPEC, Evaluation(recordings, labels, ClassMap.identity(CLASSES)), reference)
        assert exam.metric == "mIoU"
        assert exam.reference.scores["mIoU"] == 1.0
        grade = exam.grade(exam.results(SEGMENTER_SPEC, candidate))
    assert grade.loss == pytest.approx(1 - grade.scores["mIoU"])
    assert set(grade.scores) >= {"agreement", "mIoU", "IoU sky"}


def test_labels_that_float_finds_nothing_of_are_refused(tmp_path):
    graph, recordings = imported_graph(segmenter(), tmp_path), recorded(tmp_path)
    masks = [(mask + 1) % 3 for mask in float_masks(graph, recordings)]
    labels = read_labels(SEGMENTER_SPEC, write_masks(tmp_path / "masks", masks))
    with (
        opened(build(graph.model), threads=1) as reference,
        pytest.raises(LabelError, match=r"the float model finds none of the labelled objects \(mIoU 0\)"),
    ):
        Examination(SEGMENTER_SPEC, Evaluation(recordings, labels, ClassMap.identity(CLASSES)), reference)


def test_a_float_model_that_reports_nothing_leaves_nothing_to_compare(tmp_path):
    blind = yolox(gain=0.02)
    rows = blind.nodes.pop().input[0]
    blind.nodes.append(helper.make_node("Mul", [rows, blind.weight(np.float32(0))], ["output"]))
    graph, recordings = imported_graph(blind, tmp_path), recorded(tmp_path)
    with (
        opened(build(graph.model), threads=1) as reference,
        pytest.raises(CalibrationError, match=r"reports nothing with a score of 0\.3 or more on 4 frames"),
    ):
        Examination(DETECTOR_SPEC, Evaluation(recordings, None, None), reference)


def test_detections_are_graded_against_a_drives_labels(tmp_path):
    graph, recordings = imported_graph(yolox(gain=0.02), tmp_path), recorded(tmp_path)
    with opened(build(graph.model), threads=1) as reference:
        free = Examination(DETECTOR_SPEC, Evaluation(recordings, None, None), reference)
        results = free.results(DETECTOR_SPEC, reference)
        lines = [
            {
                "camera_id": frame.camera_id,
                "frame_id": frame.frame_id,
                "objects": [
                    {"class": DETECTOR_SPEC.classes[label], "box": box.tolist()}
                    for box, label in zip(result.boxes_px, result.class_ids, strict=True)
                ],
            }
            for frame, result in zip(recordings.chosen, results, strict=True)
        ]
        (tmp_path / "labels.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        labels = read_labels(DETECTOR_SPEC, tmp_path / "labels.jsonl")
        exam = Examination(
            DETECTOR_SPEC, Evaluation(recordings, labels, ClassMap.identity(DETECTOR_SPEC.classes)), reference
        )
    assert exam.metric == "AP50"
    assert exam.reference.scores["AP50"] > 0.9


def test_frames_too_large_for_memory_are_decoded_again(tmp_path, monkeypatch):
    recordings = recorded(tmp_path)
    held = frames_again(recordings)
    assert held() is held()
    monkeypatch.setattr("compile.grading.HELD_BYTES", 1)
    streamed = frames_again(recordings)
    assert [frame.frame_id for frame in streamed()] == [frame.frame_id for frame in streamed()] == [0, 1, 2, 3]


def test_labels_and_class_map_go_together(tmp_path):
    with pytest.raises(ValueError, match="labels and class_map go together"):
        Evaluation(recorded(tmp_path), None, ClassMap.identity(CLASSES))
