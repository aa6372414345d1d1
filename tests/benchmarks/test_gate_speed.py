"""What a gate run costs beside the inferences it must make: 1,000 labelled 720p frames, all gates, default policy.

The frames are the bundled drive, then a third of it once more, mirrored. What must be is the number of inferences times
the bare engine's median time, both in this run. `paced` is the part of the run in which frames come at the camera's
rate and nothing else is done: no machine shortens it. The soak's inferences, in a process of its own, are counted too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

import av
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from hw_profiles.profile import load_profile
from perception.engines.engine import Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.package import PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.pipeline import open_pipeline
from perception.sources.drive import DriveSource
from safety_gates.case import Case
from safety_gates.evidence import KeptEvidence, Shelf
from safety_gates.judge import judge
from safety_gates.policy import load_policy
from safety_gates.report.page import render
from safety_gates.soak import SETTLING_FRAMES
from safety_gates.trial import Trial
from tests.benchmarks.int8.cases import SHARED_DATA, SPECS
from tests.benchmarks.results import row, write_results
from tests.mutation.models import convolution_weights, harmed
from tests.safety_gates.builders import BUILD, QUIET

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
DRIVE, SAMPLE_MODEL = SAMPLES / "drive", SAMPLES / "models" / "sample_detector.onnx"
CAMERAS, MIRRORED, WIDTH_PX, HEIGHT_PX, RATE_HZ = ("front", "front_right"), 200, 1280, 720, 30
LATER_NS, RAW_CALLS, LIMIT = 10_000_000_000, 200, 1.5
COMMAND = "pytest tests/benchmarks/test_gate_speed.py --benchmark-only"
COCO_CLASSES = """format: tollgate-classes/1
groups:
  car: {model: [car], labels: [car]}
  truck: {model: [truck, bus], labels: [truck]}
  pedestrian: {model: [person], labels: [pedestrian]}
  cyclist: {model: [bicycle], labels: [cyclist]}
minimum_height_px: 16
maximum_occlusion: 0.7
"""


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drive of 1,000 labelled frames of two cameras."""
    folder = tmp_path_factory.mktemp("thousand")
    (folder / "drive.yaml").write_bytes((DRIVE / "drive.yaml").read_bytes())
    lines = [json.loads(line) for line in (DRIVE / "labels.jsonl").read_text().splitlines()]
    labels = []
    for camera in CAMERAS:
        own = {line["frame_id"]: line for line in lines if line["camera_id"] == camera}
        with closing(DriveSource(DRIVE, cameras=[camera])) as source:
            frames = list(source.frames())
        _write_video(folder / f"{camera}.mp4", _pictures(frames))
        times = [frame.captured_ns for frame in frames] + [f.captured_ns + LATER_NS for f in frames[:MIRRORED]]
        table = "".join(f"{number},{at_ns}\n" for number, at_ns in enumerate(times))
        (folder / f"{camera}.timestamps.csv").write_text(f"frame_id,captured_ns\n{table}")
        labels += own.values()
        labels += [_mirrored(own[number], len(frames) + number) for number in range(MIRRORED)]
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in labels))
    return folder


def _pictures(frames: list[Frame]) -> Iterator[np.ndarray]:
    yield from (frame.pixels for frame in frames)
    yield from (np.ascontiguousarray(frame.pixels[:, ::-1]) for frame in frames[:MIRRORED])


def _write_video(path: Path, pictures: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode())


def _mirrored(line: dict, number: int) -> dict:
    objects = [{**each, "box": _flipped(*each["box"])} for each in line["objects"]]
    return {**line, "frame_id": number, "captured_ns": line["captured_ns"] + LATER_NS, "objects": objects}


def _flipped(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [WIDTH_PX - x2, y1, WIDTH_PX - x1, y2]


def _package(folder: Path, model: bytes, spec: Path, name: str) -> EnginePackage:
    profile = load_profile("x86_cpu").to_yaml().encode()
    files = {"engine.onnx": model, SPEC: ModelSpec.load(spec).to_yaml().encode(), PROFILE: profile}
    entry = EngineEntry(kind="onnxrt", file="engine.onnx", precision="fp32")
    return write_package(folder, files, name=name, engine=entry, build=dict(BUILD))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often an engine ran in this process; a list of one number."""
    calls, infer = [0], OnnxRuntimeEngine.infer

    def counting(self: OnnxRuntimeEngine, feeds: Tensors) -> Tensors:
        calls[0] += 1
        return infer(self, feeds)

    monkeypatch.setattr(OnnxRuntimeEngine, "infer", counting)
    return calls


def _raw_s(package: EnginePackage, drive: Path) -> list[float]:
    """Times of the bare engine on one frame."""
    with open_pipeline(package) as pipeline, closing(DriveSource(drive)) as source:
        (frame,) = islice(source.frames(), 1)
        feeds = pipeline.prepare(frame)
        spent = []
        for _ in range(RAW_CALLS):
            started_s = time.perf_counter()
            pipeline.engine.infer(feeds)
            spent.append(time.perf_counter() - started_s)
    return spent


@pytest.mark.parametrize("name", ["sample_detector", "yolox_nano_416"])
def test_gate_beside_its_inferences(
    tmp_path: Path, benchmark: BenchmarkFixture, thousand: Path, counted: list[int], name: str
) -> None:
    path, spec, class_map = SAMPLE_MODEL, SAMPLE_MODEL.with_suffix(".yaml"), SAMPLES / "classes.yaml"
    if name != "sample_detector":
        path, spec, class_map = SHARED_DATA / "models" / f"{name}.onnx", SPECS / f"{name}.yaml", tmp_path / "map.yaml"
        class_map.write_text(COCO_CLASSES)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    model = path.read_bytes()
    other = harmed(model, {convolution_weights(model)[20]: lambda weights: weights * 1.01})  # not byte for byte float
    ours, twin = (_package(tmp_path / each, content, spec, name) for each, content in (("p", other), ("f", model)))
    case = Case(ours, thousand, labels=thousand, class_map=class_map, reference=twin, first_release=True, command="")
    kept: dict[str, KeptEvidence] = {}

    def gate() -> bytes:
        trial = Trial(case, Shelf(tmp_path / "evidence"), QUIET)
        judgement = judge(trial, load_policy(None))
        kept.update({name: each for name, each in judgement.exhibits.items() if isinstance(each, KeptEvidence)})
        return render(judgement, trial)

    raw_s, before = _raw_s(ours, thousand), counted[0]
    started_s = time.perf_counter()
    benchmark.pedantic(gate, rounds=1, iterations=1)
    took_s, count = time.perf_counter() - started_s, counted[0] - before + SETTLING_FRAMES
    raw_s += _raw_s(ours, thousand)
    count += kept["resources"].evidence.samples
    must_s = count * median(raw_s)
    paced_s = kept["latency"].evidence.samples / ours.profile.cameras.rate_hz
    told = {"better": "lower", "command": COMMAND}
    rows = [
        row("gate over its inferences", took_s / must_s, limit=LIMIT, unit="ratio", samples=count, **told),
        row("the same without paced", (took_s - paced_s) / must_s, limit=None, unit="ratio", samples=count, **told),
        row("gate", took_s, limit=None, unit="s", samples=1, **told),
        row("paced", paced_s, limit=None, unit="s", samples=kept["latency"].evidence.samples, **told),
        row("inferences", count, limit=None, unit="count", samples=1, **told),
        row("bare engine", median(raw_s) * 1e3, limit=None, unit="ms", samples=len(raw_s), **told),
    ]
    write_results(f"gate_speed_{name}", rows, more={"frames": 1000, "model": name, "policy": "default"})
