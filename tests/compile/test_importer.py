"""Importing: what is cleaned, that it computes the same, and that whatever cannot be is one sentence."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compile import folding
from compile.importer import import_model
from compile.onnx_graph import UNKNOWN_SIDE, shapes_of
from perception.engines.engine import TensorInfo
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import ModelError
from tests.compile.graphs import Sketch, query_logits, segmentation, small_network, yolov8

SHARED_MODELS = ("yolox_nano_416", "nanodet_m_416", "fastestdet_352", "road_segmentation_adas_0001")


def outputs_of(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    engine = OnnxRuntimeEngine(model.SerializeToString(), threads=1)
    return {name: value.copy() for name, value in engine.infer(feeds).items()}


def refused(path: Path, **settings) -> str:
    with pytest.raises(ModelError) as caught:
        import_model(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# What is cleaned


def test_an_old_export_becomes_static_tidy_and_of_opset_13(tmp_path: Path) -> None:
    path = small_network(opset=9).save(tmp_path / "m.onnx", opset=9, ir_version=4)
    imported = import_model(path)
    assert imported.inputs == (TensorInfo("picture", (1, 3, 16, 16), "float32"),)
    assert imported.outputs == (TensorInfo("features", (1, 8, 16, 16), "float32"),)
    assert (imported.source_opset, imported.opset) == (9, 13)
    assert [node.op_type for node in imported.model.graph.node] == ["Conv", "Relu"]
    told = " | ".join(imported.changes)
    for expected in (
        "[batch, 3, 16, 16] → [1, 3, 16, 16]",
        "opset 9 → 13",
        "1 Dropout removed",
        "1 Identity removed",
        "1 nodes that no output depends on dropped",
        "1 unused initializers dropped",
        "1 BatchNormalization fused",
    ):
        assert expected in told


def test_the_cleaned_model_computes_what_the_original_computes(tmp_path: Path) -> None:
    sketch = small_network(batch=1)
    path = sketch.save(tmp_path / "m.onnx", opset=9, ir_version=4)
    picture = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32) * 100
    before = outputs_of(onnx.load(path), {"picture": picture})
    after = outputs_of(import_model(path).model, {"picture": picture})
    np.testing.assert_allclose(after["features"], before["features"], rtol=1e-5, atol=1e-4)


def test_digest_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    path = small_network().save(tmp_path / "m.onnx", opset=9, ir_version=4)
    imported = import_model(path)
    assert imported.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.source_bytes == path.stat().st_size


def test_importing_twice_gives_equal_bytes(tmp_path: Path) -> None:
    path = small_network().save(tmp_path / "m.onnx", opset=9, ir_version=4)
    first, second = (import_model(path).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    sketch = small_network(batch=1)
    listed = [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in sketch.weights]
    sketch.inputs.extend(listed)
    imported = import_model(sketch.save(tmp_path / "m.onnx", opset=9, ir_version=3))
    assert [tensor.name for tensor in imported.inputs] == ["picture"]
    assert f"{len(listed)} initializers taken off the list of graph inputs" in imported.changes


def test_every_node_gets_a_unique_name_and_keeps_its_own(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    tensor = "x"
    for name in ("", "mine", "mine", "", "Relu_0"):
        tensor = sketch.node("Relu", tensor, name=name)
    sketch.output(tensor, "y", [1, 4])
    names = [node.name for node in import_model(sketch.save(tmp_path / "m.onnx")).model.graph.node]
    assert names == ["Relu_0_2", "mine", "mine_2", "Relu_3", "Relu_0"]


def test_an_identity_between_input_and_output_stays(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output("x", "y", [1, 4])
    sketch.output(sketch.node("Relu", "x"), "z", [1, 4])
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    assert sorted(node.op_type for node in imported.model.graph.node) == ["Identity", "Relu"]
    assert [tensor.name for tensor in imported.outputs] == ["y", "z"]


def test_a_dropout_whose_mask_is_read_stays(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    kept, mask = sketch.node("Dropout", "x", outputs=2)
    sketch.output(kept, "y", [1, 4])
    sketch.output(mask, "m", [1, 4], TensorProto.BOOL)
    assert "Dropout" in [node.op_type for node in import_model(sketch.save(tmp_path / "m.onnx")).model.graph.node]


def test_shape_arithmetic_is_folded_once_the_sides_are_known(tmp_path: Path) -> None:
    sketch = Sketch(x=["batch", 3, 8, 8])
    shape = sketch.node("Shape", "x")
    first = sketch.node("Gather", shape, sketch.weight(np.array([0], np.int64)), axis=0)
    target = sketch.node("Concat", first, sketch.weight(np.array([-1], np.int64)), axis=0)
    sketch.output(sketch.node("Reshape", sketch.node("Relu", "x"), target), "y", ["batch", 192])
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    assert [node.op_type for node in imported.model.graph.node] == ["Relu", "Reshape"]
    assert imported.outputs[0].shape == (1, 192)
    assert "3 nodes that compute constants folded" in imported.changes


def test_quantized_weights_are_not_folded_back_to_float(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 3, 8, 8])
    codes = sketch.weight(np.ones((4, 3, 1, 1), np.int8))
    scale, zero = sketch.weight(np.float32(0.1)), sketch.weight(np.int8(0))
    sketch.output(sketch.node("Conv", "x", sketch.node("DequantizeLinear", codes, scale, zero)), "y", [1, 4, 8, 8])
    model = import_model(sketch.save(tmp_path / "m.onnx")).model
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "Conv"]


def test_an_input_that_nothing_reads_is_dropped_and_said(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4], stray=[1, 2])
    sketch.output(sketch.node("Relu", "x"), "y", [1, 4])
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    assert [tensor.name for tensor in imported.inputs] == ["x"]
    assert "inputs that no output depends on dropped: stray" in imported.changes


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("Twice", "x", domain="mine"), "y", [1, 4])
    model = sketch.model(opset=17)
    opsets = [helper.make_opsetid("", 17)]
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.functions.append(
        helper.make_function("mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opsets)
    )
    onnx.save(model, tmp_path / "m.onnx")
    imported = import_model(tmp_path / "m.onnx")
    assert [node.op_type for node in imported.model.graph.node] == ["Add"]
    assert "1 local functions inlined" in imported.changes


def test_external_data_is_read_in_and_counted_in_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(segmentation().model(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    imported = import_model(path)
    assert not any(tensor.external_data for tensor in imported.model.graph.initializer)
    assert imported.source_bytes == path.stat().st_size + (tmp_path / "m.data").stat().st_size
    assert imported.source_sha256 == hashlib.sha256(path.read_bytes() + (tmp_path / "m.data").read_bytes()).hexdigest()


def test_every_tensor_of_a_whole_network_has_a_known_shape(tmp_path: Path) -> None:
    imported = import_model(yolov8(open_sides=True).save(tmp_path / "m.onnx"), shapes={"images": (1, 3, 64, 64)})
    shapes = shapes_of(imported.model.graph)
    assert all(UNKNOWN_SIDE not in shapes[name] for node in imported.model.graph.node for name in node.output)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 15, 17, 19, 21])
def test_opsets_9_to_21_are_accepted(tmp_path: Path, opset: int) -> None:
    path = segmentation(classes=4).save(tmp_path / "m.onnx", opset=opset, ir_version=4 if opset < 11 else 8)
    imported = import_model(path)
    assert imported.opset == max(13, opset)
    onnx.checker.check_model(imported.model, full_check=True)


def test_an_opset_that_cannot_be_upgraded_is_kept_and_the_node_named(tmp_path: Path, monkeypatch) -> None:
    def stumbles(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise RuntimeError("No Adapter From Version $11 for Relu")

    monkeypatch.setattr(onnx.version_converter, "convert_version", stumbles)
    imported = import_model(small_network(opset=11).save(tmp_path / "m.onnx", opset=11))
    assert imported.opset == 11
    assert re.search(r"opset 11 kept.*node relu \(Relu\).*opset_version=13", " | ".join(imported.notes))


def test_an_upgrade_that_changes_the_outputs_is_given_up(tmp_path: Path, monkeypatch) -> None:
    def corrupts(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        wrong = onnx.ModelProto.FromString(model.SerializeToString())
        wrong.opset_import[0].version = version
        next(node for node in wrong.graph.node if node.op_type == "Relu").op_type = "Sigmoid"
        return wrong

    monkeypatch.setattr(onnx.version_converter, "convert_version", corrupts)
    imported = import_model(small_network(opset=11).save(tmp_path / "m.onnx", opset=11))
    assert imported.opset == 11
    assert "Relu" in [node.op_type for node in imported.model.graph.node]
    assert any("the upgrade of its opset was given up: output features differs" in note for note in imported.notes)


def test_a_fusion_that_changes_the_outputs_is_given_up(tmp_path: Path, monkeypatch) -> None:
    real = folding.fuse_batch_norms

    def corrupts(model: onnx.ModelProto) -> list[str]:
        said = real(model)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_fused_bias"))
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
        return said

    monkeypatch.setattr(folding, "fuse_batch_norms", corrupts)
    imported = import_model(small_network().save(tmp_path / "m.onnx", opset=9, ir_version=4))
    assert imported.opset == 13
    assert "BatchNormalization" in [node.op_type for node in imported.model.graph.node]
    assert any("fusing BatchNormalization was given up: output features differs" in note for note in imported.notes)


def test_control_flow_is_noted_and_stays(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["out"])], "branch", [], [helper.make_tensor_value_info("out", 1, [1, 4])]
    )
    sketch = Sketch(x=[1, 4])
    positive = sketch.node("Greater", sketch.node("ReduceMax", "x", keepdims=0), sketch.weight(np.float32(0)))
    sketch.output(sketch.node("If", positive, name="gate", then_branch=branch, else_branch=branch), "y", [1, 4])
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    assert imported.notes == ("node gate (If) is control flow: not supported for quantization, it stays in float",)


def test_an_output_whose_size_depends_on_the_picture_keeps_an_open_side(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("NonZero", "x"), "where", [2, "count"], TensorProto.INT64)
    assert import_model(sketch.save(tmp_path / "m.onnx")).outputs == (TensorInfo("where", (2, -1), "int64"),)


def test_an_infinite_mask_is_no_broken_weight(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    keep = sketch.weight(np.array([[True, False, True, True]]))
    masked = sketch.node("Where", keep, "x", sketch.weight(np.float32(-np.inf)))
    sketch.output(sketch.node("Softmax", masked, axis=-1), "y", [1, 4])
    assert import_model(sketch.save(tmp_path / "m.onnx")).outputs[0].shape == (1, 4)


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED_MODELS)
def test_a_real_model_computes_the_same_after_cleaning(shared_data: Path, name: str) -> None:
    path = shared_data / "models" / f"{name}.onnx"
    imported = import_model(path)
    onnx.checker.check_model(imported.model, full_check=True)
    assert imported.opset == 13
    assert len(imported.inputs) == 1
    tensor = imported.inputs[0]
    feeds = {tensor.name: np.random.default_rng(3).uniform(0, 255, tensor.shape).astype(np.float32)}
    before, after = outputs_of(onnx.load(path), feeds), outputs_of(imported.model, feeds)
    for output, value in before.items():
        np.testing.assert_allclose(after[output], value, rtol=1e-4, atol=1e-4 * max(1, np.abs(value).max()))


# Open sides


def test_open_height_and_width_are_refused_with_the_size_the_exporter_noted(tmp_path: Path) -> None:
    path = yolov8(open_sides=True).save(tmp_path / "m.onnx", imgsz="[64, 96]")
    assert "input images has shape [batch, 3, height, width]" in refused(path)
    assert "--shape images=1,3,64,96" in refused(path)


def test_open_sides_without_any_note_are_refused_with_what_to_write(tmp_path: Path) -> None:
    path = yolov8(open_sides=True).save(tmp_path / "m.onnx")
    assert "give --shape images=1,3,SIZE,SIZE with the size it was trained for" in refused(path)


def test_a_shape_for_an_input_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = yolov8().save(tmp_path / "m.onnx")
    assert "no input picture to give a shape, it has images" in refused(path, shapes={"picture": (1, 3, 64, 64)})


@pytest.mark.parametrize("asked", [(1, 3, 64, 64), (1, 3, 64), (1, 3, 0, 64)])
def test_a_shape_that_contradicts_the_model_is_refused(tmp_path: Path, asked: tuple[int, ...]) -> None:
    path = segmentation(layout="NCHW").save(tmp_path / "m.onnx")
    assert f"{list(asked)} was asked for; only open sides can be set" in refused(path, shapes={"data": asked})


def test_a_fixed_batch_other_than_the_one_wanted_is_refused(tmp_path: Path) -> None:
    path = small_network(batch=4).save(tmp_path / "m.onnx", opset=9, ir_version=4)
    assert "has shape [4, 3, 16, 16], expected batch 1" in refused(path)


def test_a_batch_of_several_is_set_where_it_is_open(tmp_path: Path) -> None:
    path = small_network().save(tmp_path / "m.onnx", opset=9, ir_version=4)
    assert import_model(path, batch=4).outputs[0].shape == (4, 8, 16, 16)


# What is refused


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "it is a JPEG picture"),
        (b"PK\x03\x04" + bytes(100), r"PyTorch checkpoints \(.pt\) are; export the model to ONNX first"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the model; run: git lfs pull"),
        (b"<?xml version='1.0'?><net name='x'/>", "it is text starting .<\\?xml"),
        (b"a note to self\n", "it is text"),
        (bytes(range(8, 200)), "truncated, damaged or no ONNX model"),
        (bytes(64), "truncated, damaged or no ONNX model"),
    ],
)
def test_what_is_no_onnx_file_is_called_by_its_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert re.search(what, refused(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / "none.onnx")
    assert "cannot be read (Is a directory)" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    whole = segmentation(classes=64).save(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated, damaged or no ONNX model" in refused(path)


def test_a_newer_ir_version_is_refused(tmp_path: Path) -> None:
    path = segmentation().save(tmp_path / "m.onnx", ir_version=onnx.IR_VERSION + 1)
    assert f"written in IR version {onnx.IR_VERSION + 1}" in refused(path)


@pytest.mark.parametrize("opset", [8, 22])
def test_an_opset_out_of_range_is_refused(tmp_path: Path, opset: int) -> None:
    path = segmentation().save(tmp_path / "m.onnx", opset=opset)
    assert f"uses opset {opset}, expected 9 to 21; export it again with opset_version=17" in refused(path)


def test_a_custom_domain_is_refused_with_node_and_domain(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("FusedThing", "x", name="fused", domain="com.acme"), "y", [1, 4])
    model = sketch.model()
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    onnx.save(model, tmp_path / "m.onnx")
    assert "node fused (FusedThing) is of the custom domain 'com.acme'" in refused(tmp_path / "m.onnx")


def test_an_unknown_operator_is_refused_with_its_node(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("EfficientNMS_TRT", "x", name="nms"), "y", [1, 4])
    assert "node nms (EfficientNMS_TRT) is no operator of opset 13" in refused(sketch.save(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("value_type", "what"),
    [
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])), "a sequence"),
        (helper.make_tensor_type_proto(TensorProto.STRING, [1]), "an? (object|str)"),
        (helper.make_tensor_type_proto(TensorProto.COMPLEX64, [1]), "a complex64"),
    ],
)
def test_an_input_that_no_frame_can_feed_is_refused(tmp_path: Path, value_type: onnx.TypeProto, what: str) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("Relu", "x"), "y", [1, 4])
    sketch.inputs.append(helper.make_value_info("odd", value_type))
    assert re.search(f"input odd is {what}, expected a tensor of", refused(sketch.save(tmp_path / "m.onnx")))


@pytest.mark.parametrize(("value", "what"), [(np.nan, "1 NaN of 4"), (np.inf, "1 infinite of 4")])
def test_a_weight_that_is_no_number_is_refused_by_name(tmp_path: Path, value: float, what: str) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("Mul", "x", sketch.weight(np.float32([1, value, 1, 1]), "broken")), "y", [1, 4])
    assert f"initializer broken of node Mul_0 (Mul) holds {what} values" in refused(sketch.save(tmp_path / "m.onnx"))


def test_a_weight_of_the_wrong_length_is_refused_by_name(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("Add", "x", sketch.weight(np.ones(4, np.float32), "short")), "y", [1, 4])
    sketch.weights[0].raw_data = bytes(12)
    assert re.search(r"initializer short of shape \[4\] cannot be read", refused(sketch.save(tmp_path / "m.onnx")))


def test_missing_external_data_is_refused_by_the_file_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(segmentation().model(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    assert "external data m.data is missing" in refused(path)


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(segmentation().model(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    data = tmp_path / "m.data"
    data.write_bytes(data.read_bytes()[:-8])
    assert "the data file is truncated" in refused(path)


def test_external_data_outside_the_models_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "inside").mkdir()
    model = segmentation().model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="../secret"))
    path = tmp_path / "inside" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert "points to '../secret', expected a file in the model's own folder" in refused(path)


def test_a_file_of_more_than_2_gib_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 5)
    assert "2.0 GiB with its weights, expected less than 2 GiB" in refused(path)


def test_an_absurd_activation_is_refused_before_it_is_run(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 3, "height", 16])
    sketch.output(sketch.node("Relu", "x"), "y", [1, 3, "height", 16])
    path = sketch.save(tmp_path / "m.onnx")
    assert re.search(r"tensor \w+ of shape .* would take", refused(path, shapes={"x": (1, 3, 2**31, 16)}))


def test_a_graph_that_breaks_the_standard_is_refused_with_the_tensor(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("Add", "x", "nowhere", name="sum"), "y", [1, 4])
    message = refused(sketch.save(tmp_path / "m.onnx"))
    assert "breaks the ONNX standard" in message
    assert "nowhere" in message


def test_sides_that_contradict_each_other_are_refused_with_the_node(tmp_path: Path, capfd) -> None:
    sketch = Sketch(x=[1, 3, 8, 8])
    weight = sketch.weight(np.ones((4, 5, 1, 1), np.float32))
    sketch.output(sketch.node("Conv", "x", weight, name="misfit"), "y", [1, 4, 8, 8])
    assert "misfit" in refused(sketch.save(tmp_path / "m.onnx"))


def test_a_model_without_nodes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString())
    assert "with no graph of nodes and outputs" in refused(tmp_path / "m.onnx")


# Nothing but a ModelError, whatever the bytes

SMALL = small_network().model(opset=9, ir_version=4).SerializeToString()
QUERIES = query_logits(classes=3, queries=4).model().SerializeToString()


def survives(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        import_model(path)
    except ModelError as error:
        assert "\n" not in str(error)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_is_a_model_error_or_still_a_model(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([SMALL, QUERIES])))
    end = len(content) - 1
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, end)))
    survives(tmp_path / "m.onnx", bytes(content if cut is None else content[:cut]))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=200))
def test_random_bytes_are_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    refused(tmp_path / "m.onnx")


@pytest.mark.shared
def test_a_truncated_real_model_is_refused_wherever_it_is_cut(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "models" / "fastestdet_352.onnx").read_bytes()
    for cut in range(1, len(whole), len(whole) // 40):
        (tmp_path / "m.onnx").write_bytes(whole[:cut])
        assert "truncated, damaged or no ONNX model" in refused(tmp_path / "m.onnx")


def test_weights_survive_the_way_through(tmp_path: Path) -> None:
    """A network without normalization keeps its weights to the bit."""
    sketch = segmentation(layout="NCHW", classes=4)
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in imported.model.graph.initializer}
    for tensor in sketch.weights:
        np.testing.assert_array_equal(kept[tensor.name], numpy_helper.to_array(tensor))
