from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compile.backends.onnxrt import build, opened
from compile.fuse import fuse_input
from compile.parity import Subject, compare
from compile.shipment import first_difference
from perception.frame import Frame
from perception.model_spec import ModelSpec, PictureInput
from tests.compile.builders import CLASSES, HEIGHT_PX, SEGMENTER_SPEC, WIDTH_PX, imported_graph, road_picture, segmenter
from tests.compile.graphs import segmentation

FRAMES = [Frame(road_picture(number), "front", number, number, str(number)) for number in range(4)]


def fused(spec: ModelSpec, model: onnx.ModelProto) -> tuple[ModelSpec, bytes]:
    fused_model, picture = fuse_input(model, spec.picture)
    onnx.checker.check_model(fused_model, full_check=True)
    return spec.model_copy(update={"picture": picture}), build(fused_model)


def nhwc_spec() -> ModelSpec:
    picture = PictureInput(tensor="data", layout="NHWC", width_px=64, height_px=32, mean=(10, 20, 30), std=(2, 3, 4))
    fields = {"picture": picture, "decoding": SEGMENTER_SPEC.decoding}
    return SEGMENTER_SPEC.model_copy(update=fields)


def plain_spec(**changes: object) -> ModelSpec:
    return SEGMENTER_SPEC.model_copy(update={"picture": SEGMENTER_SPEC.picture.model_copy(update=changes)})


@pytest.mark.parametrize("colour", ["BGR", "RGB"])
@pytest.mark.parametrize("normalised", [True, False])
def test_bytes_in_give_the_same_tensors_out(tmp_path: Path, colour: str, normalised: bool) -> None:
    plain = {} if normalised else {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    spec = plain_spec(colour=colour, **plain)
    model = imported_graph(segmenter(), tmp_path).model
    fused_spec, content = fused(spec, model)
    assert (fused_spec.picture.dtype, fused_spec.picture.layout) == ("uint8", "NHWC")
    with opened(build(model), threads=1) as before, opened(content, threads=1) as after:
        parity = compare(Subject(spec, before), Subject(fused_spec, after), FRAMES, advance=lambda: None)
    assert parity.outputs[0].sqnr_db > 100
    assert parity.agreement == 1.0


def test_an_nhwc_network_is_fused_without_a_transpose(tmp_path: Path) -> None:
    spec = nhwc_spec()
    model = imported_graph(segmentation(layout="NHWC", classes=len(CLASSES)), tmp_path).model
    fused_spec, content = fused(spec, model)
    with opened(build(model), threads=1) as before, opened(content, threads=1) as after:
        assert first_difference(Subject(spec, before), Subject(fused_spec, after), FRAMES) is None
    added = [node.op_type for node in onnx.load_from_string(content).graph.node][:3]
    assert added == ["Cast", "Mul", "Add"]


def test_a_branch_that_reaches_out_for_the_picture_is_given_the_normalised_one(tmp_path: Path) -> None:
    sketch = segmenter()
    branches = {}
    for name, operator in (("then", "Relu"), ("else", "Abs")):
        result = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, HEIGHT_PX, WIDTH_PX])
        node = helper.make_node(operator, ["images"], [name], name)
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [result])
    bright = sketch.node("Greater", sketch.node("ReduceMean", "images", keepdims=0), sketch.weight(np.float32(0)))
    gated = sketch.node("If", bright, name="gate", **branches)
    first = next(node for node in sketch.nodes if node.name == "first")
    first.input[0] = gated
    sketch.nodes[:] = sketch.nodes[-3:] + sketch.nodes[:-3]
    model = imported_graph(sketch, tmp_path).model
    fused_spec, content = fused(SEGMENTER_SPEC, model)
    with opened(build(model), threads=1) as before, opened(content, threads=1) as after:
        assert first_difference(Subject(SEGMENTER_SPEC, before), Subject(fused_spec, after), FRAMES) is None


def test_a_fusion_that_changes_results_is_told_by_frame(tmp_path: Path) -> None:
    model = imported_graph(segmenter(), tmp_path).model
    wrong_spec, content = fused(plain_spec(mean=(0.0, 0.0, 0.9)), model)
    with opened(build(model), threads=1) as before, opened(content, threads=1) as after:
        different = first_difference(Subject(SEGMENTER_SPEC, before), Subject(wrong_spec, after), FRAMES)
    assert different == "frame 0"


def test_a_network_that_takes_bytes_already_is_the_callers_mistake(tmp_path: Path) -> None:
    model = imported_graph(segmenter(), tmp_path).model
    with pytest.raises(ValueError, match="input images: got uint8, expected float32"):
        fuse_input(model, PictureInput(tensor="images", width_px=WIDTH_PX, height_px=HEIGHT_PX, dtype="uint8"))
