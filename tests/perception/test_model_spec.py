from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compile.class_map import ClassMap
from perception.decode import DECODERS
from perception.engines.engine import TensorInfo
from perception.errors import SpecError
from perception.model_spec import ModelSpec

SPECS = sorted(path for path in (Path(__file__).parents[1] / "specs").glob("*.yaml") if "classes" not in path.stem)

FIELDS = {
    "name": "small",
    "task": "detection",
    "picture": {"tensor": "images", "width_px": 32, "height_px": 24},
    "decoding": {"decoder": "yolox", "tensors": {"output": "out"}, "strides_px": [8]},
    "classes": ["car", "person"],
}
INPUTS = (TensorInfo("images", (1, 3, 24, 32), "float32"),)
OUTPUTS = (TensorInfo("out", (1, 12, 7), "float32"), TensorInfo("debug", (1, 4), "float32"))


def spec_with(**changes) -> ModelSpec:
    """The small spec; a mapping changes fields of a part, anything else a whole field."""
    fields = {
        name: {**value, **changes.pop(name, {})} if isinstance(value, dict) else changes.pop(name, value)
        for name, value in FIELDS.items()
    }
    return ModelSpec.from_yaml(yaml.safe_dump(fields | changes), where="small.yaml")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_survives_writing_and_reading(path, tmp_path):
    spec = ModelSpec.load(path)
    spec.save(tmp_path / "again.yaml")
    assert ModelSpec.load(tmp_path / "again.yaml") == spec
    assert spec.name == path.stem
    assert spec.decoding.decoder in DECODERS


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_specs_of_the_shared_models_name_their_tensors(path, shared_data):
    from perception.engines.onnxrt import OnnxRuntimeEngine

    engine = OnnxRuntimeEngine((shared_data / "models" / f"{path.stem}.onnx").read_bytes(), threads=1)
    ModelSpec.load(path).check_against(engine.inputs, engine.outputs, where=path.stem)
    engine.close()


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(SpecError, match=r"none\.yaml: no readable ModelSpec .*; draft one with: tollgate inspect"):
        ModelSpec.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a: [1", r"^small\.yaml: line 1, column 6: expected ',' or '\]'"),
        ("- a\n- b", r"^small\.yaml: got \['a', 'b'\], it should be a valid dictionary"),
        ("", r"^small\.yaml: got None, it should be a valid dictionary"),
        ("name: small", r"task: is missing; picture: is missing; .*; docs/model_spec\.md explains the fields"),
    ],
)
def test_what_is_no_spec_is_refused_in_one_line(content, complaint):
    with pytest.raises(SpecError, match=complaint) as refusal:
        ModelSpec.from_yaml(content, where="small.yaml")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"picture": {"widht_px": 3}}, r"picture\.widht_px: is no field here"),
        ({"picture": {"width_px": 0}}, r"picture\.width_px: got 0, it should be greater than 0"),
        ({"picture": {"colour": "GRB"}}, r"picture\.colour: got 'GRB', expected 'BGR' or 'RGB'"),
        ({"picture": {"std": [1, 0, 1]}}, r"picture\.std\.1: got 0, it should be greater than 0"),
        ({"picture": {"pad_value": 256}}, r"picture\.pad_value: .* less than or equal to 255"),
        ({"decoding": {"score_threshold": 1.5}}, r"decoding\.score_threshold: .* less than or equal to 1"),
        ({"decoding": {"nms_iou": 0}}, r"decoding\.nms_iou: .* greater than 0"),
        ({"decoding": {"max_detections": 0}}, r"decoding\.max_detections: .* greater than 0"),
        ({"classes": []}, r"classes: .* at least 1 item"),
        ({"classes": ["car", "car"]}, r"classes: the same name stands twice"),
        ({"name": "../escape"}, r"name: got '\.\./escape', it should match pattern"),
        ({"task": "pose"}, r"task: got 'pose', expected 'detection' or 'segmentation'"),
        ({"format": "tollgate-model/2"}, r"format: got 'tollgate-model/2', expected 'tollgate-model/1'"),
    ],
)
def test_an_impossible_field_is_refused_by_its_name(changes, complaint):
    with pytest.raises(SpecError, match=complaint):
        spec_with(**changes)


def test_a_fitting_model_passes_with_outputs_to_spare():
    spec_with().check_against(INPUTS, OUTPUTS, where="small.onnx")


@pytest.mark.parametrize(
    ("changes", "inputs", "complaint"),
    [
        ({"picture": {"tensor": "data"}}, INPUTS, "no input data, it has images; correct tensor"),
        ({}, (*INPUTS, TensorInfo("size", (1, 2), "int64")), "input size is not fed by the spec; add it as size_input"),
        ({"picture": {"width_px": 64}}, INPUTS, r"has shape \[1, 3, 24, 32\], the spec says \[1, 3, 24, 64\] \(NCHW\)"),
        ({"picture": {"layout": "NHWC"}}, INPUTS, r"the spec says \[1, 24, 32, 3\] \(NHWC\)"),
        ({"picture": {"dtype": "uint8"}}, INPUTS, "input images is float32, the spec says uint8; correct dtype"),
        ({"decoding": {"tensors": {"output": "boxes"}}}, INPUTS, "no output boxes, it has debug, out"),
    ],
)
def test_a_contradiction_with_the_model_is_refused(changes, inputs, complaint):
    with pytest.raises(SpecError, match=f"^small.onnx: .*{complaint}"):
        spec_with(**changes).check_against(inputs, OUTPUTS, where="small.onnx")


def test_a_size_input_is_checked_by_its_name():
    spec = spec_with(size_input={"tensor": "orig_size"})
    spec.check_against((*INPUTS, TensorInfo("orig_size", (1, 2), "int64")), OUTPUTS, where="small.onnx")
    with pytest.raises(SpecError, match="no input orig_size"):
        spec.check_against(INPUTS, OUTPUTS, where="small.onnx")


def test_a_dynamic_batch_admits_the_specs_shape():
    spec_with().check_against((TensorInfo("images", (-1, 3, -1, -1), "float32"),), OUTPUTS, where="small.onnx")


PAGE = (Path(__file__).parents[2] / "docs" / "model_spec.md").read_text(encoding="utf-8")
EXAMPLES = [block.split("```")[0] for block in PAGE.split("```yaml\n")[1:]]


def test_every_example_of_the_documentation_is_readable():
    specs = [ModelSpec.from_yaml(text, where="example") for text in EXAMPLES if "tollgate-model/1" in text]
    maps = [text for text in EXAMPLES if "tollgate-classes/1" in text]
    assert {spec.decoding.decoder for spec in specs} == set(DECODERS)
    assert len(specs) + len(maps) + 1 == len(EXAMPLES)  # and the line that shows size_input by itself
    for text in maps:
        ClassMap.model_validate(yaml.safe_load(text))
