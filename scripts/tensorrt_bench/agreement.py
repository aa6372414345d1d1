"""Detections through the GPU's own way against the same plan behind the CPU's preparation, on every picture."""

from __future__ import annotations

import cv2
import numpy as np

from compile.accuracy import AGREED_SCORE, agreement
from perception.engines.tensorrt import TensorRtEngine
from perception.frame import Frame
from perception.results import Detections
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import Case
from scripts.tensorrt_bench.pictures import as_pipelines_run, behind_the_cpus_work

LEAST = 0.995


def agreed(case: Case, book: Book) -> None:
    """One row for a detector's float plan."""
    engine = TensorRtEngine(case.plan("fp32").read_bytes())
    sides = behind_the_cpus_work(engine, case.spec), as_pipelines_run(engine, case.spec)
    said: tuple[list[Detections], list[Detections]] = ([], [])
    for number, file in enumerate(case.files()):
        frame = Frame(np.asarray(cv2.imread(str(file)), np.uint8), "camera", number, number, file.stem)
        for side, found in zip(sides, said, strict=True):
            found.append(side(frame).at_least(AGREED_SCORE))
    found = agreement(*said)
    words = f"{case.spec.name}, fp32 on the GPU: agrees with the same plan behind the CPU's preparation"
    samples = int(found.reference.sum())
    book.row(words, float(found.share), unit="share", limit=LEAST, samples=samples, better="higher")
    engine.close()
