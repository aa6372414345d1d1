"""Every picture through float ONNX Runtime, through the plans behind the CPU's work, and all the way on the GPU."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.decode import open_decoder
from perception.engines.cuda_frame import FrameLayout
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.engines.tensorrt import TensorRtEngine
from perception.engines.tensorrt_frames import FramePath
from perception.frame import Frame
from perception.pipeline import Pipeline
from perception.results import Detections, Result
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case

LOW_SCORE = 0.02
THREADS = 8


def through_everything(case: Case, book: Book) -> None:
    """Write what each side says of every picture, to be graded where the labels are."""
    spec = case.spec
    reference = OnnxRuntimeEngine(case.model("fp32").read_bytes(), threads=THREADS)
    engines = {name: TensorRtEngine(case.plan(name).read_bytes()) for name in case.built()}
    sides = {
        name: Pipeline(spec, engine, deadline_ns=1 << 60, score_threshold=LOW_SCORE) for name, engine in engines.items()
    }
    sides["float"] = Pipeline(spec, reference, deadline_ns=1 << 60, score_threshold=LOW_SCORE)
    whole = {name: OnGpu(case, engine) for name, engine in engines.items()}
    said: dict[str, dict[str, Any]] = {name: {} for name in (*sides, *(f"{name} on the GPU" for name in whole))}
    for number, file in enumerate(case.files()):
        pixels = np.asarray(cv2.imread(str(file)), np.uint8)
        frame = Frame(pixels, "camera", number, number, file.stem)
        for name, pipeline in sides.items():
            said[name][file.stem] = pipeline.step(frame).result
        for name, path in whole.items():
            said[f"{name} on the GPU"][file.stem] = path(pixels)
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


class OnGpu:
    """Pictures of any size through one engine, prepared on the GPU; a path for each size."""

    def __init__(self, case: Case, engine: TensorRtEngine) -> None:
        self._spec, self._engine = case.spec, engine
        self._decoder = open_decoder(case.spec, engine.outputs)
        self._kernel = case.spec.decoding.decoder == "yolox"
        self._paths: dict[tuple[int, ...], FramePath] = {}

    def __call__(self, pixels: NDArray[np.uint8]) -> Result:
        """What the network says of a picture."""
        path = self._paths.get(pixels.shape)
        if path is None:
            layout = FrameLayout(pixels.shape[1], pixels.shape[0])
            threshold = LOW_SCORE if self._kernel else None
            path = self._paths[pixels.shape] = FramePath(
                self._engine, self._spec, layout, buffers=1, score_threshold=threshold
            )
        buffer = path.lend()
        buffer[...] = pixels
        try:
            if self._kernel:
                return path.detect(buffer)
            size_px = (pixels.shape[1], pixels.shape[0])
            return self._decoder(path.infer(buffer), path.geometry, size_px, LOW_SCORE)
        finally:
            path.give_back(buffer)


def _listed(result: Detections) -> dict[str, Any]:
    return {
        "boxes_px": result.boxes_px.tolist(),
        "scores": result.scores.tolist(),
        "class_ids": result.class_ids.tolist(),
    }
