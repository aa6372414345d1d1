"""Small real things the tests of the vehicle share: a null-engine package and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

from hw_profiles.profile import RuntimeSettings, load_profile
from perception.frame import Frame
from perception.model_spec import Decoding, ModelSpec, PictureInput
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.sources.source import Camera

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
MODELS = SAMPLES / "models"
SPEC_OF_NULL = ModelSpec(
    name="null",
    task="detection",
    picture=PictureInput(tensor="images", width_px=64, height_px=64),
    decoding=Decoding(decoder="yolox", tensors={"output": "output"}, strides_px=(8, 16, 32), nms_iou=0.5),
    classes=("car",),
)
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def null_engine_file(*, service_ms: float = 0.0) -> bytes:
    """A null engine of the shape of a YOLOX detector that finds nothing."""
    return json.dumps(
        {
            "inputs": [["images", [1, 3, 64, 64], "float32"]],
            "outputs": [["output", [1, CELLS, 6], "float32", 0.0]],
            "service_ms": service_ms,
        }
    ).encode()


def null_package(
    folder: Path, *, service_ms: float = 0.0, profile: str = "x86_cpu", runtime: RuntimeSettings | None = None
) -> EnginePackage:
    """A whole package around it, for the CPU profile, under another name or with settings of the loop if wanted."""
    changes = {"name": profile, "runtime": runtime}
    files = {
        "engine.json": null_engine_file(service_ms=service_ms),
        SPEC: SPEC_OF_NULL.to_yaml().encode(),
        PROFILE: load_profile("x86_cpu").model_copy(update=changes).to_yaml().encode(),
    }
    engine = EngineEntry(kind="null", file="engine.json", precision="fp32")
    return write_package(folder, files, name="null", engine=engine, build={"made": "by a test"})


def detector_package(folder: Path, *, name: str = "sample_detector") -> EnginePackage:
    """The bundled detector as it was trained, for the CPU profile."""
    files = {
        "engine.onnx": (MODELS / "sample_detector.onnx").read_bytes(),
        SPEC: (MODELS / "sample_detector.yaml").read_bytes(),
        PROFILE: load_profile("x86_cpu").to_yaml().encode(),
    }
    engine = EngineEntry(kind="onnxrt", file="engine.onnx", precision="fp32")
    return write_package(folder, files, name=name, engine=engine, build={"made": "by a test"})


def drive_of_cameras(folder: Path, count: int) -> Path:
    """A drive whose cameras all show what the front camera of the sample drive does: 1280×720, H.264, 30 Hz."""
    sample = SAMPLES / "drive"
    drive = yaml.safe_load((sample / "drive.yaml").read_text(encoding="utf-8"))
    front = next(camera for camera in drive["cameras"] if camera["camera_id"] == "front")
    names = [f"camera_{number}" for number in range(count)]
    cameras = [{**front, "camera_id": name, "video": f"{name}.mp4"} for name in names]
    folder.mkdir()
    for camera in cameras:
        (folder / camera["video"]).symlink_to(sample / front["video"])
    (folder / front["timestamps"]).symlink_to(sample / front["timestamps"])
    content = {"format": drive["format"], "name": "cameras", "cameras": cameras}
    (folder / "drive.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


class ListSource:
    """Frames from a list, as a source."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        names = sorted({frame.camera_id for frame in frames})
        self.cameras = tuple(
            Camera(name, 32, 24, None, sum(frame.camera_id == name for frame in frames)) for name in names
        )

    def frames(self) -> Iterator[Frame]:
        """All frames, anew."""
        return iter(self._frames)

    def close(self) -> None:
        """Nothing to give back."""


def frames_of(camera_id: str, count: int, *, period_ns: int = 10_000_000, offset_ns: int = 0) -> list[Frame]:
    """`count` grey pictures at an even pace."""
    return [
        Frame(np.full((24, 32, 3), index, np.uint8), camera_id, index, offset_ns + index * period_ns, str(index))
        for index in range(count)
    ]
