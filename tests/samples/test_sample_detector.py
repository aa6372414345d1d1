from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import onnx
import onnxruntime
import pytest

from perception.model_spec import ModelSpec

LIMIT_BYTES = 4 * 1024 * 1024


@pytest.fixture(scope="module")
def model_path(samples: Path) -> Path:
    return samples / "models" / "sample_detector.onnx"


def test_the_model_is_small_and_clean(model_path: Path) -> None:
    assert model_path.stat().st_size <= LIMIT_BYTES
    model = onnx.load(str(model_path))
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "tollgate sample detector"
    assert model.opset_import[0].version == 13
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Sigmoid", "Mul", "Add", "Concat", "MaxPool", "Resize", "Reshape", "Transpose"}
    assert not {i.name for i in model.graph.input} & {w.name for w in model.graph.initializer}


def test_the_model_has_the_stated_shapes_and_its_spec_says_the_same(model_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    (picture,), (rows,) = session.get_inputs(), session.get_outputs()
    assert (picture.name, picture.shape) == ("images", [1, 3, 288, 512])
    assert (rows.name, rows.shape) == ("output", [1, 36 * 64 + 18 * 32 + 9 * 16, 9])
    spec = ModelSpec.load(model_path.with_suffix(".yaml"))
    assert list(spec.picture.shape) == picture.shape
    assert spec.classes == ("car", "truck", "pedestrian", "cyclist")


@pytest.mark.usefixtures("scripts_importable")
def test_the_model_finds_the_truck_ahead(samples: Path, model_path: Path) -> None:
    import evaluate

    session = onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    with av.open(str(samples / "drive" / "front.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="bgr24")
    found = evaluate.detect(session, picture)
    truth, _ = evaluate.truths(samples / "drive", ["car", "truck", "pedestrian", "cyclist"])["front", 0]
    truck = truth.boxes[(truth.kinds == 1) & ~truth.ignored][0]
    best = found[found[:, 0] == 1][0]
    assert best[1] > 0.5
    assert evaluate.overlap(truck, best[None, 2:])[0] > 0.7


@pytest.mark.usefixtures("scripts_importable")
@pytest.mark.parametrize(
    ("right", "wanted", "expected"), [((True, True), 2, 1.0), ((False, True), 1, 0.5), ((), 3, 0.0)]
)
def test_average_precision_of_known_rankings(right: tuple[bool, ...], wanted: int, expected: float) -> None:
    import evaluate

    ranked = [(1.0 - 0.1 * index, hit) for index, hit in enumerate(right)]
    assert evaluate.average_precision(ranked, wanted) == pytest.approx(expected, abs=0.01)
    assert np.isnan(evaluate.average_precision([], 0))


def test_its_average_precision_is_what_the_readme_states(samples: Path) -> None:
    stated = float(re.search(r"\| everything \| (\.\d+)", (samples / "README.md").read_text())[1])
    script = samples / "make" / "evaluate.py"
    command = [
        sys.executable,
        script,
        "--model",
        samples / "models" / "sample_detector.onnx",
        "--drive",
        samples / "drive",
    ]
    said = subprocess.run([*command, "--step", "10"], check=True, capture_output=True, text=True).stdout
    assert float(re.match(r"all: mean ([\d.]+)", said)[1]) == pytest.approx(stated, abs=0.03)
