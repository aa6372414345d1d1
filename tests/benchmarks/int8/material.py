"""What every contender is given for one model: the cleaned graph, calibration frames, validation frames with labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx

from compile.backends.onnxrt import build, opened
from compile.calibration import choose_calibration, choose_evaluation, held_out
from compile.class_map import ClassMap
from compile.importer import import_model
from compile.recordings import Recordings, evenly, survey
from perception.agreement import AGREED_SCORE
from perception.engines.engine import Tensors
from perception.files import staged_folder
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.preprocess import Preprocessor
from perception.results import Detections, Result
from perception.sources.table import open_source
from tests.benchmarks.int8.cases import Case
from tests.benchmarks.int8.grades import results_of
from tests.benchmarks.int8.work import Work

VALIDATION_FRAMES = 48
THREADS = 2


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a contender may look at while it builds.

    Attributes:
        folder: of this model; see `prepare` for what lies there.
    """

    case: Case
    folder: Path

    @property
    def float_path(self) -> Path:
        """The cleaned float model."""
        return self.folder / "float.onnx"

    @property
    def calibration(self) -> Path:
        """Folder of the calibration pictures."""
        return self.folder / "frames" / "calibration"

    @property
    def validation(self) -> Path:
        """Folder of the validation pictures."""
        return self.folder / "frames" / "validation"

    @property
    def validation_labels(self) -> Path:
        """What float reports on them: KITTI's text files, or masks."""
        return self.folder / "frames" / "labels"

    def model(self) -> onnx.ModelProto:
        """The cleaned float model."""
        return onnx.load(self.float_path)

    def spec(self) -> ModelSpec:
        """How it is fed and read."""
        return ModelSpec.load(self.case.spec)

    def class_map(self) -> ClassMap:
        """What is scored."""
        return ClassMap.load(self.case.class_map)

    def calibration_feeds(self) -> Feeds:
        """The calibration frames as the network is fed them."""
        return Feeds(self.spec(), self.calibration)


@dataclass(frozen=True, slots=True)
class Feeds:
    """Input tensors of a folder of pictures, made anew at each iteration; each array is the caller's to keep."""

    spec: ModelSpec
    pictures: Path

    def __iter__(self) -> Iterator[Tensors]:
        preprocessor = Preprocessor(self.spec.picture, self.spec.size_input)
        for frame in frames_of(self.pictures):
            yield {name: tensor.copy() for name, tensor in preprocessor.prepare(frame.pixels).feeds.items()}


def frames_of(recording: Path, count: int | None = None) -> Iterator[Frame]:
    """The frames of a recording; at most `count` of them, evenly."""
    wanted = None
    if count is not None:
        with closing(open_source(recording)) as source:
            wanted = set(evenly(range(sum(1 for _ in source.frames())), count))
    with closing(open_source(recording)) as source:
        for position, frame in enumerate(source.frames()):
            if wanted is None or position in wanted:
                yield frame


def prepare(case: Case, work: Work) -> Material:
    """Make what all contenders share, unless it is there: `float.onnx`, `frames/{calibration,validation,labels}`."""
    material = Material(case, work.of_case(case.name))
    if (material.folder / "frames").is_dir():
        return material
    material.folder.mkdir(parents=True, exist_ok=True)
    model = import_model(case.model).model
    material.float_path.write_bytes(build(model))
    seen = survey(case.calibration)
    early, late = held_out(seen)  # as `compile.job` splits them: this project calibrates on the same frames
    chosen = choose_calibration(case.calibration, early, frames=work.settings.calibration_frames)
    apart = chosen.recordings.chosen
    validation = choose_evaluation(case.calibration, held_out(late, 0.5)[1], apart_from=apart, frames=VALIDATION_FRAMES)
    with staged_folder(material.folder / "frames") as staged:
        _write_pictures(staged / "calibration", chosen.recordings)
        _write_pictures(staged / "validation", validation)
        _write_labels(staged, material)
    return material


def _write_pictures(folder: Path, recordings: Recordings) -> None:
    folder.mkdir()
    for number, frame in enumerate(recordings.frames()):
        cv2.imwrite(str(folder / f"{number:04d}.png"), frame.pixels)


def _write_labels(staged: Path, material: Material) -> None:
    """Label the validation frames with what float reports."""
    spec, class_map = material.spec(), material.class_map()
    folder = staged / "labels" / ("label_2" if spec.task == "detection" else "masks")
    folder.mkdir(parents=True)
    frames = list(frames_of(staged / "validation"))
    with opened(material.float_path.read_bytes(), threads=THREADS) as engine:
        for frame, result in zip(frames, results_of(spec, engine, frames, AGREED_SCORE), strict=True):
            if isinstance(result, Detections):
                (folder / f"{frame.name}.txt").write_text(kitti_text(result, spec, class_map))
            else:
                cv2.imwrite(str(folder / f"{frame.name}.png"), mask_values(result, spec, class_map))


def kitti_text(detections: Detections, spec: ModelSpec, class_map: ClassMap) -> str:
    """Detections as labels in KITTI's format; classes that are not scored are left out."""
    label_of = {name: group.labels[0] for group in class_map.groups.values() for name in group.model}
    lines = []
    for box_px, class_id in zip(detections.boxes_px, detections.class_ids, strict=True):
        label = label_of.get(spec.classes[class_id])
        if label is not None and box_px[0] < box_px[2] and box_px[1] < box_px[3]:
            x1, y1, x2, y2 = (f"{side:.2f}" for side in box_px)
            lines.append(f"{label} 0.00 0 0 {x1} {y1} {x2} {y2} 1 1 1 0 0 10 0\n")
    return "".join(lines)


def mask_values(result: Result, spec: ModelSpec, class_map: ClassMap) -> np.ndarray:
    """A mask in the values of the labels, (H, W) uint8: what belongs to no group gets a value that none asks for."""
    value_of = {name: value for value, name in class_map.mask_values.items()}
    named = {label for group in class_map.groups.values() for label in (*group.labels, *group.ignored)}
    other = next(value for value, name in class_map.mask_values.items() if name not in named)
    table = np.full(len(spec.classes), other, np.uint8)
    for group in class_map.groups.values():
        table[[spec.classes.index(name) for name in group.model]] = value_of[group.labels[0]]
    return table[result.at_source_size()]
