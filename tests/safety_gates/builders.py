"""A real detector small enough to read, and drives on which it is right: what the gates' tests try and harm.

The detector looks at cells of 16 x 16 pixels: a red cell is a car, a blue cell is a person, its score the square of its
brightness, and a white cell is nothing. ONNX Runtime runs it like any other model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.profile import Profile, load_profile
from perception.model_spec import Decoding, ModelSpec, PictureInput
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.terminal import Terminal
from tests.perception.builders import SPEC_OF_NULL, null_engine_file

CELL_PX, SIDE_PX, CLASSES = 16, 64, ("car", "person")
CELLS = SIDE_PX // CELL_PX
QUIET = Terminal(quiet=True)
NO_FILES: Mapping[str, bytes] = {}
BUILD = {
    "source": {"sha256": "0" * 64},
    "spec_sha256": "0" * 64,
    "profile_sha256": "0" * 64,
    "libraries": {"onnx": onnx.__version__},
    "python": "3",
    "cpu": "any",
}
# Rows: x, y, w, h, objectness, car, person; columns: blue, green, red; then the bias.
RIGHT = np.array(
    [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0]],
    np.float32,
)
BIAS = np.array([0.5, 0.5, 0, 0, 0, 0, 0], np.float32)
SHIFTED = np.array([1.1, 0.5, 0, 0, 0, 0, 0], np.float32)  # boxes 0.6 of their width to the right


def detector_file(weights: np.ndarray = RIGHT, bias: np.ndarray = BIAS) -> bytes:
    """Average of each cell, one 1x1 convolution less the glare of a white one, transposed to YOLOX's rows."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL_PX] * 2, strides=[CELL_PX] * 2),
        helper.make_node("Conv", ["cells", "weights", "bias"], ["colours"]),
        helper.make_node("Conv", ["cells", "green", "dazzled_from"], ["over"]),
        helper.make_node("Relu", ["over"], ["glare"]),
        helper.make_node("Conv", ["glare", "doubt"], ["less"]),
        helper.make_node("Add", ["colours", "less"], ["heads"]),
        helper.make_node("Reshape", ["heads", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["output"], perm=[0, 2, 1]),
    ]
    glare = {
        "green": np.array([0, 1, 0], np.float32).reshape(1, 3, 1, 1),
        "dazzled_from": np.array([-0.5], np.float32),
        "doubt": np.array([0, 0, 0, 0, -4, 0, 0], np.float32).reshape(7, 1, 1, 1),
    }
    constants = {"weights": weights.reshape(7, 3, 1, 1), "bias": bias, "rows": np.array([1, 7, CELLS**2])}
    return _onnx_file(nodes, {**constants, **glare}, [1, CELLS**2, 7])


def mask_file(*, swapped: bool = False) -> bytes:
    """Class 0 where the picture is red, class 1 where it is green, or the other way round."""
    weights = np.array([[0, 0, 1], [0, 1, 0]], np.float32)[:: -1 if swapped else 1]
    nodes = [helper.make_node("Conv", ["images", "weights"], ["output"])]
    return _onnx_file(nodes, {"weights": weights.reshape(2, 3, 1, 1)}, [1, 2, SIDE_PX, SIDE_PX])


def _onnx_file(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output_shape: list[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "of_a_test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def spec(**picture: object) -> ModelSpec:
    """How the detector is fed and read; `picture` replaces fields of its input."""
    return ModelSpec(
        name="cells",
        task="detection",
        licence="Apache-2.0",
        source="a test",
        picture=PictureInput(tensor="images", width_px=SIDE_PX, height_px=SIDE_PX, scale=1 / 255, **picture),
        decoding=Decoding(decoder="yolox", tensors={"output": "output"}, strides_px=(CELL_PX,), nms_iou=0.5),
        classes=CLASSES,
    )


def package(
    folder: Path,
    *,
    weights: np.ndarray = RIGHT,
    bias: np.ndarray = BIAS,
    model_spec: ModelSpec | None = None,
    build: dict[str, object] = BUILD,
    precision: str = "fp32",
    calibration: bytes | None = None,
) -> EnginePackage:
    """A package of the detector; every argument may plant a fault."""
    files = {} if calibration is None else {"calibration.json": calibration}
    return _package(folder, detector_file(weights, bias), model_spec or spec(), build, precision, files)


def mask_package(folder: Path, *, swapped: bool = False) -> EnginePackage:
    """A package of the mask model."""
    model_spec = ModelSpec(
        name="masks",
        task="segmentation",
        licence="Apache-2.0",
        picture=PictureInput(tensor="images", width_px=SIDE_PX, height_px=SIDE_PX),
        decoding=Decoding(decoder="argmax_mask", tensors={"output": "output"}),
        classes=("road", "rest"),
    )
    return _package(folder, mask_file(swapped=swapped), model_spec, BUILD)


def null_package(folder: Path, *, service_ms: float, profile: Profile) -> EnginePackage:
    """A package that finds nothing, in a time of its own choice."""
    files = {
        "engine.json": null_engine_file(service_ms=service_ms),
        SPEC: SPEC_OF_NULL.to_yaml().encode(),
        PROFILE: profile.to_yaml().encode(),
    }
    engine = EngineEntry(kind="null", file="engine.json", precision="fp32")
    return write_package(folder, files, name="null", engine=engine, build=BUILD)


def patient_profile() -> Profile:
    """The CPU profile with a minute for every frame and a thousand slow cameras: whatever else runs, nothing is late.

    No camera's frame is overtaken by its next, and all are due at once, so that no test waits for them.
    """
    profile = load_profile("x86_cpu")
    stage = profile.budget.infer.model_copy(update={"value": 20_000})
    budget = profile.budget.model_copy(update={"preprocess": stage, "infer": stage, "postprocess": stage})
    number, rate = profile.cameras.number, profile.cameras.rate
    many, slow = number.model_copy(update={"value": 1000}), rate.model_copy(update={"value": 0.03})
    cameras = profile.cameras.model_copy(update={"number": many, "rate": slow})
    deadline = stage.model_copy(update={"value": 60_000})
    return profile.model_copy(update={"deadline": deadline, "budget": budget, "cameras": cameras})


def _package(
    folder: Path,
    engine_file: bytes,
    model_spec: ModelSpec,
    build: dict[str, object],
    precision: str = "fp32",
    more: Mapping[str, bytes] = NO_FILES,
) -> EnginePackage:
    files = {
        **more,
        "engine.onnx": engine_file,
        SPEC: model_spec.to_yaml().encode(),
        PROFILE: patient_profile().to_yaml().encode(),
    }
    engine = EngineEntry(kind="onnxrt", file="engine.onnx", precision=precision)
    return write_package(folder, files, name=model_spec.name, engine=engine, build=build)


def drive(folder: Path, *, frames: int = 400, seed: int = 0) -> tuple[Path, Path]:
    """A picture folder and its KITTI labels: up to four cells a frame, red cars and blue persons."""
    pictures, labels = folder / "image_2", folder / "label_2"
    pictures.mkdir(parents=True)
    labels.mkdir()
    generator = np.random.default_rng(seed)
    for number in range(frames):
        picture = generator.integers(0, (20, 50, 20), (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
        lines = []
        for cell in generator.choice(CELLS**2, size=generator.integers(1, 5), replace=False):
            x, y = int(cell) % CELLS * CELL_PX, int(cell) // CELLS * CELL_PX
            class_id = int(generator.integers(2))
            picture[y : y + CELL_PX, x : x + CELL_PX, 2 - 2 * class_id] = generator.integers(170, 256)
            lines.append(f"{CLASSES[class_id]} 0 0 0 {x} {y} {x + CELL_PX} {y + CELL_PX} 1 1 1 0 1 5 0\n")
        cv2.imwrite(str(pictures / f"{number:06d}.png"), picture)
        (labels / f"{number:06d}.txt").write_text("".join(lines))
    return pictures, labels


def steady_drive(folder: Path, *, frames: int, rate_hz: float = 20.0, moved_px: float = 0.0) -> tuple[Path, Path]:
    """A KITTI raw drive of one camera and its labels: two objects that stay, or move by so much a frame and come again.

    The only kind of recording here that says when its pictures were taken.
    """
    camera, labels = folder / "image_02", folder / "labels" / "label_2"
    (camera / "data").mkdir(parents=True)
    labels.mkdir(parents=True)
    times = []
    generator = np.random.default_rng(0)
    for number in range(frames):
        picture = generator.integers(0, (20, 50, 20), (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
        lines = []
        for class_id, top in ((0, 0), (1, 32)):
            left = int(number * moved_px) // CELL_PX % CELLS * CELL_PX
            picture[top : top + CELL_PX, left : left + CELL_PX, 2 - 2 * class_id] = 220
            box = f"{left} {top} {left + CELL_PX} {top + CELL_PX}"
            lines.append(f"{CLASSES[class_id]} 0 0 0 {box} 1 1 1 0 1 5 0\n")
        cv2.imwrite(str(camera / "data" / f"{number:010d}.png"), picture)
        (labels / f"{number:010d}.txt").write_text("".join(lines))
        seconds, share = divmod(number / rate_hz, 1)
        times.append(f"2030-01-01 12:{int(seconds) // 60:02d}:{int(seconds) % 60:02d}.{round(share * 1e9):09d}\n")
    (camera / "timestamps.txt").write_text("".join(times))
    return folder, labels


def mask_drive(folder: Path, *, frames: int) -> tuple[Path, Path]:
    """A picture folder and its masks: road, red, below a horizon; green above it."""
    pictures, masks = folder / "images", folder / "masks"
    pictures.mkdir(parents=True)
    masks.mkdir()
    generator = np.random.default_rng(0)
    for number in range(frames):
        road = np.repeat(np.arange(SIDE_PX)[:, None] > generator.integers(16, 48), SIDE_PX, axis=1)
        picture = np.stack([road * 0, ~road * 200, road * 200], axis=-1).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{number}.png"), picture)
        cv2.imwrite(str(masks / f"{number}.png"), (~road).astype(np.uint8))
    return pictures, masks


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content, to show that nothing changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
