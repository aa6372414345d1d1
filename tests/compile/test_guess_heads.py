"""Heads that exporters write, known and unknown: none is guessed wrongly with confidence, and each says the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.guess import guess_spec
from compile.importer import import_model
from perception.decode import DECODERS, open_decoder
from perception.errors import SpecError
from tests.compile import heads
from tests.compile.graphs import Sketch, query_logits, rt_detr, segmentation, yolov8
from tests.compile.test_guess import ULTRALYTICS, guessed

READ = {
    "YOLOv5": (heads.yolov5(), "yolox", 80),
    "YOLOv8 of three classes": (yolov8(), "yolov8", 3),
    "RT-DETR with the size as second input": (rt_detr(), "detr", 5),
    "queries": (query_logits(queries=300, classes=91), "detr", 91),
    "class scores": (segmentation(layout="NCHW"), "argmax_mask", 19),
    "classes": (segmentation(layout="NCHW", argmax=True), "argmax_mask", 19),
}

UNREAD = {
    "YOLOv10": (heads.yolov10(size=128), "export with end2end=False, nms=False"),
    "SSD": (heads.ssd(size=160), "join them in the graph to one output"),
    "SSD as few as queries": (heads.ssd(classes=91), "join them in the graph to one output"),
    "PP-YOLOE without NMS": (heads.apart(size=320, cells_last=True), "which decoder yolov8 reads"),
    "PP-YOLOE on a small picture": (heads.apart(), "which decoder yolov8 reads"),
    "PP-YOLOE with NMS": (heads.selected_by_paddle(), "export the model without its post-processing"),
    "TensorFlow's zoo": (heads.selected_by_tensorflow(), "export the model without its post-processing"),
    "CenterNet": (heads.centernet(), "no decoder reads boxes from them"),
    "lanes as curves": (heads.lane_curves(), "no decoder is known for the outputs pred_logits [1, 7, 2]"),
    "lanes as cells": (heads.lane_cells(), "no decoder is known for the outputs 200 [1, 101, 56, 4]"),
    "a classifier": (heads.classifier(), "write one beside those in perception/decoders"),
}

DOUBTED = {
    "features": (heads.features(), "it ends in Relu, as features do"),
    "a picture": (heads.repainted(), "may be a picture"),
}


@pytest.mark.parametrize("name", READ)
def test_a_head_that_is_read_opens_its_decoder(tmp_path: Path, name: str) -> None:
    sketch, decoder, classes = READ[name]
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    guess = guess_spec(imported, "m")
    assert (guess.spec.decoding.decoder, len(guess.spec.classes)) == (decoder, classes)
    assert guess.clue("decoding.decoder").confidence == "likely"
    open_decoder(guess.spec, imported.outputs)


@pytest.mark.parametrize("name", UNREAD)
def test_a_head_that_no_decoder_reads_is_unsure_and_says_the_way_out(tmp_path: Path, name: str) -> None:
    sketch, way_out = UNREAD[name]
    imported = import_model(sketch.save(tmp_path / "m.onnx"))
    guess = guess_spec(imported, "m")
    clue = guess.clue("decoding.decoder")
    assert (clue.value in DECODERS, clue.confidence) == (False, "unsure")
    assert way_out in clue.why
    with pytest.raises(SpecError, match="decoder 'unknown' is unknown"):
        open_decoder(guess.spec, imported.outputs)


@pytest.mark.parametrize("name", DOUBTED)
def test_a_map_that_may_be_no_map_of_classes_is_unsure(tmp_path: Path, name: str) -> None:
    sketch, doubt = DOUBTED[name]
    clue = guessed(sketch, tmp_path).clue("decoding.decoder")
    assert (clue.value, clue.confidence) == ("argmax_mask", "unsure")
    assert doubt in clue.why


@pytest.mark.parametrize(
    ("sketch", "decoder", "confidence"),
    [
        (heads.yolov5(classes=3), "yolox", "likely"),
        (yolov8(), "yolov8", "certain"),
        (heads.yolov10(size=128), "unknown", "unsure"),
    ],
)
def test_the_exporters_metadata_names_the_classes(
    tmp_path: Path, sketch: Sketch, decoder: str, confidence: str
) -> None:
    guess = guessed(sketch, tmp_path, **ULTRALYTICS)
    clue = guess.clue("decoding.decoder")
    assert (clue.value, clue.confidence) == (decoder, confidence)
    assert guess.spec.classes == ("car", "truck", "pedestrian")
    assert guess.clue("classes").confidence == "certain"
