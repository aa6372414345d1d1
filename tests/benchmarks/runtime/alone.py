"""The pipeline beside the bare engine, decoding, the plain script and a peer: same model, same video, same threads."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from perception.bench import compare, held_frames
from perception.pipeline import Pipeline, open_pipeline
from perception.runtime import replay
from perception.sources.table import open_source
from tests.benchmarks.plain_script import yolox_on_video
from tests.benchmarks.results import row
from tests.benchmarks.runtime.material import CLIP_720P, SHARED, float_package

COMMAND = "make bench-runtime"
THREADS = 2
WHERE = f"YOLOX-nano 416 float32, 1280×720 H.264, threads {THREADS}"


def overhead(folder: Path, minutes: float) -> list[dict[str, Any]]:
    """Median of the whole pipeline over the median of the bare engine, turn by turn."""
    package = float_package(folder / "yolox", "yolox_nano_416", deadline_ms=100)
    source = open_source(CLIP_720P)
    frames = held_frames(source)
    source.close()
    samples = max(200, int(minutes * 60 / 0.03))
    with open_pipeline(package, threads=THREADS) as pipeline:
        sides = compare(pipeline, frames, samples=samples, on_sample=lambda: None)
    return [
        _row(f"bare engine p50; {WHERE}", sides.engine.percentile_ns(50) / 1e6, "ms", samples),
        _row(f"pipeline p50, pixels to boxes; {WHERE}", sides.pipeline.percentile_ns(50) / 1e6, "ms", samples),
        _row(f"pipeline p50 over bare inference; {WHERE}", 1 + sides.overhead, "ratio", samples, limit=1.08),
    ]


def throughput(folder: Path, minutes: float, *, peer_python: Path | None) -> list[dict[str, Any]]:
    """Whole passes over one video in turn: decoding alone, inference alone, replay, the script, the peer.

    Every side has the same threads for its network: replay as lanes of one thread each, and once more as one engine.
    """
    package = float_package(folder / "yolox", "yolox_nano_416", deadline_ms=1000)
    model = SHARED / "models" / "yolox_nano_416.onnx"
    source = open_source(CLIP_720P)
    frames = list(source.frames())
    source.close()
    rounds = max(3, int(minutes * 60 / 3))
    sides: dict[str, list[float]] = {}
    with ExitStack() as opened:
        pipeline = opened.enter_context(open_pipeline(package, threads=THREADS))
        lanes = [opened.enter_context(open_pipeline(package, threads=1)) for _ in range(THREADS)]
        tensors = [{name: array.copy() for name, array in pipeline.prepare(frame).items()} for frame in frames]
        jobs: dict[str, Callable[[], object]] = {
            "decode": _decoded,
            "infer": lambda: [pipeline.engine.infer(tensor) for tensor in tensors],
            "replay": lambda: _replayed(lanes),
            "replay one by one": lambda: _replayed([pipeline]),
            "script": lambda: yolox_on_video(model, CLIP_720P, input_size=(416, 416), threads=THREADS),
        }
        for turn in range(rounds + 1):
            for name, job in jobs.items():
                started = time.perf_counter()
                job()
                if turn:
                    sides.setdefault(name, []).append(time.perf_counter() - started)
            if peer_python is not None and turn:
                sides.setdefault("peer", []).extend(_peer(peer_python, model))
    return _throughput_rows({name: median(seconds) for name, seconds in sides.items()}, len(frames), rounds)


def _throughput_rows(seconds: dict[str, float], frames: int, rounds: int) -> list[dict[str, Any]]:
    rows = [
        _row(f"{name}: frames per second; {WHERE}", frames / spent, "fps", rounds, better="higher")
        for name, spent in seconds.items()
    ]
    share = max(seconds["decode"], seconds["infer"]) / seconds["replay"]
    rows.append(
        _row(
            f"replay, share of the slower of decode and inference alone; {WHERE}", share, "ratio", rounds, 0.9, "higher"
        )
    )
    for name, limit in (("script", 1.3), ("peer", 1.0)):
        if name in seconds:
            ratio = seconds[name] / seconds["replay"]
            rows.append(_row(f"replay over {name}, frames per second; {WHERE}", ratio, "×", rounds, limit, "higher"))
    return rows


def _decoded() -> int:
    source = open_source(CLIP_720P)
    count = sum(1 for _ in source.frames())
    source.close()
    return count


def _replayed(lanes: Sequence[Pipeline]) -> None:
    source = open_source(CLIP_720P)
    replay(lanes[0], source, sinks=[], on_frame=lambda _: None, beside=lanes[1:])
    source.close()


def _peer(python: Path, model: Path) -> list[float]:
    script = Path(__file__).with_name("peer_model_api.py")
    command = [str(python), str(script), str(model), str(CLIP_720P), str(THREADS), "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def _row(
    name: str, value: float, unit: str, samples: int, limit: float | None = None, better: str = "lower"
) -> dict[str, Any]:
    return row(name, value, limit=limit, unit=unit, better=better, samples=samples, command=COMMAND)
