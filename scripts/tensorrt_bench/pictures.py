"""Every picture through float ONNX Runtime, through the plans behind the CPU's work, and all the way on the GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from perception.engines.engine import Engine
from perception.engines.host_way import HostWay
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.engines.tensorrt import TensorRtEngine
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.results import Detections, Result
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case

Side = Callable[[Frame], Any]

LOW_SCORE = 0.02
THREADS = 8


def through_everything(case: Case, book: Book) -> None:
    """Write what each side says of every picture, to be graded where the labels are."""
    spec = case.spec
    reference = OnnxRuntimeEngine(case.model("fp32").read_bytes(), threads=THREADS)
    engines = {name: TensorRtEngine(case.plan(name).read_bytes()) for name in case.built()}
    sides = {name: behind_the_cpus_work(engine, spec) for name, engine in engines.items()}
    sides["float"] = behind_the_cpus_work(reference, spec)
    sides |= {f"{name} on the GPU": as_pipelines_run(engine, spec) for name, engine in engines.items()}
    said: dict[str, dict[str, Any]] = {name: {} for name in sides}
    for number, file in enumerate(case.files()):
        pixels = np.asarray(cv2.imread(str(file)), np.uint8)
        frame = Frame(pixels, "camera", number, number, file.stem)
        for name, side in sides.items():
            said[name][file.stem] = side(frame)
    if spec.task == "detection":
        listed = {name: {stem: _listed(result) for stem, result in by.items()} for name, by in said.items()}
        (book.out / f"{case.name}.json").write_text(json.dumps(listed))
        print({name: sum(len(d["scores"]) for d in by.values()) for name, by in listed.items()}, flush=True)
    else:
        stacks = {name.replace(" ", "_"): np.stack([r.class_ids for r in by.values()]) for name, by in said.items()}
        np.savez_compressed(book.out / f"{case.name}.npz", **stacks)
        print({name: float((stack == stacks["float"]).mean()) for name, stack in stacks.items()}, flush=True)
    for engine in (*engines.values(), reference):
        engine.close()


def behind_the_cpus_work(engine: Engine, spec: ModelSpec) -> Side:
    """Frames prepared and decoded on the CPU, whatever the engine would rather do."""
    way = HostWay(engine, spec, score_threshold=LOW_SCORE)

    def run(frame: Frame) -> Result:
        way.bring(frame.pixels)
        way.infer()
        return way.result()

    return run


def as_pipelines_run(engine: Engine, spec: ModelSpec) -> Side:
    """Frames sent the engine's own way."""
    pipeline = Pipeline(spec, engine, deadline_ns=1 << 60, score_threshold=LOW_SCORE)
    return lambda frame: pipeline.step(frame).result


def _listed(result: Detections) -> dict[str, Any]:
    return {
        "boxes_px": result.boxes_px.tolist(),
        "scores": result.scores.tolist(),
        "class_ids": result.class_ids.tolist(),
    }
