"""The verb: what it shows, what it writes, and what it leaves alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from compile.verbs.inspect import shape_argument
from perception.cli import EXIT_MISUSE, EXIT_PASSED, main
from perception.model_spec import ModelSpec
from tests.compile.graphs import Sketch, segmentation, small_network, yolov8, yolox


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_shows_the_model_and_writes_a_spec_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yolox(classes=80).save(tmp_path / "net.onnx")
    assert main(["inspect", str(path)]) == EXIT_PASSED
    shown = capsys.readouterr().out
    for expected in (
        "net.onnx",
        "1 × 3 × 64 × 64",
        "1 × 84 × 85",
        "multiply-adds",
        "Biggest layers",
        "Looks like YOLOX",
    ):
        assert expected in shown
    spec = ModelSpec.load(tmp_path / "net.yaml")
    assert (spec.name, spec.decoding.decoder) == ("net", "yolox")


def test_what_the_importer_would_clean_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_network().save(tmp_path / "net.onnx", opset=9, ir_version=4)
    assert main(["inspect", str(path)]) == EXIT_PASSED
    shown = " ".join(capsys.readouterr().out.split())
    assert "opset 9 → 13" in shown
    assert "1 BatchNormalization fused into convolutions" in shown


def test_unsure_fields_are_named_on_the_screen_and_marked_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = segmentation(classes=4).save(tmp_path / "net.onnx")
    assert main(["inspect", str(path)]) == EXIT_PASSED
    assert "Check before use: licence, source, colour," in capsys.readouterr().out
    assert (tmp_path / "net.yaml").read_text().count("UNSURE") >= 3


def test_a_spec_that_is_there_is_left_alone_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yolox().save(tmp_path / "net.onnx")
    (tmp_path / "net.yaml").write_text("mine")
    before = files_of(tmp_path)
    assert main(["inspect", str(path)]) == EXIT_PASSED
    assert files_of(tmp_path) == before
    assert "net.yaml is there already and was left as it is; --force replaces it" in capsys.readouterr().out


def test_force_replaces_it(tmp_path: Path) -> None:
    path = yolox().save(tmp_path / "net.onnx")
    (tmp_path / "net.yaml").write_text("mine")
    assert main(["inspect", str(path), "--force"]) == EXIT_PASSED
    assert ModelSpec.load(tmp_path / "net.yaml").name == "net"


def test_the_draft_goes_where_output_says(tmp_path: Path) -> None:
    path = yolox().save(tmp_path / "net.onnx")
    assert main(["inspect", str(path), "--output", str(tmp_path / "specs" / "other.yaml")]) == EXIT_PASSED
    assert sorted(files_of(tmp_path)) == ["net.onnx", "specs/other.yaml"]


def test_an_output_that_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yolox().save(tmp_path / "net.onnx")
    before = files_of(tmp_path)
    assert main(["inspect", str(path), "--output", str(path / "spec.yaml")]) == EXIT_MISUSE
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert "cannot be written" in captured.err
    assert files_of(tmp_path) == before


def test_json_is_one_document_on_stdout_and_carries_every_clue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yolox(classes=80).save(tmp_path / "net.onnx")
    assert main(["inspect", str(path), "--json"]) == EXIT_PASSED
    document = json.loads(capsys.readouterr().out)
    clues = {clue["field"]: clue for clue in document["clues"]}
    assert clues["decoding.decoder"]["value"] == "yolox"
    assert clues["decoding.decoder"]["confidence"] == "certain"
    assert document["inputs"] == [{"name": "images", "shape": [1, 3, 64, 64], "dtype": "float32"}]
    assert document["cost"]["macs"] > 0
    assert document["draft"] == str(tmp_path / "net.yaml")
    assert document["draft_written"] is True


def test_a_shape_on_the_command_line_fixes_open_sides(tmp_path: Path) -> None:
    path = yolov8(open_sides=True).save(tmp_path / "net.onnx")
    assert main(["inspect", str(path), "--shape", "images=1,3,64,64"]) == EXIT_PASSED
    assert ModelSpec.load(tmp_path / "net.yaml").picture.width_px == 64


def test_open_sides_without_a_shape_are_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = yolov8(open_sides=True).save(tmp_path / "net.onnx")
    assert main(["inspect", str(path)]) == EXIT_MISUSE
    assert "give --shape images=1,3,SIZE,SIZE" in capsys.readouterr().err
    assert list(files_of(tmp_path)) == ["net.onnx"]


@pytest.mark.parametrize("text", ["1,3,64,64", "images=", "images=a,b", "=1,2", "images=1,-1"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected INPUT=SIDE,SIDE,… such as images=1,3,640,640"):
        shape_argument(text)


def test_an_input_name_may_hold_an_equals_sign() -> None:
    assert shape_argument("a=b:0=1,3,8,8") == ("a=b:0", (1, 3, 8, 8))


def test_a_foreign_file_is_one_line_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    assert main(["inspect", str(path)]) == EXIT_MISUSE
    captured = capsys.readouterr()
    assert (
        captured.err
        == f"tollgate inspect: {path}: is no ONNX model, it is a JPEG picture; give the path of an ONNX file\n"
    )
    assert list(files_of(tmp_path)) == ["net.onnx"]


def test_a_network_without_a_picture_is_shown_and_no_spec_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sketch = Sketch(waveform=[1, 1, 16000])
    sketch.output(sketch.node("Relu", "waveform"), "y", [1, 1, 16000])
    assert main(["inspect", str(sketch.save(tmp_path / "net.onnx"))]) == EXIT_PASSED
    assert "No spec was drafted" in capsys.readouterr().out
    assert list(files_of(tmp_path)) == ["net.onnx"]


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sketch = Sketch(**{"[bold]in[/bold]": [1, 3, 32, 64]})
    sketch.output(sketch.conv("[bold]in[/bold]", 3, 19, name="[red]layer"), "out[0]", [1, 19, 32, 64])
    assert main(["inspect", str(sketch.save(tmp_path / "net[1].onnx"))]) == EXIT_PASSED
    shown = capsys.readouterr().out
    for name in ("[bold]in[/bold]", "[red]layer", "out[0]", "net[1].onnx"):
        assert name in shown
