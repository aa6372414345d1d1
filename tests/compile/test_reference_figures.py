"""Fed and read as the specs say, the shared models reach the accuracy published for them: that proves both ways.

The figures were published for 133 vehicles and 24 persons. Objects of frames that are not among the shared ones are
put into one more frame, where the network finds none of them or all of them: the published figure must lie between.
With every frame there, both ends are the figure itself.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from compile.accuracy import LOWEST_SCORE, match_detections, match_masks
from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledObject, read_masks, read_objects
from perception.decode import open_decoder
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.preprocess import Preprocessor
from perception.results import Detections, Result

SPECS = Path(__file__).parents[1] / "specs"
TOLERANCE = 0.01
PUBLISHED_COUNTS = {"vehicles": 133, "persons": 24}
PUBLISHED_AP50 = {
    "yolox_nano_416": {"vehicles": 0.731, "persons": 0.405},
    "nanodet_m_416": {"vehicles": 0.709, "persons": 0.405},
    "fastestdet_352": {"vehicles": 0.601, "persons": 0.097},
}
PUBLISHED_ROAD_IOU = 0.974


def frames_of(folder: Path) -> list[Frame]:
    files = sorted(folder.glob("*.jpg"))
    return [Frame(cv2.imread(str(file)), "camera", number, number, file.stem) for number, file in enumerate(files)]


def results_of(spec: ModelSpec, model: Path, frames: list[Frame]) -> list[Result]:
    engine = OnnxRuntimeEngine(model.read_bytes(), threads=2)
    preprocessor, decoder = Preprocessor(spec.picture, spec.size_input), open_decoder(spec, engine.outputs)
    results = []
    for frame in frames:
        prepared = preprocessor.prepare(frame.pixels)
        tensors = engine.infer(prepared.feeds)
        results.append(decoder(tensors, prepared.geometry, (frame.width_px, frame.height_px), LOWEST_SCORE))
    engine.close()
    return results


def absent_objects(labelled: dict[str, int]) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Class and box of the objects that the published figures rest on and that are not among the shared frames."""
    names = {"vehicles": "Car", "persons": "Pedestrian"}
    kinds = [names[group] for group, count in PUBLISHED_COUNTS.items() for _ in range(count - labelled[group])]
    return [(kind, (100.0 * i, 0.0, 100.0 * i + 50, 50.0)) for i, kind in enumerate(kinds)]


def all_found(objects: list[tuple[str, tuple[float, float, float, float]]], classes: tuple[str, ...]) -> Detections:
    answers = {"Car": "car", "Pedestrian": "person"}
    return Detections(
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.ones(len(objects), np.float32),
        np.array([classes.index(answers[kind]) for kind, _ in objects], np.int32),
    )


@pytest.mark.parametrize("name", PUBLISHED_AP50)
def test_a_detector_reaches_its_published_figures(shared_data, name):
    spec, class_map = ModelSpec.load(SPECS / f"{name}.yaml"), ClassMap.load(SPECS / "kitti_classes.yaml")
    frames = frames_of(shared_data / "labelled" / "kitti_dev" / "image_2")
    truths = read_objects(shared_data / "labelled" / "kitti_dev").of_all(frames)
    results = results_of(spec, shared_data / "models" / f"{name}.onnx", frames)
    measured = match_detections(results, truths, class_map=class_map, classes=spec.classes).accuracy().groups
    absent = absent_objects({group: accuracy.labelled for group, accuracy in measured.items()})
    more = LabelledFrame(tuple(LabelledObject(kind, box) for kind, box in absent))
    ends = [
        match_detections([*results, found], [*truths, more], class_map=class_map, classes=spec.classes).accuracy()
        for found in (Detections.empty(), all_found(absent, spec.classes))
    ]
    for group, published in PUBLISHED_AP50[name].items():
        low, high = (end.groups[group] for end in ends)
        assert low.labelled == high.labelled == PUBLISHED_COUNTS[group]
        assert low.ap50 - TOLERANCE <= published <= high.ap50 + TOLERANCE, f"{group}: {measured[group]}"


def test_the_road_reaches_its_published_iou(shared_data):
    name = "road_segmentation_adas_0001"
    spec, class_map = ModelSpec.load(SPECS / f"{name}.yaml"), ClassMap.load(SPECS / "camvid_classes.yaml")
    frames = frames_of(shared_data / "labelled" / "camvid_day" / "images")
    truths = read_masks(shared_data / "labelled" / "camvid_day").of_all(frames)
    results = results_of(spec, shared_data / "models" / f"{name}.onnx", frames)
    accuracy = match_masks(results, truths, class_map=class_map, classes=spec.classes).accuracy()
    assert accuracy.groups["road"] == pytest.approx(PUBLISHED_ROAD_IOU, abs=TOLERANCE)
