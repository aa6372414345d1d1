"""Where the slowest frames lose their time: each stage of the host and the GPU's own time, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from perception.engines.lending import Pixels
from perception.engines.tensorrt_frames import FramePath

GPU_FRAMES, STAGED_FRAMES = 5_000, 20_000
STAGES = ("launch", "wait", "read and suppress")
SLOWEST_SHARE = 0.001
TOLD = 40


def staged(path: FramePath, pixels: Pixels, *, count: int = STAGED_FRAMES) -> dict[str, Any]:
    """Percentiles of each stage, and what the slowest frames spent more of than the median frame.

    Returns:
        `samples`; `stages_us`: stage → percentiles; `slowest`: stage → mean µs over that stage's median among the
        slowest 0.1 % of all frames; `slowest_at_ms`: when the first of them came, since the start.
    """
    marks_ns = np.zeros((count, len(STAGES) + 1), np.int64)
    now = time.perf_counter_ns
    for row in marks_ns:
        begun_ns = now()
        path.start(pixels)
        launched_ns = now()
        path.wait()
        waited_ns = now()
        path.detections()
        row[:] = begun_ns, launched_ns, waited_ns, now()
    stages_us = np.diff(marks_ns, axis=1) / 1e3
    totals_us = stages_us.sum(axis=1)
    slowest = np.flatnonzero(totals_us >= np.quantile(totals_us, 1 - SLOWEST_SHARE))
    beyond_us = (stages_us[slowest] - np.median(stages_us, axis=0)).mean(axis=0)
    at_ms = (marks_ns[slowest, 0] - marks_ns[0, 0]) / 1e6
    return {
        "samples": count,
        "stages_us": {name: spread(column) for name, column in zip(STAGES, stages_us.T, strict=True)},
        "slowest": {name: round(float(mean_us), 1) for name, mean_us in zip(STAGES, beyond_us, strict=True)},
        "slowest_at_ms": [round(float(each), 1) for each in at_ms[:TOLD]],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Percentiles of a column."""
    return {f"p{share:g}": float(np.percentile(values, share)) for share in (0, 50, 99, 99.9, 100)}
