"""The FP16 graph for TensorRT 11, run by ONNX Runtime, which rounds every tensor as the graph says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from compile.backends.half_types import with_half_types
from compile.backends.onnxrt import build, opened
from compile.class_map import ClassMap
from compile.grading import Evaluation, Examination, read_labels
from compile.graph import GraphView
from compile.importer import import_model
from compile.job import feeds_of
from compile.onnx_graph import element_types_of
from perception.errors import ModelError
from perception.model_spec import ModelSpec
from tests.compile.architectures import ARCHITECTURES
from tests.compile.builders import imported_graph, segmenter
from tests.compile.graphs import Sketch
from tests.compile.test_compile_shared import SPECS, recorded
from tests.compile.test_quantize import quantized, random_feed
from tests.compile.test_unseen_graphs import answers, prepared, sqnr_db

SAMPLES = Path(__file__).resolve().parents[3] / "data" / "samples"
SAMPLE = SAMPLES / "models" / "sample_detector.yaml"
IS_COARSE = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 24)
"""ONNX Runtime 1.23, the last for Python 3.10, rounds networks of codes and halves to 28 dB of what 1.32 gives."""
with_exact_codes = pytest.mark.skipif(IS_COARSE, reason="this ONNX Runtime is coarse where codes and halves meet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unseen")


def halves(model: onnx.ModelProto) -> set[str]:
    """Operators that give FP16 beside the casts."""
    types = element_types_of(onnx.shape_inference.infer_shapes(model).graph)
    return {n.op_type for n in model.graph.node if types.get(n.output[0]) == TensorProto.FLOAT16} - {"Cast"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=with_exact_codes if name == "quantized already" else ()) for name in ARCHITECTURES],
)
def test_an_unseen_network_says_the_same_in_half_precision(folder, name):
    unseen = prepared(name, folder)
    half = with_half_types(unseen.imported.model)
    onnx.checker.check_model(half, full_check=True)
    wanted = answers(build(unseen.imported.model), unseen.unseen)
    got = answers(build(half), unseen.unseen)
    assert got.keys() == wanted.keys()
    for output, value in wanted.items():
        assert (got[output].dtype, got[output].shape) == (value.dtype, value.shape)
        if value.dtype.kind == "f":
            assert sqnr_db(got[output], value) >= 40
        else:
            assert (got[output] == value).mean() >= unseen.architecture.agreement


def test_weights_and_what_they_make_are_half_and_inputs_and_outputs_stay(tmp_path):
    model = imported_graph(segmenter(), tmp_path).model
    half = with_half_types(model)
    assert halves(half) == {"Conv", "Relu"}
    assert [t.data_type for t in half.graph.initializer if len(t.dims) == 4] == [TensorProto.FLOAT16] * 3
    for before, after in ((model.graph.input, half.graph.input), (model.graph.output, half.graph.output)):
        assert [v.SerializeToString() for v in before] == [v.SerializeToString() for v in after]


def test_what_half_precision_could_hurt_stays_float(tmp_path):
    sketch = Sketch(images=[1, 3, 16, 16])
    features = sketch.conv("images", 3, 8, name="stem")
    offset = sketch.node("Add", features, sketch.weight(np.float32(1e6)), name="too large")
    faint = sketch.node("Mul", offset, sketch.weight(np.float32(1e-9)), name="too small")
    spread = sketch.node("Exp", sketch.node("Relu", faint, name="relu"), name="raised")
    decoded = sketch.conv(spread, 8, 4, name="head")
    pixels = sketch.node("Mul", decoded, sketch.weight(np.float32(32)), name="in pixels")
    sketch.output(pixels, "boxes", [1, 4, 16, 16])
    half = with_half_types(import_model(sketch.save(tmp_path / "m.onnx")).model)
    types = element_types_of(onnx.shape_inference.infer_shapes(half).graph)
    floats = {node.name for node in half.graph.node if types[node.output[0]] == TensorProto.FLOAT}
    assert {"too large", "too small", "raised", "in pixels"} <= floats
    assert floats.isdisjoint({"stem", "relu", "head"})
    onnx.checker.check_model(half, full_check=True)


@with_exact_codes
def test_quantizers_take_half_scales_that_stay_above_zero(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    feed = {"images": random_feed()}
    model = onnx.load_from_string(quantized(graph, feed, kind="tensorrt"))
    dead = next(n.input[1] for n in model.graph.node if n.op_type == "DequantizeLinear" and "first" in n.name)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == dead)
    values = numpy_helper.to_array(scale).copy()
    values.flat[0] = np.finfo(np.float32).tiny  # a channel that is always zero
    scale.CopyFrom(numpy_helper.from_array(values, dead))
    half = with_half_types(model)
    onnx.checker.check_model(half, full_check=True)
    constants = {tensor.name: tensor for tensor in half.graph.initializer}
    scales = [constants[n.input[1]] for n in half.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {tensor.data_type for tensor in scales} == {TensorProto.FLOAT16}
    assert all((numpy_helper.to_array(tensor) > 0).all() for tensor in scales)
    wanted = answers(build(model), feed, integers=False)["mask"]
    assert sqnr_db(answers(build(half), feed, integers=False)["mask"], wanted) >= 30


def test_the_model_given_is_left_as_it_was(tmp_path):
    model = imported_graph(segmenter(), tmp_path).model
    before = build(model)
    with_half_types(model)
    assert build(model) == before


def test_a_quantized_model_that_cannot_be_lifted_is_refused(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    model = onnx.load_from_string(quantized(graph, {"images": random_feed()}, kind="tensorrt"))
    model.graph.node[0].domain = ""
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"opset 13 cannot be lifted to 19, which FP16 .*or compile without"):
        with_half_types(model)


def graded(model: onnx.ModelProto, candidate: onnx.ModelProto, spec: ModelSpec, evaluation: Evaluation):
    """Scores of both by ground truth, and how much of what either reports both report."""
    with opened(build(model), threads=2, integers=False) as engine:
        exam = Examination(spec, evaluation, engine)
    with opened(build(candidate), threads=2, integers=False) as engine:
        grade = exam.grade(exam.results(spec, engine))
    metric = exam.metric
    return exam.reference.scores[metric], grade.scores[metric], grade.agreement


@pytest.fixture(scope="module")
def sample_frames() -> Evaluation:
    """Pictures of the sample drive, decoded once."""
    labels = read_labels(ModelSpec.load(SAMPLE), SAMPLES / "drive" / "labels.jsonl")
    return Evaluation(recorded(SAMPLES / "drive", 16), labels, ClassMap.load(SAMPLES / "classes.yaml"))


@pytest.mark.parametrize(
    ("precision", "agreed"), [("fp16", 0.99), pytest.param("int8 and fp16", 0.9, marks=with_exact_codes)]
)
def test_the_sample_detector_keeps_its_average_precision(sample_frames, precision, agreed):
    """Codes at the edge of a step fall to either side, so that integers agree less; they are no worse."""
    spec = ModelSpec.load(SAMPLE)
    graph = GraphView.of(import_model(SAMPLE.with_suffix(".onnx")).model)
    model = graph.model
    if precision != "fp16":
        feed = next(iter(feeds_of(spec, sample_frames.recordings)))
        feed = {name: value.copy() for name, value in feed.items()}
        model = onnx.load_from_string(quantized(graph, feed, kind="tensorrt"))
    wanted, got, agreement = graded(model, with_half_types(model), spec, sample_frames)
    assert got >= 0.98 * wanted > 0
    assert agreement >= agreed


LABELLED = {
    "yolox_nano_416": ("kitti_dev/image_2", "kitti_dev/label_2", "kitti_classes"),
    "nanodet_m_416": ("kitti_dev/image_2", "kitti_dev/label_2", "kitti_classes"),
    "fastestdet_352": ("kitti_dev/image_2", "kitti_dev/label_2", "kitti_classes"),
    "road_segmentation_adas_0001": ("camvid_day/images", "camvid_day/masks", "camvid_classes"),
}


@pytest.mark.parametrize("name", LABELLED)
def test_shared_models_see_as_much_in_half_precision(shared_data, name):
    pictures, labels, classes = LABELLED[name]
    spec = ModelSpec.load(SPECS / f"{name}.yaml")
    model = import_model(shared_data / "models" / f"{name}.onnx").model
    recordings = recorded(shared_data / "labelled" / pictures, 16 if spec.task == "detection" else 4)
    truth = read_labels(spec, shared_data / "labelled" / labels)
    evaluation = Evaluation(recordings, truth, ClassMap.load(SPECS / f"{classes}.yaml"))
    wanted, got, agreement = graded(model, with_half_types(model), spec, evaluation)
    assert got >= wanted - 0.005
    assert agreement >= 0.98
