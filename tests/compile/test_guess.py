"""The guess is right, or says that it is unsure; every field of the draft has its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from compile.guess import Guess, guess_spec
from compile.guess.names import COCO_80, coco_91
from compile.guess.seen import Picture
from compile.importer import import_model
from perception.decode import DECODERS, open_decoder
from perception.model_spec import ModelSpec
from tests.compile.graphs import Sketch, nanodet, query_logits, rt_detr, segmentation, yolov8, yolox

ULTRALYTICS = {
    "author": "Ultralytics",
    "description": "Ultralytics YOLOv8n model",
    "license": "AGPL-3.0 License",
    "task": "detect",
    "stride": "32",
    "imgsz": "[64, 64]",
    "names": "{0: 'car', 1: 'truck', 2: 'pedestrian'}",
}


def guessed(sketch: Sketch, path: Path, **metadata) -> Guess:
    return guess_spec(import_model(sketch.save(path / "m.onnx", **metadata)), "m")


def leaves(fields: dict, path: str = "") -> set[str]:
    """Dotted paths of a spec's fields, as far down as clues go."""
    found = set()
    for key, value in fields.items():
        whole = key in ("tensors", "options") or not isinstance(value, dict)
        found |= {path + key} if whole else leaves(value, f"{path}{key}.")
    return found


def reads_its_outputs(guess: Guess, sketch: Sketch, path: Path) -> None:
    """The decoder named opens for the model's outputs."""
    imported = import_model(sketch.save(path / "m.onnx"))
    guess.spec.check_against(imported.inputs, imported.outputs, where="m")
    open_decoder(guess.spec, imported.outputs)


# Families


def test_an_ultralytics_export_is_recognised_by_its_own_signature(tmp_path: Path) -> None:
    guess = guessed(yolov8(), tmp_path, **ULTRALYTICS)
    picture, decoding = guess.spec.picture, guess.spec.decoding
    assert decoding.decoder == "yolov8"
    assert decoding.tensors == {"output": "output0"}
    assert guess.spec.classes == ("car", "truck", "pedestrian")
    assert (picture.colour, picture.scale, picture.resize, picture.pad_value) == (
        "RGB",
        1 / 255,
        "letterbox_centre",
        114,
    )
    assert guess.spec.licence == "AGPL-3.0 License"
    assert {guess.clue(f).confidence for f in ("decoding.decoder", "picture.colour", "classes")} == {"certain"}
    assert guess.unsure == ()
    reads_its_outputs(guess, yolov8(), tmp_path)


def test_the_same_network_without_metadata_is_likely_only(tmp_path: Path) -> None:
    guess = guessed(yolov8(), tmp_path)
    assert guess.spec.decoding.decoder == "yolov8"
    assert guess.clue("decoding.decoder").confidence == "likely"
    assert guess.clue("picture.colour").confidence == "likely"
    assert guess.clue("classes").confidence == "unsure"
    assert guess.spec.classes == ("class_0", "class_1", "class_2")


def test_names_that_do_not_count_up_to_the_outputs_are_unsure(tmp_path: Path) -> None:
    guess = guessed(yolov8(classes=5), tmp_path, **ULTRALYTICS)
    assert guess.clue("classes").confidence == "unsure"
    assert "names 3 classes, the outputs have 5" in guess.clue("classes").why
    assert len(guess.spec.classes) == 5


def test_repeated_names_are_told_apart(tmp_path: Path) -> None:
    guess = guessed(yolov8(), tmp_path, **ULTRALYTICS | {"names": "['car', 'van', 'car']"})
    assert guess.spec.classes == ("car_0", "van", "car_2")


@pytest.mark.parametrize("names", ["not a list", "{", "[]", "{0: ", "[" * 500])
def test_broken_names_are_left_aside(tmp_path: Path, names: str) -> None:
    assert guessed(yolov8(), tmp_path, names=names).clue("classes").confidence == "unsure"


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_other_ultralytics_tasks_are_named_and_have_no_decoder(tmp_path: Path, task: str) -> None:
    guess = guessed(yolov8(), tmp_path, **ULTRALYTICS | {"task": task})
    assert guess.spec.decoding.decoder not in DECODERS
    assert f"no decoder reads task '{task}'" in guess.clue("decoding.decoder").why
    assert guess.clue("decoding.decoder").confidence == "unsure"


def test_boxes_selected_inside_the_graph_are_recognised_with_the_way_out(tmp_path: Path) -> None:
    sketch = Sketch(images=[1, 3, 64, 64])
    rows = sketch.reshape(sketch.conv("images", 3, 6, side=16, stride=16), 1, 16, 6)
    sketch.output(rows, "output0", [1, 16, 6])
    guess = guessed(sketch, tmp_path, **ULTRALYTICS)
    assert guess.spec.decoding.decoder not in DECODERS
    assert "end2end=False" in guess.clue("decoding.decoder").why


def test_yolox_with_raw_boxes(tmp_path: Path) -> None:
    guess = guessed(yolox(classes=80), tmp_path)
    picture, decoding = guess.spec.picture, guess.spec.decoding
    assert (decoding.decoder, decoding.strides_px, decoding.options) == ("yolox", (8, 16, 32), {})
    assert guess.clue("decoding.decoder").confidence == "certain"
    assert (picture.colour, picture.scale, picture.resize, picture.pad_value) == ("BGR", 1.0, "letterbox_top_left", 114)
    assert guess.spec.classes == COCO_80
    assert guess.clue("classes").confidence == "likely"
    reads_its_outputs(guess, yolox(classes=80), tmp_path)


def test_yolox_with_boxes_decoded_inside(tmp_path: Path) -> None:
    guess = guessed(yolox(decoded=True), tmp_path)
    assert guess.family == "YOLOX"
    assert guess.spec.decoding.options == {"decoded": True}
    assert guess.clue("decoding.options").confidence == "likely"
    reads_its_outputs(guess, yolox(decoded=True), tmp_path)


def test_first_weights_that_contradict_the_family_make_the_range_unsure(tmp_path: Path) -> None:
    """The first YOLOX releases wanted normalised RGB; their graphs look the same."""
    guess = guessed(yolox(gain=2.0), tmp_path)
    assert guess.clue("decoding.decoder").confidence == "certain"
    assert guess.clue("picture.scale").confidence == "unsure"
    assert guess.spec.picture.scale == pytest.approx(1 / 255)
    assert "made for numbers of about 1" in guess.clue("picture.scale").why


def test_three_anchors_a_cell_are_three_levels_of_each_stride(tmp_path: Path) -> None:
    guess = guessed(yolox(decoded=True, anchors=3, gain=3.0), tmp_path, names="['a', 'b', 'c']", stride="32")
    assert guess.family == "YOLOv5 or YOLOv7"
    assert guess.spec.decoding.strides_px == (8, 8, 8, 16, 16, 16, 32, 32, 32)
    assert guess.spec.decoding.options == {"decoded": True}
    assert guess.spec.picture.colour == "RGB"
    reads_its_outputs(guess, yolox(decoded=True, anchors=3), tmp_path)


def test_anchors_that_are_not_decoded_have_no_decoder(tmp_path: Path) -> None:
    guess = guessed(yolox(anchors=3), tmp_path)
    assert guess.spec.decoding.decoder not in DECODERS
    assert "no decoder knows the anchors" in guess.clue("decoding.decoder").why


def test_nanodet_is_recognised_whatever_its_outputs_are_called(tmp_path: Path) -> None:
    guess = guessed(nanodet(), tmp_path)
    assert guess.spec.decoding.decoder == "nanodet"
    assert guess.spec.decoding.tensors == {
        **{"cls_8": "a0", "dis_8": "b0", "cls_16": "a1", "dis_16": "b1", "cls_32": "a2", "dis_32": "b2"}
    }
    assert guess.spec.picture.mean == (103.53, 116.28, 123.675)
    reads_its_outputs(guess, nanodet(), tmp_path)


def test_a_detr_with_a_second_input_gets_a_size_input(tmp_path: Path) -> None:
    guess = guessed(rt_detr(), tmp_path)
    size = guess.spec.size_input
    assert (size.tensor, size.order, size.dtype) == ("orig_target_sizes", "width_height", "int64")
    assert guess.spec.decoding.tensors == {"boxes": "boxes", "labels": "labels", "scores": "scores"}
    assert guess.spec.decoding.nms_iou is None
    assert len(guess.spec.classes) == 5
    assert (guess.spec.picture.colour, guess.spec.picture.resize) == ("RGB", "stretch")
    reads_its_outputs(guess, rt_detr(), tmp_path)


@pytest.mark.parametrize(
    ("classes", "options", "names"),
    [(80, {}, COCO_80), (91, {}, coco_91()), (92, {"activation": "softmax"}, coco_91())],
)
def test_query_logits_tell_sigmoid_from_softmax_by_their_number(
    tmp_path: Path, classes: int, options: dict, names: tuple[str, ...]
) -> None:
    sketch = query_logits(classes=classes)
    guess = guessed(sketch, tmp_path)
    assert guess.spec.decoding.decoder == "detr"
    assert guess.spec.decoding.tensors == {"boxes": "pred_boxes", "logits": "logits"}
    assert guess.spec.decoding.options == options
    assert guess.spec.classes == names
    reads_its_outputs(guess, sketch, tmp_path)


def test_rf_detr_calls_its_logits_labels(tmp_path: Path) -> None:
    guess = guessed(query_logits(classes=91, names=("dets", "labels")), tmp_path)
    assert guess.spec.decoding.tensors == {"boxes": "dets", "logits": "labels"}
    assert guess.clue("picture.mean").confidence == "unsure"


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_map_of_class_scores_is_segmentation(tmp_path: Path, layout: str) -> None:
    sketch = segmentation(layout=layout)
    guess = guessed(sketch, tmp_path)
    assert guess.spec.task == "segmentation"
    assert (guess.spec.picture.layout, guess.spec.picture.width_px, guess.spec.picture.height_px) == (layout, 64, 32)
    assert guess.spec.decoding.decoder == "argmax_mask"
    assert guess.spec.decoding.options == {"layout": layout}
    assert guess.spec.classes[:3] == ("road", "sidewalk", "building")
    reads_its_outputs(guess, sketch, tmp_path)


def test_a_map_of_classes_chosen_inside_the_graph(tmp_path: Path) -> None:
    sketch = segmentation(argmax=True, classes=7)
    guess = guessed(sketch, tmp_path)
    assert guess.spec.decoding.decoder == "argmax_mask"
    assert len(guess.spec.classes) == 7
    reads_its_outputs(guess, sketch, tmp_path)


def test_a_map_of_one_channel_has_no_decoder(tmp_path: Path) -> None:
    guess = guessed(segmentation(classes=1), tmp_path)
    assert guess.spec.decoding.decoder not in DECODERS
    assert "a binary mask or depth" in guess.clue("decoding.decoder").why


def test_an_unknown_head_is_unsure_and_says_what_it_saw(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 3, 8, 8])
    sketch.output(sketch.node("Flatten", sketch.node("GlobalAveragePool", "x")), "logits", [1, 3])
    guess = guessed(sketch, tmp_path)
    assert guess.clue("decoding.decoder").confidence == "unsure"
    assert "no decoder is known for the outputs logits [1, 3]" in guess.clue("decoding.decoder").why


def test_a_network_that_takes_no_colour_picture_gets_no_spec(tmp_path: Path) -> None:
    sketch = Sketch(waveform=[1, 1, 16000])
    sketch.output(sketch.node("Relu", "waveform"), "y", [1, 1, 16000])
    guess = guessed(sketch, tmp_path)
    assert guess.spec is None
    assert "waveform [1, 1, 16000], expected [1, 3, H, W] or [1, H, W, 3]" in guess.clues[0].why


def test_a_second_input_that_a_spec_cannot_feed_is_unsure(tmp_path: Path) -> None:
    sketch = Sketch(images=[1, 3, 32, 64], previous=[1, 3, 32, 64])
    scores = sketch.node("Add", sketch.conv("images", 3, 19), sketch.conv("previous", 3, 19))
    sketch.output(scores, "mask", [1, 19, 32, 64])
    guess = guessed(sketch, tmp_path)
    assert guess.clue("size_input").confidence == "unsure"
    assert "input previous [1, 3, 32, 64] cannot be fed by a ModelSpec" in guess.clue("size_input").why


def test_a_scale_factor_is_no_size(tmp_path: Path) -> None:
    """Paddle's detectors ask for the scale of resizing: fed a size, they would stretch every box."""
    sketch = Sketch(image=[1, 3, 32, 64], scale_factor=[1, 2])
    factor = sketch.node("ReduceMax", "scale_factor", keepdims=0)
    sketch.output(sketch.node("Mul", sketch.conv("image", 3, 19), factor), "mask", [1, 19, 32, 64])
    guess = guessed(sketch, tmp_path)
    assert guess.spec.size_input is None
    assert guess.clue("size_input").confidence == "unsure"


def test_yolox_with_one_class_is_not_taken_for_selected_boxes(tmp_path: Path) -> None:
    guess = guessed(yolox(classes=1), tmp_path)
    assert guess.spec.decoding.decoder == "yolox"
    assert guess.spec.classes == ("class_0",)


# Pixels


def normalising(mean, std, *, layout="NCHW", operators=("Sub", "Div")) -> Sketch:
    """A segmentation network that normalises its picture itself."""
    sketch = Sketch(data=[1, 3, 32, 64] if layout == "NCHW" else [1, 32, 64, 3])
    shape = (1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3)
    picture = sketch.node(operators[0], "data", sketch.weight(np.float32(mean).reshape(shape)))
    picture = sketch.node(operators[1], picture, sketch.weight(np.float32(std).reshape(shape)))
    if layout == "NHWC":
        picture = sketch.node("Transpose", picture, perm=[0, 3, 1, 2])
    sketch.output(sketch.conv(picture, 3, 19), "mask", [1, 19, 32, 64])
    return sketch


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("mean", "std", "scale", "colour"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 1.0, "RGB"),
        ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], 1.0, "BGR"),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 1 / 255, "RGB"),
    ],
)
def test_what_the_graph_normalises_itself_is_not_normalised_again(
    tmp_path: Path, layout: str, mean: list[float], std: list[float], scale: float, colour: str
) -> None:
    guess = guessed(normalising(mean, std, layout=layout), tmp_path)
    picture = guess.spec.picture
    assert (picture.scale, picture.colour) == (pytest.approx(scale), colour)
    assert (picture.mean, picture.std) == ((0, 0, 0), (1, 1, 1))
    assert guess.clue("picture.scale").confidence == "certain"
    assert "the graph itself computes" in guess.clue("picture.scale").why


def test_a_division_by_255_inside_means_pixels_of_0_to_255(tmp_path: Path) -> None:
    guess = guessed(normalising([0.0] * 3, [1 / 255] * 3, operators=("Add", "Mul")), tmp_path)
    assert guess.spec.picture.scale == 1.0
    assert guess.clue("picture.scale").confidence == "certain"
    assert guess.clue("picture.colour").confidence == "unsure"


def test_a_leading_batch_norm_counts_as_normalisation(tmp_path: Path) -> None:
    sketch = Sketch(data=[1, 3, 32, 64])
    numbers = ([1, 1, 1], [0, 0, 0], [123.675, 116.28, 103.53], [58.395**2, 57.12**2, 57.375**2])
    normal = sketch.node("BatchNormalization", "data", *(sketch.weight(np.float32(n)) for n in numbers))
    sketch.output(sketch.conv(normal, 3, 19), "mask", [1, 19, 32, 64])
    picture = guessed(sketch, tmp_path).spec.picture
    assert (picture.scale, picture.colour) == (1.0, "RGB")


def test_a_uint8_input_takes_pixels_as_they_are(tmp_path: Path) -> None:
    sketch = Sketch(data=([1, 32, 64, 3], TensorProto.UINT8))
    picture = sketch.node("Transpose", sketch.node("Cast", "data", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    sketch.output(sketch.conv(picture, 3, 19), "mask", [1, 19, 32, 64])
    guess = guessed(sketch, tmp_path)
    assert (guess.spec.picture.dtype, guess.spec.picture.scale) == ("uint8", 1.0)
    assert guess.clue("picture.scale").confidence == "certain"


@pytest.mark.parametrize(
    ("gain", "scale", "confidence"), [(0.01, 1.0, "likely"), (3.0, 1 / 255, "likely"), (0.4, 1 / 255, "unsure")]
)
def test_the_size_of_the_first_weights_tells_the_range(
    tmp_path: Path, gain: float, scale: float, confidence: str
) -> None:
    guess = guessed(segmentation(gain=gain), tmp_path)
    assert guess.spec.picture.scale == pytest.approx(scale)
    assert guess.clue("picture.scale").confidence == confidence
    assert guess.clue("picture.colour").confidence == "unsure"
    assert guess.clue("picture.resize").confidence == "unsure"


# The draft


@pytest.mark.parametrize("sketch", [yolov8(), yolox(), nanodet(), rt_detr(), segmentation(), query_logits()])
def test_every_field_of_the_draft_has_exactly_one_clue(tmp_path: Path, sketch: Sketch) -> None:
    guess = guessed(sketch, tmp_path)
    fields = [clue.field for clue in guess.clues]
    assert len(set(fields)) == len(fields)
    assert set(fields) == leaves(guess.spec.model_dump()) - {"format"}


@pytest.mark.parametrize("sketch", [yolov8(), rt_detr(), segmentation(), query_logits(classes=92)])
def test_the_commented_yaml_reads_back_as_the_same_spec(tmp_path: Path, sketch: Sketch) -> None:
    guess = guessed(sketch, tmp_path)
    assert ModelSpec.from_yaml(guess.to_yaml(), where="draft") == guess.spec


def test_the_yaml_marks_what_is_unsure_above_the_field(tmp_path: Path) -> None:
    lines = guessed(segmentation(), tmp_path).to_yaml().splitlines()
    where = next(i for i, line in enumerate(lines) if line.startswith("  colour:"))
    assert lines[where - 1] == "  # UNSURE: nothing in the file tells; feed RGB and BGR to it and compare"


def test_a_name_unfit_for_a_spec_is_made_fit(tmp_path: Path) -> None:
    imported = import_model(yolov8().save(tmp_path / "m.onnx"))
    assert guess_spec(imported, "_my model (v2)").spec.name == "my_model_v2_"
    assert guess_spec(imported, "模型").spec.name == "model"


def test_coco_has_80_names_and_91_ids() -> None:
    assert len(set(COCO_80)) == 80
    assert len(set(coco_91())) == 91
    assert (coco_91()[1], coco_91()[3], coco_91()[90]) == ("person", "car", "toothbrush")


def test_a_grid_covers_the_picture_to_its_last_pixel() -> None:
    assert Picture("x", "NCHW", 417, 416, "float32").cells(8) == 53 * 52


# Real models: right, or unsure

TRUTH = {
    "yolox_nano_416": ("yolox", "BGR", 1.0, (0, 0, 0), "letterbox_top_left", 114, 80),
    "nanodet_m_416": ("nanodet", "BGR", 1.0, (103.53, 116.28, 123.675), "letterbox_centre", 0, 80),
    "fastestdet_352": ("fastestdet", "BGR", 1 / 255, (0, 0, 0), "stretch", 0, 80),
    "road_segmentation_adas_0001": ("argmax_mask", "BGR", 1.0, (0, 0, 0), "stretch", 0, 4),
}
UNSURE = {
    "nanodet_m_416": {"interpolation"},
    "road_segmentation_adas_0001": {"colour", "resize", "pad_value", "interpolation", "classes"},
}


@pytest.mark.shared
@pytest.mark.parametrize("name", TRUTH)
def test_the_guess_for_a_real_model_is_right_and_knows_what_it_cannot_know(shared_data: Path, name: str) -> None:
    imported = import_model(shared_data / "models" / f"{name}.onnx")
    guess = guess_spec(imported, name)
    picture = guess.spec.picture
    read = (guess.spec.decoding.decoder, picture.colour, picture.scale, picture.mean, picture.resize, picture.pad_value)
    assert (*read, len(guess.spec.classes)) == TRUTH[name]
    assert {clue.field.split(".")[-1] for clue in guess.unsure} == {"licence", "source"} | UNSURE.get(name, set())
    guess.spec.check_against(imported.inputs, imported.outputs, where=name)
    open_decoder(guess.spec, imported.outputs)
