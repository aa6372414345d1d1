"""The models that are compared, where their frames come from, and the limits their figures are held to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SPECS = ROOT / "tests" / "specs"
SAMPLES = ROOT / "data" / "samples"
SHARED_DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Limits:
    """What this project promises of a model.

    Attributes:
        cpu_drop: greatest loss of the plan for the CPU: per cent of float's AP50, or points of IoU.
        cpu_kept: least share of what float reports that this plan reports too; None promises nothing.
        tensorrt_drop: the same as `cpu_drop`, of the placement for TensorRT.
        tensorrt_kept: the same as `cpu_kept`.
        tensorrt_share: least share of multiply-adds in INT8.
    """

    cpu_drop: float
    cpu_kept: float | None
    tensorrt_drop: float
    tensorrt_kept: float | None
    tensorrt_share: float


@dataclass(frozen=True, slots=True)
class Case:
    """One model.

    Attributes:
        calibration: recordings to calibrate and to search on.
        labelled: the recording to grade on.
        labels: its ground truth.
        unlabelled: recordings to compare with float on; empty takes `labelled`.
        limits: None for a model nothing is promised of.
    """

    name: str
    model: Path
    spec: Path
    class_map: Path
    calibration: tuple[Path, ...]
    labelled: Path
    labels: Path
    unlabelled: tuple[Path, ...] = ()
    limits: Limits | None = None

    @property
    def compared(self) -> tuple[Path, ...]:
        """Where agreement with float is counted."""
        return self.unlabelled or (self.labelled,)


LIMITS = {
    "yolox_nano_416": Limits(0.5, 0.97, 1.0, 0.94, 0.90),
    "nanodet_m_416": Limits(0.5, 0.96, 1.0, 0.92, 0.90),
    "fastestdet_352": Limits(0.5, 0.95, 1.0, 0.92, 0.85),
    "road_segmentation_adas_0001": Limits(0.2, None, 0.5, None, 0.90),
}


def cases() -> tuple[Case, ...]:
    """The bundled detector always; the others where the shared models and recordings lie beside this folder."""
    bundled = Case(
        "sample_detector",
        SAMPLES / "models" / "sample_detector.onnx",
        SAMPLES / "models" / "sample_detector.yaml",
        SAMPLES / "classes.yaml",
        calibration=(SAMPLES / "calibration",),
        labelled=SAMPLES / "drive",
        labels=SAMPLES / "drive",
    )
    return (*map(_shared_case, LIMITS), bundled) if SHARED_DATA.is_dir() else (bundled,)


def case_named(name: str) -> Case:
    """The case of a name.

    Raises:
        ValueError: there is none.
    """
    found = {case.name: case for case in cases()}
    if name not in found:
        raise ValueError(f"model {name!r}: is not compared here, expected one of {', '.join(found)}")
    return found[name]


def _shared_case(name: str) -> Case:
    road = name.startswith("road")
    clips, labelled = SHARED_DATA / "clips", SHARED_DATA / "labelled" / ("camvid_day" if road else "kitti_dev")
    kitti = clips / "kitti_drive_0005_80f"
    return Case(
        name,
        SHARED_DATA / "models" / f"{name}.onnx",
        SPECS / f"{name}.yaml",
        SPECS / ("camvid_classes.yaml" if road else "kitti_classes.yaml"),
        calibration=(clips / "driveai_120", clips / "udacity_solidWhiteRight.mp4"),
        labelled=labelled / ("images" if road else "image_2"),
        labels=labelled,
        unlabelled=(
            kitti / "image_02" / "data",
            kitti / "image_03" / "data",
            clips / "udacity_vehicle_test_video.mp4",
        ),
        limits=LIMITS[name],
    )
