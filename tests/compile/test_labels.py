from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from compile.class_map import ClassMap
from compile.labels import LabelledFrame, LabelledObject, read_masks, read_objects
from perception.errors import LabelError
from perception.frame import Frame

SPECS = Path(__file__).parents[1] / "specs"
COCO = ("person", "bicycle", "car", "bus", "truck")

CAR = {"track_id": 7, "class": "car", "box": [10, 20, 110.5, 80], "distance_m": 23.5, "truncation": 0.1, "occlusion": 0}
LINE = {"camera_id": "front", "frame_id": 3, "captured_ns": 99, "light": "dusk", "weather": "rain", "objects": [CAR]}
KITTI = "Car 0.50 1 -1.67 657.39 190.13 700.07 223.39 1.41 1.58 4.36 3.00 2.27 4.00 -1.58\n"
DONT_CARE = "DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10\n"


def frame(camera_id: str = "front", frame_id: int = 0, name: str = "000000") -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), camera_id, frame_id, 0, name)


def drive(folder: Path, *lines: dict) -> Path:
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def kitti(folder: Path, **files: str) -> Path:
    (folder / "label_2").mkdir()
    for stem, content in files.items():
        (folder / "label_2" / f"{stem}.txt").write_text(content)
    return folder


def one_line_of(refusal: pytest.ExceptionInfo[LabelError]) -> str:
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_drives_labels_are_found_by_camera_and_number(tmp_path, named):
    folder = drive(tmp_path, LINE, {**LINE, "camera_id": "left", "objects": []})
    labels = read_objects(folder if named == "folder" else folder / "labels.jsonl")
    expected = LabelledObject("car", (10.0, 20.0, 110.5, 80.0), 0.1, 0.0, 23.5, 7, ignore=False)
    assert labels.of(frame("front", 3)) == LabelledFrame((expected,), "dusk", "rain")
    assert labels.of(frame("left", 3)) == LabelledFrame((), "dusk", "rain")
    assert labels.of(frame("front", 4)) is None


def test_kitti_labels_are_found_by_name(tmp_path):
    labels = read_objects(kitti(tmp_path, a000001=KITTI + DONT_CARE, a000002="\n"))
    car, region = labels.of(frame(name="a000001")).objects
    assert car == LabelledObject(
        "Car", (657.39, 190.13, 700.07, 223.39), truncation=0.5, distance_m=5.0, hidden="partly"
    )
    assert region.ignore
    assert region.distance_m is None
    assert labels.of(frame(name="a000002")).objects == ()


def test_masks_are_found_by_name_and_read_when_asked_for(tmp_path):
    (tmp_path / "masks").mkdir()
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "masks" / "0001.png"), values)
    labels = read_masks(tmp_path)
    np.testing.assert_array_equal(labels.of(frame(name="0001")).values(), values)
    assert labels.of(frame(name="0002")) is None


def test_frames_without_labels_come_back_as_such(tmp_path):
    labels = read_objects(drive(tmp_path, LINE))
    assert [truth is None for truth in labels.of_all([frame(frame_id=2), frame(frame_id=3)])] == [True, False]


def test_labels_of_another_recording_are_refused(tmp_path):
    labels = read_objects(kitti(tmp_path, a000001=KITTI))
    with pytest.raises(
        LabelError, match=r"labels 1 frames \(first: a000001\), but none of the 2 .*\(first: 0\)"
    ) as refusal:
        labels.of_all([frame(name="0"), frame(name="1")])
    one_line_of(refusal)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"box": [10, 20, 10, 80]}, r"car has the box \[10\.0, 20\.0, 10\.0, 80\.0\], expected x1 < x2 and y1 < y2"),
        ({"box": [10, 20, 30]}, r"objects\.0\.box\.3: is missing"),
        ({"class": None}, r"objects\.0\.class: got None"),
        ({"occlusion": 1.5}, r"objects\.0\.occlusion: got 1\.5, it should be less than or equal to 1"),
        ({"distance_m": float("nan")}, r"objects\.0\.distance_m: got nan, it should be a finite number"),
    ],
)
def test_a_broken_object_is_refused_by_file_and_line(tmp_path, change, complaint):
    folder = drive(tmp_path, {**LINE, "frame_id": 1}, {**LINE, "objects": [{**CAR, **change}]})
    with pytest.raises(LabelError, match=rf"labels\.jsonl:2: .*{complaint}") as refusal:
        read_objects(folder)
    one_line_of(refusal)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"camera_id": "fro', r"labels\.jsonl:1: .*Invalid JSON"),
        (b"[]\n", r"labels\.jsonl:1: "),
        (b"", r"labels\.jsonl: is empty, expected one line a frame"),
        (b"\xff\xfe\x00", r"labels\.jsonl: cannot be read as text"),
    ],
)
def test_a_damaged_drive_file_is_refused(tmp_path, content, complaint):
    (tmp_path / "labels.jsonl").write_bytes(content)
    with pytest.raises(LabelError, match=complaint) as refusal:
        read_objects(tmp_path)
    one_line_of(refusal)


def test_a_frame_labelled_twice_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"labels\.jsonl:2: labels front/3 a second time"):
        read_objects(drive(tmp_path, LINE, LINE))


@pytest.mark.parametrize(
    "line", ["Car 0.5 1\n", KITTI.replace("657.39", "wide"), KITTI.replace("700.07", "600.07"), "garbage\n"]
)
def test_a_broken_kitti_line_is_refused_by_file_and_line(tmp_path, line):
    with pytest.raises(LabelError, match=r"a000001\.txt:2: .*(expected 15 fields|expected x1 < x2)"):
        read_objects(kitti(tmp_path, a000001=KITTI + line))


def test_folders_without_labels_say_what_was_looked_for(tmp_path):
    with pytest.raises(LabelError, match=r"holds no labels, expected labels\.jsonl of a drive, or KITTI label files"):
        read_objects(tmp_path)
    with pytest.raises(LabelError, match=r"nowhere: does not exist, expected masks \*\.png"):
        read_masks(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"got uint8 \[4, 4, 3\], expected one channel of 8 bits"),
        (np.zeros((4, 4), np.uint16), r"got uint16 \[4, 4\], expected one channel of 8 bits"),
    ],
)
def test_a_mask_of_colours_or_of_16_bits_is_refused(tmp_path, picture, complaint):
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    with pytest.raises(LabelError, match=complaint):
        read_masks(tmp_path).frames["a"].values()


def test_a_mask_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG and nothing more")
    with pytest.raises(LabelError, match=r"a\.png: is no readable picture"):
        read_masks(tmp_path).frames["a"].values()


# Class maps.


@pytest.mark.parametrize("name", ["kitti_classes", "camvid_classes"])
def test_the_shipped_class_maps_are_readable(name):
    assert ClassMap.load(SPECS / f"{name}.yaml").groups


def test_a_map_for_another_model_is_refused():
    with pytest.raises(LabelError, match="the model has no class bus, truck, it has bicycle, car, person"):
        ClassMap.load(SPECS / "kitti_classes.yaml").require_model_classes(["person", "bicycle", "car"])


def test_a_label_class_the_map_is_silent_about_is_refused():
    class_map = ClassMap.load(SPECS / "kitti_classes.yaml")
    class_map.require_label_classes(["Car", "Cyclist"], where="label_2")
    with pytest.raises(LabelError, match="label_2: class Tractor is neither asked for nor ignored, known are Car, "):
        class_map.require_label_classes(["Car", "Tractor"], where="label_2")


def test_equal_names_need_no_map():
    class_map = ClassMap.identity(COCO)
    class_map.require_model_classes(COCO)
    class_map.require_label_classes(COCO, where="labels")
    assert class_map.mask_values[255] == "unlabelled"
    with pytest.raises(LabelError, match="class van is neither asked for nor ignored"):
        class_map.require_label_classes(["van"], where="labels")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("groups: {}", "groups: .* at least 1 item"),
        ("groups: {a: {model: [car], labels: []}}", r"groups\.a\.labels: .* at least 1 item"),
        ("groups: {a: {model: [car], labels: [Car], ignored: [Car]}}", "Car stands under labels and under ignored"),
        ("groups: {a: {model: [car], labels: [Car]}}\nminimum_height: 3", "minimum_height: is no field here"),
        ("groups: {a: {model: [car], labels: [Car]}}\nmask_values: {300: road}", r"mask_values\.300"),
        ("groups: [", "correct the YAML there"),
    ],
)
def test_an_impossible_map_is_refused_in_one_line(tmp_path, content, complaint):
    (tmp_path / "map.yaml").write_text(content)
    with pytest.raises(LabelError, match=rf"map\.yaml: .*{complaint}") as refusal:
        ClassMap.load(tmp_path / "map.yaml")
    one_line_of(refusal)


def test_a_missing_map_is_refused(tmp_path):
    with pytest.raises(LabelError, match=r"map\.yaml: no readable class map"):
        ClassMap.load(tmp_path / "map.yaml")
