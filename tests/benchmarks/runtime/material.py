"""Packages, pictures and sources the benchmarks share. Packages hold float models: compiling is another benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from hw_profiles.profile import Profile, load_profile
from perception.frame import Frame
from perception.model_spec import Decoding, ModelSpec, PictureInput
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.sources.source import Camera
from perception.sources.table import open_source

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
CLIP_720P = SHARED / "clips" / "udacity_vehicle_test_video.mp4"
KITTI = SHARED / "clips" / "kitti_drive_0005_80f"
NS = 1_000_000_000


def float_package(folder: Path, model: str, *, deadline_ms: float) -> EnginePackage:
    """A model of the shared data as it is, with this project's spec, for the CPU profile with another deadline."""
    spec = ModelSpec.load(ROOT / "tests" / "specs" / f"{model}.yaml")
    files = {
        "engine.onnx": (SHARED / "models" / f"{model}.onnx").read_bytes(),
        SPEC: spec.to_yaml().encode(),
        PROFILE: profile_with(deadline_ms).to_yaml().encode(),
    }
    engine = EngineEntry(kind="onnxrt", file="engine.onnx", precision="fp32")
    return write_package(folder, files, name=model, engine=engine, build={"made": "for a benchmark"})


def null_package(folder: Path, *, service_ms: float, deadline_ms: float = 100) -> EnginePackage:
    """A null engine of the shape of a small detector that finds nothing."""
    spec = ModelSpec(
        name="null",
        task="detection",
        picture=PictureInput(tensor="images", width_px=64, height_px=64),
        decoding=Decoding(decoder="yolox", tensors={"output": "output"}, strides_px=(8, 16, 32), nms_iou=0.5),
        classes=("car",),
    )
    content = {
        "inputs": [["images", [1, 3, 64, 64], "float32"]],
        "outputs": [["output", [1, 84, 6], "float32", 0.0]],
        "service_ms": service_ms,
    }
    files = {
        "engine.json": json.dumps(content).encode(),
        SPEC: spec.to_yaml().encode(),
        PROFILE: profile_with(deadline_ms).to_yaml().encode(),
    }
    engine = EngineEntry(kind="null", file="engine.json", precision="fp32")
    return write_package(folder, files, name="null", engine=engine, build={"made": "for a benchmark"})


def profile_with(deadline_ms: float) -> Profile:
    """The CPU profile with a deadline of the benchmark."""
    profile = load_profile("x86_cpu")
    deadline = profile.deadline.model_copy(update={"value": deadline_ms, "source": "the benchmark"})
    return profile.model_copy(update={"deadline": deadline})


def first_frames(path: Path, count: int) -> list[Frame]:
    """The first frames of a recording, in memory."""
    source = open_source(path)
    frames = list(islice(source.frames(), count))
    source.close()
    return frames


def noise(count: int, *, height_px: int = 64, width_px: int = 64) -> list[Frame]:
    """Pictures no two of which are alike."""
    chance = np.random.default_rng(0)
    return [
        Frame(chance.integers(30, 220, (height_px, width_px, 3), np.uint8), "front", index, index, str(index))
        for index in range(count)
    ]


class Looped:
    """A recording held in memory and played again and again: as long as one likes, with true times within a round."""

    def __init__(self, frames: Sequence[Frame], *, seconds: float) -> None:
        """Hold the frames of one or more cameras; `seconds` is how long it plays."""
        names = list(dict.fromkeys(frame.camera_id for frame in frames))
        self._lanes = {name: [frame for frame in frames if frame.camera_id == name] for name in names}
        first = self._lanes[names[0]]
        period_ns = (first[-1].captured_ns - first[0].captured_ns) / (len(first) - 1)
        self._start_ns = min(frame.captured_ns for frame in frames)
        self._round_ns = round(period_ns * len(first))
        self._seconds = seconds
        count = int(seconds * NS / period_ns)
        self.cameras = tuple(
            Camera(name, lane[0].width_px, lane[0].height_px, NS / period_ns, count)
            for name, lane in self._lanes.items()
        )

    def camera_frames(self, camera_id: str) -> Iterator[Frame]:
        """See `Recording.camera_frames`."""
        lane, index = self._lanes[camera_id], 0
        while True:
            held = lane[index % len(lane)]
            at_ns = held.captured_ns - self._start_ns + index // len(lane) * self._round_ns
            if at_ns >= self._seconds * NS:
                return
            yield Frame(held.pixels, camera_id, index, at_ns, held.name)
            index += 1

    def frames(self) -> Iterator[Frame]:
        """All cameras in order of capture."""
        raise NotImplementedError("the deadline loop reads every camera by itself")

    def close(self) -> None:
        """Nothing to give back."""
