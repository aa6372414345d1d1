from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perception.decode import DECODERS, open_decoder
from perception.decoders.boxes import suppress
from perception.engines.engine import TensorInfo
from perception.errors import EngineError, SpecError
from perception.geometry import Geometry
from perception.model_spec import ModelSpec

SAME = Geometry(1.0, 1.0, 0, 0, 32, 32)
HALF_AND_SHIFTED = Geometry(0.5, 0.5, 0, 4, 32, 24)
SOURCE = (64, 48)


def spec_of(decoder: str, tensors: dict[str, str], *, classes=("car", "person"), **decoding) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "name": "small",
            "task": "segmentation" if decoder == "argmax_mask" else "detection",
            "picture": {"tensor": "images", "width_px": 32, "height_px": 32},
            "decoding": {"decoder": decoder, "tensors": tensors, **decoding},
            "classes": classes,
        }
    )


def opened(spec: ModelSpec, tensors: dict[str, np.ndarray]):
    return open_decoder(spec, tuple(TensorInfo(name, a.shape, a.dtype.name) for name, a in tensors.items()))


def decoded(spec: ModelSpec, tensors: dict[str, np.ndarray], *, geometry=SAME, score=0.3):
    return opened(spec, tensors)(tensors, geometry, SOURCE, score)


def only(detections) -> tuple[list[float], float, int]:
    assert len(detections) == 1
    return detections.boxes_px[0].tolist(), float(detections.scores[0]), int(detections.class_ids[0])


def logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


# One object, the same in every family: a person at x 4..20, y 6..30 of the network's 32 x 32 pixels, score .72.
BOX, SCORE, PERSON = [4.0, 6.0, 20.0, 30.0], 0.72, 1


def yolox_tensors(**decoding):
    output = np.zeros((1, 16 + 4 + 1, 7), np.float32)
    cell = 4 * 2 + 1  # stride 8, x 1, y 2
    output[0, cell] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 0.1, 0.8]
    return spec_of("yolox", {"output": "out"}, strides_px=[8, 16, 32], **decoding), {"out": output}


def yolox_decoded_tensors(**decoding):
    output = np.zeros((1, 21, 7), np.float32)
    output[0, 3] = [12, 18, 16, 24, 0.9, 0.1, 0.8]
    spec = spec_of("yolox", {"output": "out"}, strides_px=[8, 16, 32], options={"decoded": True}, **decoding)
    return spec, {"out": output}


def yolov8_tensors(**decoding):
    output = np.zeros((1, 6, 21), np.float32)
    output[0, :, 5] = [12, 18, 16, 24, 0.1, 0.72]
    return spec_of("yolov8", {"output": "out"}, **decoding), {"out": output}


def yolov8_transposed_tensors(**decoding):
    spec, tensors = yolov8_tensors(**decoding)
    return spec, {"out": np.ascontiguousarray(tensors["out"].transpose(0, 2, 1))}


def nanodet_tensors(**decoding):
    scores, distances = np.zeros((1, 16, 2), np.float32), np.zeros((1, 16, 4, 8), np.float32)
    cell = 4 * 2 + 1  # centre x 8 + 3.5 = 11.5, y 16 + 3.5 = 19.5
    scores[0, cell] = [0.1, 0.72]
    for side, distance_px in enumerate([7.5, 13.5, 8.5, 10.5]):
        lower, share = divmod(distance_px / 8, 1)
        distances[0, cell, side] = -40
        distances[0, cell, side, int(lower)] = np.log(1 - share)
        distances[0, cell, side, int(lower) + 1] = np.log(share)
    spec = spec_of("nanodet", {"cls_8": "scores", "dis_8": "distances"}, strides_px=[8], **decoding)
    return spec, {"scores": scores, "distances": distances.reshape(1, 16, 32)}


def fastestdet_tensors(**decoding):
    output = np.zeros((1, 7, 2, 2), np.float32)
    # Row 1, column 0 of 2: centre 12 = (0 + tanh) * 16, 18 = (1 + tanh) * 16; .72 = .72 ** .6 * .72 ** .4.
    output[0, :, 1, 0] = [0.72, np.arctanh(0.75), np.arctanh(0.125), logit(0.5), logit(0.75), 0.1, 0.72]
    return spec_of("fastestdet", {"output": "out"}, strides_px=[16], **decoding), {"out": output}


def detr_tensors(**decoding):
    boxes, labels = np.zeros((1, 5, 4), np.float32), np.zeros((1, 5), np.int64)
    scores = np.zeros((1, 5), np.float32)
    boxes[0, 3], labels[0, 3], scores[0, 3] = BOX, PERSON, SCORE
    spec = spec_of("detr", {"boxes": "b", "labels": "l", "scores": "s"}, **decoding)
    return spec, {"b": boxes, "l": labels, "s": scores}


def detr_sigmoid_tensors(**decoding):
    boxes, logits = np.zeros((1, 5, 4), np.float32), np.full((1, 5, 2), -9, np.float32)
    boxes[0, 3], logits[0, 3] = [12 / 32, 18 / 32, 16 / 32, 24 / 32], [logit(0.1), logit(0.72)]
    return spec_of("detr", {"boxes": "b", "logits": "g"}, **decoding), {"b": boxes, "g": logits}


def detr_softmax_tensors(**decoding):
    spec, tensors = detr_sigmoid_tensors(**decoding, options={"activation": "softmax"})
    logits = np.zeros((1, 5, 3), np.float32)
    logits[0, :, 2] = 9  # no object
    logits[0, 3] = np.log([0.1, 0.72, 0.18])
    return spec, {"b": tensors["b"], "g": logits}


FAMILIES = {
    "yolox": yolox_tensors,
    "yolox decoded": yolox_decoded_tensors,
    "yolov8": yolov8_tensors,
    "yolov8 transposed": yolov8_transposed_tensors,
    "nanodet": nanodet_tensors,
    "fastestdet": fastestdet_tensors,
    "detr": detr_tensors,
    "detr sigmoid": detr_sigmoid_tensors,
    "detr softmax": detr_softmax_tensors,
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def test_every_decoder_is_tried_here():
    assert {name.split()[0] for name in FAMILIES} | {"argmax_mask"} == set(DECODERS)


@every_family
def test_one_object_is_found_where_it_is(family):
    box, score, class_id = only(decoded(*FAMILIES[family]()))
    np.testing.assert_allclose(box, BOX, rtol=1e-5)
    assert score == pytest.approx(SCORE, rel=1e-5)
    assert class_id == PERSON


@every_family
def test_boxes_come_back_in_source_pixels(family):
    box, _, _ = only(decoded(*FAMILIES[family](), geometry=HALF_AND_SHIFTED))
    np.testing.assert_allclose(box, [8, 4, 40, 52], rtol=1e-5)


@every_family
def test_nothing_above_the_threshold_gives_an_empty_result(family):
    detections = decoded(*FAMILIES[family](), score=0.73)
    assert len(detections) == 0
    assert detections.boxes_px.shape == (0, 4)
    assert detections.class_ids.dtype == np.int32


@every_family
def test_half_precision_outputs_are_read(family):
    spec, tensors = FAMILIES[family]()
    halves = {name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in tensors.items()}
    detections = decoded(spec, halves)
    np.testing.assert_allclose(only(detections)[0], BOX, rtol=5e-3)
    assert detections.boxes_px.dtype == detections.scores.dtype == np.float32


@every_family
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_anywhere_is_refused_by_the_tensors_name(family, poison):
    spec, tensors = FAMILIES[family]()
    decoder = opened(spec, tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == np.float32:
            broken = {**tensors, name: tensor.copy()}
            broken[name].flat[-1] = poison
            with pytest.raises(EngineError, match=rf"^output {name}: 1 of {tensor.size} values are NaN or infinite"):
                decoder(broken, SAME, SOURCE, 0.3)


@every_family
def test_a_result_does_not_change_with_the_engines_buffers(family):
    spec, tensors = FAMILIES[family]()
    detections = decoded(spec, tensors)
    for tensor in tensors.values():
        tensor.fill(0)
    np.testing.assert_allclose(only(detections)[0], BOX, rtol=1e-5)
    assert detections.scores[0] == pytest.approx(SCORE, rel=1e-5)


@every_family
def test_a_tensor_of_another_shape_is_refused_at_opening(family):
    spec, tensors = FAMILIES[family]()
    for name, tensor in tensors.items():
        odd = {**tensors, name: np.zeros((*tensor.shape[:-1], tensor.shape[-1] + 1, 3), tensor.dtype)}
        with pytest.raises(SpecError, match=rf"decoder {spec.decoding.decoder}: output {name} has shape .*, expected "):
            opened(spec, odd)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"nanodet"}))  # which reads its number of bins at opening
def test_a_shape_that_only_shows_when_running_is_refused_then(family):
    spec, tensors = FAMILIES[family]()
    infos = tuple(TensorInfo(name, (-1,) * a.ndim, a.dtype.name) for name, a in tensors.items())
    decoder = open_decoder(spec, infos)
    assert len(decoder(tensors, SAME, SOURCE, 0.3)) == 1
    odd = {name: a.repeat(2, axis=0) for name, a in tensors.items()}
    with pytest.raises(SpecError, match=r"has shape \[2, .*, expected \[1, "):
        decoder(odd, SAME, SOURCE, 0.3)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"detr"}))  # whose labels tell nothing before they come out
def test_a_model_of_other_classes_is_refused(family):
    spec, tensors = FAMILIES[family]()
    with pytest.raises(SpecError, match="correct classes"):
        opened(spec.model_copy(update={"classes": ("car", "person", "cyclist")}), tensors)


@every_family
def test_other_roles_than_the_decoders_are_refused(family):
    spec, tensors = FAMILIES[family]()
    renamed = {f"my_{role}": name for role, name in spec.decoding.tensors.items()}
    wrong = spec.model_copy(update={"decoding": spec.decoding.model_copy(update={"tensors": renamed})})
    with pytest.raises(SpecError, match=r"got the roles my_.*, expected .*; correct decoding.tensors"):
        opened(wrong, tensors)


@every_family
def test_an_option_the_decoder_does_not_have_is_refused(family):
    spec, tensors = FAMILIES[family]()
    wrong = spec.model_copy(update={"decoding": spec.decoding.model_copy(update={"options": {"colour": "blue"}})})
    with pytest.raises(SpecError, match=r"no option 'colour', it has"):
        opened(wrong, tensors)


def test_an_option_of_another_type_is_refused():
    spec, tensors = yolox_tensors(options={"decoded": "yes"})
    with pytest.raises(SpecError, match="option decoded got 'yes', expected a bool such as False"):
        opened(spec, tensors)


def test_an_option_outside_its_choices_is_refused():
    spec, tensors = detr_sigmoid_tensors(options={"activation": "tanh"})
    with pytest.raises(SpecError, match="option activation got 'tanh', expected one of sigmoid, softmax"):
        opened(spec, tensors)


def test_an_output_the_model_lacks_is_refused():
    spec, _ = yolox_tensors()
    with pytest.raises(SpecError, match="no output out, the model has other"):
        opened(spec, {"other": np.zeros((1, 21, 7), np.float32)})


def test_an_unknown_decoder_is_refused_with_the_known_ones():
    with pytest.raises(SpecError, match=r"small: decoder 'yolo99' is unknown, expected one of yolox, yolov8"):
        opened(spec_of("yolo99", {"output": "out"}), {"out": np.zeros((1, 1), np.float32)})


def test_a_decoder_of_another_task_is_refused():
    spec, tensors = yolox_tensors()
    with pytest.raises(SpecError, match="decoder yolox does not give a segmentation, expected one of argmax_mask"):
        opened(spec.model_copy(update={"task": "segmentation"}), tensors)


@pytest.mark.parametrize("family", ["yolox", "nanodet", "fastestdet"])
def test_a_grid_decoder_without_strides_is_refused(family):
    spec, tensors = FAMILIES[family]()
    wrong = spec.model_copy(update={"decoding": spec.decoding.model_copy(update={"strides_px": ()})})
    with pytest.raises(SpecError, match="got no strides_px, expected one a level"):
        opened(wrong, tensors)


def test_fastestdet_with_two_strides_is_refused():
    spec, tensors = FAMILIES["fastestdet"]()
    wrong = spec.model_copy(update={"decoding": spec.decoding.model_copy(update={"strides_px": (8, 16)})})
    with pytest.raises(SpecError, match=r"got strides_px \[8, 16\], expected exactly one"):
        opened(wrong, tensors)


def test_a_box_that_overflows_when_decoded_is_refused():
    spec, tensors = yolox_tensors()
    tensors["out"][0, 9, 2] = 200  # exp of it is infinite
    with pytest.raises(EngineError, match=r"output out: .* become so when decoded"):
        decoded(spec, tensors)


def test_a_label_beyond_the_classes_is_refused():
    spec, tensors = detr_tensors()
    tensors["l"][0, 3] = 2
    with pytest.raises(SpecError, match="output l: class 2 came out, the spec names 2 classes, 0 to 1"):
        decoded(spec, tensors)


# Suppression and selection, on boxes that the detr decoder passes on as they are.


def selected(boxes, scores, *, labels=None, score=0.3, **decoding):
    count = len(boxes)
    tensors = {
        "b": np.array(boxes, np.float32).reshape(1, count, 4),
        "l": np.array(labels or [0] * count, np.int64).reshape(1, count),
        "s": np.array(scores, np.float32).reshape(1, count),
    }
    return decoded(spec_of("detr", {"boxes": "b", "labels": "l", "scores": "s"}, **decoding), tensors, score=score)


HALF_OVER = [[0, 0, 30, 10], [10, 0, 40, 10]]  # intersection 200, union 400


@pytest.mark.parametrize(
    ("nms_iou", "labels", "across", "kept"),
    [
        (0.49, [0, 0], False, 1),
        (0.5, [0, 0], False, 2),  # as much as the limit is not more than it
        (0.51, [0, 0], False, 2),
        (0.49, [0, 1], False, 2),
        (0.49, [0, 1], True, 1),
        (None, [0, 0], False, 2),
    ],
)
def test_the_weaker_of_two_boxes_goes_above_the_limit_only(nms_iou, labels, across, kept):
    found = selected(HALF_OVER, [0.6, 0.9], labels=labels, nms_iou=nms_iou, nms_across_classes=across)
    assert len(found) == kept
    assert found.boxes_px[0].tolist() == HALF_OVER[1]


def test_a_suppressed_box_suppresses_nothing():
    chain = [[0, 0, 30, 10], [10, 0, 40, 10], [20, 0, 50, 10]]
    assert selected(chain, [0.9, 0.8, 0.7], nms_iou=0.4).boxes_px.tolist() == [chain[0], chain[2]]


def test_classes_stay_apart_left_of_the_picture_too():
    boxes = [[-50, -50, -20, -20], [-50, -50, -20, -20], [5, 5, 35, 35]]
    assert len(selected(boxes, [0.9, 0.8, 0.7], labels=[0, 1, 1], nms_iou=0.3)) == 3


def test_equal_scores_keep_the_order_of_the_network():
    found = selected([[0, 0, 10, 10], [20, 0, 30, 10], [1, 0, 11, 10]], [0.5, 0.5, 0.5], nms_iou=0.5)
    assert found.boxes_px.tolist() == [[0, 0, 10, 10], [20, 0, 30, 10]]


def test_the_best_come_first_and_no_more_than_asked_for():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(5)]
    found = selected(boxes, [0.4, 0.9, 0.5, 0.7, 0.6], max_detections=3, nms_iou=0.5)
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.6], rtol=1e-6)


@pytest.mark.parametrize(("score", "kept"), [(0.5, 1), (0.50001, 0), (0.0, 1)])
def test_a_score_of_exactly_the_threshold_is_reported(score, kept):
    assert len(selected([[0, 0, 1, 1]], [0.5], score=score)) == kept


def test_no_queries_at_all_give_an_empty_result():
    assert len(selected([], [], nms_iou=0.5)) == 0


def suppressed_by_the_book(boxes, groups, iou):
    kept: list[int] = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(np.float64)):
        for j in kept:
            u1, v1, u2, v2 = boxes[j].astype(np.float64)
            both = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            if groups[i] == groups[j] and both > iou * ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both):
                break
        else:
            kept.append(i)
    return kept


@given(
    starts=hnp.arrays(np.int64, st.tuples(st.integers(2, 40), st.just(2)), elements=st.integers(-40, 40)),
    data=st.data(),
)
def test_suppression_agrees_with_the_plain_loop(starts, data):
    count = len(starts)
    sizes = data.draw(hnp.arrays(np.int64, (count, 2), elements=st.integers(1, 40)))
    groups = data.draw(hnp.arrays(np.int32, count, elements=st.integers(0, 3)))
    boxes = np.concatenate((starts, starts + sizes), axis=1).astype(np.float32)
    iou = 0.4503  # no ratio of areas this small hits it exactly
    assert suppress(boxes, groups, iou).tolist() == suppressed_by_the_book(boxes, groups, iou)


# Masks.

MAP = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [0, 0, 1, 1], [2, 1, 0, 1]])
AREAS = ("background", "road", "mark")


def scores_of(class_ids: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(3).uniform(-1, 0, (3, *class_ids.shape)).astype(np.float32)
    noise += np.arange(3)[:, None, None] == class_ids
    return noise[None]


MASK_FORMS = {
    "NCHW": scores_of(MAP),
    "NHWC": np.ascontiguousarray(scores_of(MAP).transpose(0, 2, 3, 1)),
    "half NHWC": scores_of(MAP).transpose(0, 2, 3, 1).astype(np.float16),
    "classes": MAP[None],
    "classes with a channel": MAP[None, None].astype(np.int32),
    "classes with a channel last": MAP[None, ..., None],
    "classes as floats": MAP[None].astype(np.float32),
}


@pytest.mark.parametrize("form", MASK_FORMS)
def test_every_form_of_mask_gives_the_same_map(form):
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    result = decoded(spec, {"out": MASK_FORMS[form]})
    np.testing.assert_array_equal(result.class_ids, MAP)
    assert (result.width_px, result.height_px) == SOURCE


def test_a_mask_decoder_gives_a_new_map_each_time():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    decoder = opened(spec, {"out": MASK_FORMS["NCHW"]})
    first = decoder({"out": MASK_FORMS["NCHW"]}, SAME, SOURCE, 0.0)
    second = decoder({"out": scores_of(2 - MAP)}, SAME, SOURCE, 0.0)
    np.testing.assert_array_equal(first.class_ids, MAP)
    np.testing.assert_array_equal(second.class_ids, 2 - MAP)


def test_of_equal_scores_the_first_class_wins():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    assert not decoded(spec, {"out": np.ones((1, 3, 4, 4), np.float32)}).class_ids.any()


def test_a_letterboxs_padding_is_cut_off_a_mask():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    result = decoded(spec, {"out": MASK_FORMS["NCHW"]}, geometry=Geometry(0.5, 0.5, 0, 8, 32, 16))
    np.testing.assert_array_equal(result.class_ids, MAP[1:3])


def test_the_layout_option_decides_where_both_axes_fit():
    square = np.random.default_rng(0).normal(size=(1, 3, 3, 3)).astype(np.float32)
    for layout, axis in (("NCHW", 0), ("NHWC", 2), ("auto", 0)):
        spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS, options={"layout": layout})
        np.testing.assert_array_equal(decoded(spec, {"out": square}).class_ids, square[0].argmax(axis))


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_class_outside_the_spec_is_refused_in_a_mask(wrong):
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    with pytest.raises(SpecError, match=f"output out: class {wrong} came out, the spec names 3 classes"):
        decoded(spec, {"out": np.where(MAP == 1, wrong, MAP)[None]})


def test_a_class_map_that_is_no_whole_number_is_refused():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    with pytest.raises(SpecError, match=r"class 0\.5 came out"):
        decoded(spec, {"out": np.full((1, 4, 4), 0.5, np.float32)})


def test_nan_in_a_mask_is_refused():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=AREAS)
    broken = MASK_FORMS["NCHW"].copy()
    broken[0, 1, 2, 3] = np.nan
    with pytest.raises(EngineError, match="output out: 1 of 48 values are NaN"):
        decoded(spec, {"out": broken})


def test_a_mask_of_other_classes_is_refused():
    spec = spec_of("argmax_mask", {"output": "out"}, classes=(*AREAS, "curb", "pavement"))
    with pytest.raises(SpecError, match=r"has shape \[1, 3, 4, 4\], expected \[1, 5, N, N\] or \[1, N, N, 5\]"):
        opened(spec, {"out": MASK_FORMS["NCHW"]})


@pytest.mark.parametrize("count", [1, 257])
def test_a_mask_of_too_few_or_too_many_classes_is_refused(count):
    spec = spec_of("argmax_mask", {"output": "out"}, classes=tuple(f"class {i}" for i in range(count)))
    with pytest.raises(SpecError, match=f"got {count} classes, expected 2 to 256"):
        opened(spec, {"out": np.zeros((1, count, 4, 4), np.float32)})
