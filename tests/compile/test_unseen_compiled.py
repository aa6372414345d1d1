"""Networks nobody here has seen, through `tollgate compile`: each gives a package or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hw_profiles.machine import read_machine
from perception.cli import EXIT_FAILED, EXIT_MISUSE, EXIT_PASSED, main
from perception.model_spec import Decoding, ModelSpec, PictureInput, SizeInput
from perception.package import open_package
from tests.compile import architectures as nets
from tests.compile.builders import write_drive
from tests.compile.graphs import Sketch, rt_detr, yolox
from tests.compile.test_unseen_graphs import broken_weight

PROFILE = "x86_cpu" if read_machine().cpu.arch == "x86_64" else "arm_cpu"
CLASSES = tuple("abcde")
GRID = {"strides_px": (8, 16, 32), "options": {"decoded": True}}


def mask_spec(size: int = 32, **picture: object) -> ModelSpec:
    """Of a network whose output `out` has a map for each class."""
    read = PictureInput(tensor="images", width_px=size, height_px=size, scale=1 / 255, **picture)
    decoding = Decoding(decoder="argmax_mask", tensors={"output": "out"})
    return ModelSpec(name="unseen", task="segmentation", picture=read, decoding=decoding, classes=CLASSES[:4])


def detection_spec(decoder: str, classes: int, **tensors: str) -> ModelSpec:
    return ModelSpec(
        name="unseen",
        task="detection",
        picture=PictureInput(tensor="images", width_px=64, height_px=64, scale=1 / 255),
        size_input=SizeInput(tensor="orig_target_sizes") if decoder == "detr" else None,
        decoding=Decoding(decoder=decoder, tensors=tensors, **GRID if decoder == "yolox" else {}),
        classes=CLASSES[:classes],
    )


@dataclass(frozen=True)
class Case:
    """A network with its spec.

    Attributes:
        refused: part of the sentence it is refused with; empty where it compiles.
        kept: layers that stay float whatever is asked for.
    """

    make: Callable[[], Sketch]
    spec: ModelSpec
    opset: int = 17
    refused: str = ""
    kept: tuple[str, ...] = ()


MASK = mask_spec()
CASES = {
    "opset 9": Case(nets.everyday, MASK, opset=9),
    "opset 17": Case(nets.everyday, MASK),
    "NHWC": Case(nets.exported_by_tensorflow, mask_spec(layout="NHWC")),
    "grouped": Case(nets.grouped, MASK),
    "transposed": Case(nets.transposed, MASK, kept=("up",)),
    "transposed in groups": Case(lambda: nets.transposed(group=2), MASK, kept=("up",)),
    "If": Case(nets.gated, MASK, kept=("gate",)),
    "Loop": Case(nets.looped, MASK, kept=("head",)),
    "tensors that are always zero": Case(nets.silent, MASK),
    "transformer of two inputs and integer outputs": Case(
        rt_detr, detection_spec("detr", 5, boxes="boxes", labels="labels", scores="scores")
    ),
    "rows in pixels": Case(lambda: yolox(decoded=True), detection_spec("yolox", 3, output="output")),
    "anchors in the graph": Case(nets.anchors, detection_spec("yolox", 3, output="output"), refused="[1, 240, 8]"),
    "lanes as polynomials": Case(nets.polynomials, MASK, refused="no output out, it has lanes"),
    "weights that are no numbers": Case(
        lambda: broken_weight(constant=False), MASK, refused="holds 9 NaN of 108 values"
    ),
}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("recordings") / "drive", seed=3, count=32)


ASKED = [(name, "int8") for name in CASES] + [(name, "auto") for name in ("opset 9", "If", "rows in pixels")]


@pytest.mark.parametrize(("name", "precision"), ASKED)
def test_an_unseen_network_compiles_or_is_refused_in_one_sentence(
    tmp_path: Path, drive: Path, capsys: pytest.CaptureFixture[str], name: str, precision: str
) -> None:
    case = CASES[name]
    model = case.make().save(tmp_path / "unseen.onnx", opset=case.opset, ir_version=4 if case.opset < 10 else 8)
    case.spec.save(tmp_path / "unseen.yaml")
    words = ["--calibration", str(drive), "--output", str(tmp_path / "package"), "--profile", PROFILE]
    words += ["--frames", "16", "--timing-s", "0.01", "--max-drop", "0.5", "--min-agreement", "0.5", "--no-cache"]
    code = main(["compile", str(model), *words, "--precision", precision, "--time-limit", "2"])
    told = "".join(capsys.readouterr())
    if case.refused:
        assert code == EXIT_MISUSE
        assert case.refused in told
        assert not (tmp_path / "package").exists()
        return
    if code == EXIT_FAILED:
        assert precision == "int8"
        assert "nothing ships: no INT8 candidate keeps the accuracy" in " ".join(told.split())
        return
    assert code == EXIT_PASSED
    report = open_package(tmp_path / "package").document("compile.json")
    layers = {layer["node"]: layer for layer in report["layers"]}
    assert all(layer["why"] for layer in layers.values() if layer["precision"] == "float")
    assert precision == "auto" or any(layer["precision"] == "int8" for layer in layers.values())
    assert all(layers[name]["precision"] == "float" for name in case.kept if name in layers)
