"""A stretch of the bundled drive, the bundled detector as a package, and both with faults planted in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.model_spec import ModelSpec
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.preprocess import Preprocessor
from perception.sources.drive import DriveSource
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.judge import judge
from safety_gates.policy import Policy, load_policy
from safety_gates.trial import Trial
from safety_gates.verdict import Verdict
from tests.mutation.models import naive_int8
from tests.safety_gates.builders import BUILD, QUIET, patient_profile

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
MODEL = SAMPLES / "models" / "sample_detector.onnx"
CAMERA, HALF = "image_02", 0.5
FIRST, FRAMES = 96, 48  # day turns into dusk on the way
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scene:
    """A KITTI raw drive of one camera, its labels, and which classes answer to which."""

    drive: Path
    labels: Path
    class_map: Path

    @property
    def pictures(self) -> list[Path]:
        """The picture files in order."""
        return sorted((self.drive / CAMERA / "data").iterdir())

    def copy(self, folder: Path) -> Scene:
        """The same scene elsewhere, to be harmed."""
        for name, path in (("drive", self.drive), ("labels", self.labels)):
            shutil.copytree(path, folder / name)
        return Scene(folder / "drive", folder / "labels", self.class_map)

    def repaint(self, change: Callable[[int, Pixels], Pixels]) -> Scene:
        """This scene with every picture changed; `change` gets its position."""
        for position, file in enumerate(self.pictures):
            cv2.imwrite(str(file), change(position, cv2.imread(str(file))))
        return self

    def reorder(self, order: Sequence[int]) -> Scene:
        """This scene with other pictures at its instants; labels stay."""
        contents = [file.read_bytes() for file in self.pictures]
        for file, source in zip(self.pictures, order, strict=True):
            file.write_bytes(contents[source])
        return self

    def relabel(self, change: Callable[[list[dict[str, object]]], None]) -> Scene:
        """This scene with its label lines changed in place."""
        file = self.labels / "labels.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        change(lines)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return self


def sample_scene(folder: Path) -> Scene:
    """A stretch of the bundled drive's front camera at half its size."""
    camera, labels = folder / "drive" / CAMERA, folder / "labels"
    (camera / "data").mkdir(parents=True)
    labels.mkdir()
    times = []
    with closing(DriveSource(SAMPLES / "drive", cameras=["front"])) as source:
        for frame in islice(source.frames(), FIRST, FIRST + FRAMES):
            small = cv2.resize(frame.pixels, None, fx=HALF, fy=HALF, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(camera / "data" / f"{frame.frame_id:010d}.png"), small)
            seconds, ns = divmod(frame.captured_ns - 1_790_000_000_000_000_000, 1_000_000_000)
            times.append(f"2030-01-01 12:00:{seconds:02d}.{ns:09d}\n")
    (camera / "timestamps.txt").write_text("".join(times))
    lines = map(json.loads, (SAMPLES / "drive" / "labels.jsonl").read_text().splitlines())
    wanted = [line for line in lines if line["camera_id"] == "front" and FIRST <= line["frame_id"] < FIRST + FRAMES]
    for line in wanted:
        line["camera_id"] = CAMERA
        for each in line["objects"]:
            each["box"] = [side * HALF for side in each["box"]]
    (labels / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in wanted))
    class_map = folder / "classes.yaml"
    text = (SAMPLES / "classes.yaml").read_text()
    class_map.write_text(text.replace("minimum_height_px: 16", "minimum_height_px: 12"))
    return Scene(folder / "drive", labels, class_map)


def sample_spec(**picture: object) -> ModelSpec:
    """The detector's own spec; `picture` replaces fields of its input."""
    spec = ModelSpec.load(MODEL.with_suffix(".yaml"))
    return spec.model_copy(update={"picture": spec.picture.model_copy(update=picture)})


def with_decoding(**decoding: object) -> ModelSpec:
    """The detector's own spec with fields of its decoding replaced."""
    spec = sample_spec()
    return spec.model_copy(update={"decoding": spec.decoding.model_copy(update=decoding)})


def sample_package(folder: Path, *, engine: bytes | None = None, spec: ModelSpec | None = None) -> EnginePackage:
    """The bundled detector as a package, float; engine and spec may be harmed ones."""
    files = {
        "engine.onnx": MODEL.read_bytes() if engine is None else engine,
        SPEC: (spec or sample_spec()).to_yaml().encode(),
        PROFILE: patient_profile().to_yaml().encode(),
    }
    entry = EngineEntry(kind="onnxrt", file="engine.onnx", precision="fp32")
    return write_package(folder, files, name="sample_detector", engine=entry, build=dict(BUILD))


def naive(scene: Scene, folder: Path) -> bytes:
    """The detector in 8 bits, as a tutorial would do it."""
    preprocessor = Preprocessor(sample_spec().picture)
    pictures = (cv2.imread(str(file)) for file in scene.pictures[::8])
    feeds = ({k: v.copy() for k, v in preprocessor.prepare(picture).feeds.items()} for picture in pictures)
    return naive_int8(MODEL.read_bytes(), feeds, folder)


def verdicts(case: Case, shelf: Shelf, claims: Sequence[str], **measuring: Mapping[str, float]) -> dict[str, Verdict]:
    """What the default policy's limits on these claims say of a case."""
    default = load_policy(None)
    limits = tuple(limit.model_copy(update={"minimum_samples": 0}) for limit in default.limits if limit.claim in claims)
    policy = Policy(name="of a test", limits=limits, measuring={**default.measuring, **measuring})
    trial = Trial(case, shelf, QUIET)
    return {each.requirement.claim: each for each in judge(trial, policy.checked("of a test")).verdicts}
