"""Decoding a clip by the GPU's own decoder beside the CPU's, as far as FFmpeg's build and the driver let it."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import av
from av.codec.hwaccel import HWAccel

from scripts.tensorrt_bench.book import Book

TURNS = 3


def decoded_on_the_gpu(clip: Path, book: Book) -> None:
    """Frames a second of both, in turn; the GPU's lie in the host's memory afterwards, as NV12."""
    rates: dict[str, list[float]] = {"the CPU": [], "NVDEC": []}
    try:
        for _ in range(TURNS):
            rates["the CPU"].append(_rate(clip, None))
            rates["NVDEC"].append(_rate(clip, HWAccel("cuda", allow_software_fallback=False)))
    except (av.FFmpegError, RuntimeError) as error:
        print(f"  no NVDEC here: {error}", flush=True)
        return
    book.raw[f"frames a second of {clip.name}, decoded alone"] = rates
    for name, each in rates.items():
        book.row(
            f"{clip.name}: decoded by {name}", median(each), unit="frames a second", samples=TURNS, better="higher"
        )


def _rate(clip: Path, accelerator: HWAccel | None) -> float:
    with av.open(str(clip), hwaccel=accelerator) as container:
        container.streams.video[0].thread_type = "AUTO"
        started, count = time.perf_counter(), 0
        for frame in container.decode(video=0):
            frame.planes[0]
            count += 1
    return count / (time.perf_counter() - started)
