from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from compile.accuracy import agreement, drift, match_detections, match_masks
from compile.average_precision import GroupMatches
from compile.class_map import ClassGroup, ClassMap
from compile.labels import LabelledFrame, LabelledMask, LabelledObject
from perception.errors import LabelError
from perception.results import Detections, SegmentationMap

CLASSES = ("person", "car", "truck")
IDENTITY = ClassMap.identity(CLASSES)
VEHICLES = ClassMap(
    groups={"vehicles": ClassGroup(model=("car", "truck"), labels=("Car",), ignored=("Tram",))}, minimum_height_px=25
)
BOX = (100.0, 100.0, 200.0, 150.0)


def detections(*found: tuple[str, float, tuple[float, float, float, float]]) -> Detections:
    ordered = sorted(found, key=lambda each: -each[1])
    return Detections(
        np.array([box for _, _, box in ordered], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in ordered], np.float32),
        np.array([CLASSES.index(name) for name, _, _ in ordered], np.int32),
    )


def labelled(*objects: tuple[str, tuple[float, float, float, float]], ignore: bool = False) -> LabelledFrame:
    return LabelledFrame(tuple(LabelledObject(name, box, ignore=ignore) for name, box in objects))


def shifted(
    box: tuple[float, float, float, float], x_px: float, y_px: float = 0.0
) -> tuple[float, float, float, float]:
    return (box[0] + x_px, box[1] + y_px, box[2] + x_px, box[3] + y_px)


def vehicles(results, truths, draws=None):
    matches = match_detections(results, truths, class_map=VEHICLES, classes=CLASSES)
    return matches.accuracy(None if draws is None else np.array(draws)).groups["vehicles"]


def test_finding_everything_is_one_and_finding_nothing_is_zero():
    truth = labelled(("Car", BOX))
    assert vehicles([detections(("car", 0.9, BOX))], [truth]).ap50_95 == pytest.approx(1)
    assert vehicles([detections()], [truth]).ap50_95 == 0


def test_a_class_of_the_group_answers_for_another_and_other_classes_do_not():
    truth = labelled(("Car", BOX))
    assert vehicles([detections(("truck", 0.9, BOX))], [truth]).ap50 == pytest.approx(1)
    assert vehicles([detections(("person", 0.9, BOX))], [truth]).ap50 == 0


@pytest.mark.parametrize(("moved_px", "found"), [(33.3, True), (33.4, False)])
def test_an_object_is_found_from_iou_one_half_on(moved_px, found):
    accuracy = vehicles([detections(("car", 0.9, shifted(BOX, moved_px)))], [labelled(("Car", BOX))])
    assert accuracy.ap50 == pytest.approx(float(found))
    assert accuracy.ap50_95 == pytest.approx(0.1 * found)


def test_an_object_is_found_once():
    twice = [detections(("car", 0.9, BOX), ("car", 0.8, BOX)), detections(("car", 0.7, BOX))]
    truths = [labelled(("Car", BOX)), labelled(("Car", BOX))]
    # right, wrong, right: precision 1 up to recall .5, then 2/3.
    assert vehicles(twice, truths).ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


FAR = shifted(BOX, 500)


@pytest.mark.parametrize(
    ("extra", "counted_wrong"),
    [
        (labelled(("Tram", FAR)), False),
        (labelled(("DontCare", FAR), ignore=True), False),
        (labelled(("Car", (600, 100, 700, 124))), False),
        (labelled(("Cyclist", FAR)), True),
        (labelled(), True),
    ],
)
def test_what_lies_in_an_ignored_region_is_neither_right_nor_wrong(extra, counted_wrong):
    class_map = VEHICLES.model_copy(
        update={"groups": {**VEHICLES.groups, "riders": ClassGroup(model=("person",), labels=("Cyclist",))}}
    )
    truth = LabelledFrame((*labelled(("Car", BOX)).objects, *extra.objects))
    there = (600.0, 100.0, 700.0, 125.0) if extra.objects and extra.objects[0].class_name == "Car" else FAR
    found = [detections(("car", 0.9, there), ("car", 0.8, BOX))]
    got = match_detections(found, [truth], class_map=class_map, classes=CLASSES).accuracy().groups["vehicles"]
    assert got.labelled == 1
    assert got.ap50 == pytest.approx(0.5 if counted_wrong else 1)


@pytest.mark.parametrize(("height_px", "counted_wrong"), [(24.9, False), (25, True)])
def test_detections_below_the_minimum_height_are_left_out(height_px, counted_wrong):
    low = (0.0, 0.0, 50.0, float(height_px))
    found = [detections(("car", 0.9, low), ("car", 0.8, BOX))]
    assert vehicles(found, [labelled(("Car", BOX))]).ap50 == pytest.approx(0.5 if counted_wrong else 1)


@pytest.mark.parametrize(("height_px", "count"), [(24.9, 0), (25, 1)])
def test_labels_below_the_minimum_height_are_not_asked_for(height_px, count):
    truth = labelled(("Car", BOX), ("Car", (0.0, 0.0, 50.0, float(height_px))))
    assert vehicles([detections()], [truth]).labelled == 1 + count


@pytest.mark.parametrize(("occlusion", "count"), [(None, 1), (0.7, 1), (0.71, 0)])
def test_labels_hidden_beyond_the_maximum_are_not_asked_for(occlusion, count):
    truth = LabelledFrame((LabelledObject("Car", BOX, occlusion=occlusion), LabelledObject("Car", FAR)))
    class_map = VEHICLES.model_copy(update={"maximum_occlusion": 0.7})
    got = match_detections([detections()], [truth], class_map=class_map, classes=CLASSES).accuracy()
    assert got.groups["vehicles"].labelled == 1 + count


def test_the_mean_is_over_groups_that_are_labelled():
    found = [detections(("car", 0.9, BOX), ("truck", 0.9, FAR))]
    accuracy = match_detections(
        found, [labelled(("car", BOX), ("person", FAR))], class_map=IDENTITY, classes=CLASSES
    ).accuracy()
    assert accuracy.ap50 == pytest.approx(0.5)
    assert np.isnan(accuracy.groups["truck"].ap50)
    written = json.loads(json.dumps(accuracy.to_dict()))
    assert written["groups"]["truck"] == {"ap50": None, "ap50_95": None, "labelled": 0}
    assert written["frames"] == 1


def test_frames_without_labels_do_not_count():
    found = [detections(("car", 0.9, BOX)), detections(("car", 0.95, BOX))]
    matches = match_detections(found, [labelled(("car", BOX)), None], class_map=IDENTITY, classes=CLASSES)
    assert matches.frames == 1
    assert matches.ap50() == pytest.approx(1)


def test_labels_without_any_object_asked_for_are_refused():
    with pytest.raises(LabelError, match="no object of vehicles in 1 labelled frames"):
        vehicles([detections()], [labelled(("Tram", BOX))])


def test_labels_with_unknown_classes_are_refused():
    with pytest.raises(LabelError, match="labels: class Tractor is neither asked for nor ignored"):
        vehicles([detections()], [labelled(("Tractor", BOX))])


def test_a_class_map_of_another_model_is_refused():
    with pytest.raises(LabelError, match="the model has no class truck"):
        match_detections([detections()], [labelled(("Car", BOX))], class_map=VEHICLES, classes=CLASSES[:2])


def random_scene(seed: int, frames: int = 12) -> tuple[list[Detections], list[LabelledFrame]]:
    """Objects, most of them found somewhat beside, some twice, some not; and ghosts."""
    rng = np.random.default_rng(seed)
    results, truths = [], []
    for _ in range(frames):
        starts = rng.uniform(0, 300, (rng.integers(0, 8), 2))
        boxes = np.concatenate((starts, starts + rng.uniform(15, 120, starts.shape)), axis=1)
        names = rng.choice(["Car", "Car", "Tram"], len(boxes))
        truths.append(labelled(*zip(names.tolist(), map(tuple, boxes.tolist()), strict=True)))
        seen = np.repeat(boxes, rng.integers(0, 3, len(boxes)), axis=0)
        ghosts = rng.uniform(0, 100, (2, 4)) + np.array([0, 0, 120, 120])
        seen = np.concatenate((seen + rng.normal(0, 6, seen.shape), ghosts))
        scores = rng.uniform(0.02, 1, len(seen)).round(2)  # with ties
        kinds = rng.choice(CLASSES, len(seen))
        results.append(detections(*zip(kinds.tolist(), scores.tolist(), map(tuple, seen.tolist()), strict=True)))
    return results, truths


def by_pycocotools(results, truths, capsys) -> np.ndarray:
    """(10,) average precision of VEHICLES, the way the library's own documentation does it."""
    objects, answers = [], []
    for image, (result, truth) in enumerate(zip(results, truths, strict=True)):
        for each in truth.objects:
            x1, y1, x2, y2 = each.box_px
            crowd = int(each.class_name == "Tram" or y2 - y1 < 25)
            objects.append({"id": len(objects) + 1, "image_id": image, "category_id": 1, "iscrowd": crowd})
            objects[-1] |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        for (x1, y1, x2, y2), score, kind in zip(result.boxes_px, result.scores, result.class_ids, strict=True):
            if CLASSES[kind] in ("car", "truck") and float(y2) - float(y1) >= 25:
                box = [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)]
                answers.append({"image_id": image, "category_id": 1, "bbox": box, "score": float(score)})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(results))],
        "categories": [{"id": 1}],
        "annotations": objects,
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(answers), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    capsys.readouterr()
    return evaluation.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_pycocotools_own(seed, capsys):
    results, truths = random_scene(seed)
    matches = match_detections(results, truths, class_map=VEHICLES, classes=CLASSES)
    expected = by_pycocotools(results, truths, capsys)
    np.testing.assert_allclose(matches.groups["vehicles"].average_precision(), expected, atol=1e-9)
    accuracy = matches.accuracy()
    assert accuracy.ap50_95 == pytest.approx(expected.mean())
    assert accuracy.ap50 == matches.ap50() == pytest.approx(expected[0])
    assert capsys.readouterr().out == ""


def test_drawing_frames_is_scoring_those_frames():
    results, truths = random_scene(9)
    matches = match_detections(results, truths, class_map=VEHICLES, classes=CLASSES)
    draws = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 0])
    kept = np.flatnonzero(draws)
    alone = match_detections(
        [results[i] for i in kept], [truths[i] for i in kept], class_map=VEHICLES, classes=CLASSES
    ).accuracy()
    assert matches.accuracy(draws) == alone
    assert matches.accuracy(2 * np.ones(12, int)).ap50 == pytest.approx(matches.ap50())
    assert matches.ap50(draws) == alone.ap50
    assert np.isnan(matches.ap50(np.zeros(12, int)))


# Masks.

ROAD = ClassMap(
    groups={"road": ClassGroup(model=("road", "mark"), labels=("Road",), ignored=("void",))},
    mask_values={3: "Road", 8: "Car", 11: "void"},
)
AREAS = ("background", "road", "mark")


def mask_file(folder: Path, values, name: str = "a") -> LabelledMask:
    cv2.imwrite(str(folder / f"{name}.png"), np.array(values, np.uint8))
    return LabelledMask(folder / f"{name}.png")


def said(values) -> SegmentationMap:
    class_ids = np.array(values, np.uint8)
    return SegmentationMap(class_ids, class_ids.shape[1], class_ids.shape[0])


def test_iou_counts_pixels_and_leaves_ignored_ones_out(tmp_path):
    truth = mask_file(tmp_path, [[3, 3, 3, 8], [3, 8, 11, 11]])
    answer = said([[1, 2, 0, 1], [1, 0, 1, 0]])
    accuracy = match_masks([answer], [truth], class_map=ROAD, classes=AREAS).accuracy()
    assert accuracy.groups["road"] == pytest.approx(3 / 5)  # both: 3; either: 3 and one missed and one too many
    assert accuracy.to_dict() == {"miou": accuracy.miou, "groups": {"road": accuracy.miou}, "frames": 1}


def test_a_smaller_answer_is_scored_at_the_labels_size(tmp_path):
    truth = mask_file(tmp_path, np.repeat(np.repeat([[3, 8], [8, 3]], 4, axis=0), 6, axis=1))
    assert match_masks([said([[1, 0], [0, 1]])], [truth], class_map=ROAD, classes=AREAS).accuracy().miou == 1


def test_drawn_masks_are_weighed_by_their_pixels(tmp_path):
    truths = [mask_file(tmp_path, [[3, 3]], "a"), mask_file(tmp_path, [[3, 8]], "b")]
    matches = match_masks([said([[1, 0]]), said([[1, 0]])], truths, class_map=ROAD, classes=AREAS)
    assert matches.accuracy().miou == pytest.approx(2 / 3)
    assert matches.accuracy(np.array([2, 0])).miou == pytest.approx(1 / 2)


def test_the_mean_is_over_groups_that_appear(tmp_path):
    truth = mask_file(tmp_path, [[0, 0, 1, 255]])
    matches = match_masks([said([[0, 1, 1, 1]])], [truth], class_map=ClassMap.identity(AREAS), classes=AREAS)
    accuracy = matches.accuracy()
    assert accuracy.groups["background"] == accuracy.groups["road"] == accuracy.miou == pytest.approx(1 / 2)
    assert accuracy.to_dict()["groups"]["mark"] is None


def test_a_mask_value_without_a_name_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"a\.png: holds the value 5, named are 3, 8, 11; name it under mask_values"):
        match_masks([said([[0, 0]])], [mask_file(tmp_path, [[3, 5]])], class_map=ROAD, classes=AREAS)


def test_masks_without_anything_asked_for_are_refused(tmp_path):
    with pytest.raises(LabelError, match="no pixel of road in 1 labelled frames"):
        match_masks([said([[0, 0]])], [mask_file(tmp_path, [[8, 11]])], class_map=ROAD, classes=AREAS)


# Agreement of two engines.

REFERENCE = detections(("car", 0.9, BOX))


@pytest.mark.parametrize(
    ("candidate", "share", "ghosts"),
    [
        (detections(("car", 0.9, BOX)), 1, 0),
        (detections(("car", 0.3, BOX)), 1, 0),
        (detections(("car", 0.29, BOX)), 0, np.nan),
        (detections(("truck", 0.9, BOX)), 0, 1),
        (detections(("car", 0.9, shifted(BOX, 33.3))), 1, 0),
        (detections(("car", 0.9, shifted(BOX, 33.4))), 0, 1),
        (detections(("car", 0.9, BOX), ("car", 0.8, BOX)), 1, 0.5),
        (detections(), 0, np.nan),
    ],
)
def test_agreement_asks_for_class_place_and_score(candidate, share, ghosts):
    got = agreement([REFERENCE], [candidate])
    assert got.share == share
    assert got.ghosts == pytest.approx(ghosts, nan_ok=True)


def test_one_box_of_the_candidate_answers_for_one_of_the_reference():
    got = agreement([detections(("car", 0.9, BOX), ("car", 0.8, shifted(BOX, 5)))], [REFERENCE])
    assert got.share == 0.5


def test_the_best_answer_is_taken_and_the_other_left_for_the_next():
    reference = [detections(("car", 0.9, BOX), ("car", 0.8, shifted(BOX, 30)))]
    candidate = [detections(("car", 0.9, shifted(BOX, 28)), ("car", 0.8, shifted(BOX, 2)))]
    assert agreement(reference, candidate).share == 1


def test_agreement_over_frames_is_over_objects_not_over_frames():
    reference = [REFERENCE, detections(("car", 0.9, BOX), ("car", 0.9, FAR), ("person", 0.9, BOX)), detections()]
    got = agreement(reference, [REFERENCE, detections(), REFERENCE])
    assert got.to_dict() == {"share": 0.25, "ghosts": 0.5, "agreed": 1, "reference": 4, "candidate": 2, "frames": 3}


def test_agreement_about_nothing_is_no_figure():
    assert agreement([detections()], [detections()]).to_dict()["share"] is None
    assert agreement([], []).to_dict()["frames"] == 0


def test_masks_agree_pixel_by_pixel():
    assert agreement([said([[0, 1], [2, 2]])], [said([[0, 1], [2, 1]])]).share == 0.75


def test_results_that_cannot_be_compared_are_the_callers_mistake():
    with pytest.raises(ValueError, match="detections from one engine and a mask from the other"):
        agreement([REFERENCE], [said([[0]])])
    with pytest.raises(ValueError, match="masks of different sizes, or a mask from one engine only"):
        agreement([said([[0]])], [said([[0, 1]])])
    with pytest.raises(ValueError, match="zip"):
        agreement([REFERENCE], [])


def test_drift_is_the_difference_of_scores_and_places_seen_from_both_sides():
    float_says = [detections(("car", 0.9, BOX), ("person", 0.4, shifted(BOX, 500)))]
    assert drift(float_says, float_says) == 0
    nearly = [detections(("car", 0.8, BOX), ("person", 0.2, shifted(BOX, 500)))]
    assert drift(float_says, nearly) == pytest.approx((0.1 + 0.2 + 0.1) / 3)  # the person is below what is asked about
    assert drift(nearly, float_says) == pytest.approx(drift(float_says, nearly))


def test_a_lost_object_a_ghost_and_another_class_drift_by_one_each():
    one, none = [detections(("car", 0.9, BOX))], [detections()]
    assert drift(one, none) == drift(none, one) == 1
    assert drift(one, [detections(("truck", 0.9, BOX))]) == 1
    assert np.isnan(drift(none, none))


def test_masks_drift_by_the_share_of_pixels_that_differ():
    ids = np.zeros((4, 5), np.uint8)
    other = ids.copy()
    other[0, :2] = 1
    assert drift([SegmentationMap(ids, 5, 4)], [SegmentationMap(other, 5, 4)]) == pytest.approx(0.1)


def test_drift_between_boxes_and_masks_is_refused():
    with pytest.raises(ValueError, match="detections from one engine and a mask from the other"):
        drift([detections(("car", 0.9, BOX))], [SegmentationMap(np.zeros((4, 5), np.uint8), 5, 4)])


def test_figures_of_many_draws_are_those_of_each():
    """The fast way over all draws at once gives what `average_precision` gives for each of them."""
    generator = np.random.default_rng(11)
    detections, frames = 300, 20
    right = generator.random((1, detections)) < 0.6
    group = GroupMatches(
        generator.integers(0, frames, detections),
        right,
        ~right & (generator.random((1, detections)) < 0.9),
        generator.integers(0, 20, frames),
    )
    draws = generator.multinomial(frames, np.full(frames, 1 / frames), size=24).astype(np.int64)
    draws[0, group.labelled > 0] = 0
    expected = [group.average_precision(draw, ious=1)[0] for draw in draws]
    np.testing.assert_allclose(group.of_draws(draws, ious=1), expected, rtol=0, atol=1e-12)
    assert np.isnan(group.of_draws(draws, ious=1)[0])
