"""Real models on real roads: what naive INT8 loses, and that fusing the input changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from compile.backends.onnxrt import build, node_times, opened
from compile.fuse import fuse_input
from compile.grading import Evaluation, Examination
from compile.graph import GraphView
from compile.importer import import_model
from compile.parity import Subject
from compile.quantizer import Quantizer
from compile.recipes import RECIPES
from compile.recordings import Recordings, evenly, survey
from compile.rules import RULES
from compile.shipment import first_difference
from perception.engines.engine import Tensors
from perception.model_spec import ModelSpec
from perception.preprocess import Preprocessor

SPECS = Path(__file__).resolve().parents[1] / "specs"
MODELS = ("yolox_nano_416", "nanodet_m_416", "fastestdet_352", "road_segmentation_adas_0001")


def recorded(folder: Path, count: int) -> Recordings:
    return Recordings((folder,), tuple(evenly(survey((folder,)), count)))


@pytest.mark.parametrize("name", MODELS)
def test_the_fused_input_gives_the_same_detections(shared_data, name):
    spec = ModelSpec.load(SPECS / f"{name}.yaml")
    model = import_model(shared_data / "models" / f"{name}.onnx").model
    fused_model, picture = fuse_input(model, spec.picture)
    frames = recorded(shared_data / "labelled" / "kitti_dev" / "image_2", 4).frames()
    with opened(build(model), threads=2) as plain, opened(build(fused_model), threads=2) as fused:
        fused_spec = spec.model_copy(update={"picture": picture})
        assert first_difference(Subject(spec, plain), Subject(fused_spec, fused), frames) is None


def test_naive_int8_of_yolox_nano_runs_in_integers_and_loses_most_of_what_float_sees(shared_data):
    spec = ModelSpec.load(SPECS / "yolox_nano_416.yaml")
    graph = GraphView.of(import_model(shared_data / "models" / "yolox_nano_416.onnx").model)
    calibration = recorded(shared_data / "clips" / "driveai_120", 16)

    def feeds() -> Iterable[Tensors]:
        preprocessor = Preprocessor(spec.picture)
        return (preprocessor.prepare(frame.pixels).feeds for frame in calibration.frames())

    quantizer = Quantizer(graph, RULES["onnxrt"], feeds, feeds, keep_float={}, weight_bits=8, threads=2)
    naive = RECIPES["onnxrt"][0]
    quantizer.observe([naive])
    content = quantizer.candidate(naive).content
    executed = node_times(content, next(iter(feeds())), threads=2, runs=1)
    assert sum(node.op_type == "QLinearConv" for node in executed) == 113
    evaluation = Evaluation(recorded(shared_data / "labelled" / "kitti_dev" / "image_2", 12), None, None)
    with opened(build(graph.model), threads=2) as reference, opened(content, threads=2) as candidate:
        exam = Examination(spec, evaluation, reference)
        assert exam.grade(exam.results(spec, candidate)).loss > 0.5
