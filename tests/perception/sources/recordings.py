"""Recordings made for the tests: real files, written by the libraries that cameras and people use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX, RATE_HZ = 160, 96, 25
_TICK = Fraction(1, 1000)


def picture(index: int, *, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """A textured ground that moves, and bars that spell the index: see `index_of`."""
    rng = np.random.default_rng(3)
    ground = cv2.GaussianBlur(rng.integers(60, 200, (height_px + 200, width_px + 400, 3), np.uint8), (0, 0), 1.5)
    pixels = np.ascontiguousarray(ground[index % 200 :, 3 * index % 400 :][:height_px, :width_px])
    for bit in range(8):
        pixels[:16, bit * 16 : bit * 16 + 16] = 255 * (index >> bit & 1)
    return pixels


def index_of(pixels: NDArray[np.uint8]) -> int:
    """The index that `picture` spelt, read back from a decoded frame."""
    return sum(int(pixels[4:12, bit * 16 + 4 : bit * 16 + 12].mean() > 127) << bit for bit in range(8))


@dataclass(frozen=True)
class Coding:
    """How a video is written."""

    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    frames_between_keys: int = 12
    options: tuple[tuple[str, str], ...] = ()
    container_options: tuple[tuple[str, str], ...] = ()


H264, MJPEG, MPEG4 = Coding(), Coding("mjpeg", "yuvj420p"), Coding("mpeg4")
HEVC = Coding("libx265", options=(("x265-params", "log-level=none"),))


def write_video(path: Path, count: int, *, coding: Coding = H264, times_ms: Sequence[int] | None = None) -> Path:
    """`count` pictures, evenly at RATE_HZ or at `times_ms`."""
    with av.open(str(path), "w", options=dict(coding.container_options)) as container:
        stream = container.add_stream(coding.codec, rate=RATE_HZ, options=dict(coding.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, coding.pixel_format
        stream.codec_context.gop_size = coding.frames_between_keys
        if times_ms is not None:
            stream.codec_context.time_base = _TICK
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packet_span(path: Path, index: int) -> tuple[int, int]:
    """First byte and size of the `index`-th video packet in the file."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return packets[index].pos, packets[index].size


def overwrite(path: Path, start: int, content: bytes) -> None:
    """Damage a file in place."""
    whole = bytearray(path.read_bytes())
    whole[start : start + len(content)] = content
    path.write_bytes(whole)


def write_pictures(folder: Path, names: Sequence[str]) -> Path:
    """One picture a name, spelling its position in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), picture(index))
    return folder


def write_kitti(folder: Path, cameras: dict[str, Sequence[str]]) -> Path:
    """A KITTI raw drive: camera folder → lines of timestamps.txt, one picture a line."""
    for camera, stamps in cameras.items():
        write_pictures(folder / camera / "data", [f"{index:010d}.png" for index in range(len(stamps))])
        (folder / camera / "timestamps.txt").write_text("".join(f"{stamp}\n" for stamp in stamps))
    return folder


def write_drive(folder: Path, cameras: dict[str, Sequence[int]], **fields: object) -> Path:
    """A recorded drive: camera → captured_ns of each picture; `fields` replace those of drive.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for camera, stamps in cameras.items():
        write_video(folder / f"{camera}.mp4", len(stamps))
        rows = "".join(f"{index},{stamp}\n" for index, stamp in enumerate(stamps))
        (folder / f"{camera}.timestamps.csv").write_text(f"frame_id,captured_ns\n{rows}")
        entries.append(
            {
                "camera_id": camera,
                "video": f"{camera}.mp4",
                "timestamps": f"{camera}.timestamps.csv",
                "width": WIDTH_PX,
                "height": HEIGHT_PX,
                "fps_hz": RATE_HZ,
            }
        )
    whole = {"format": "tollgate-drive/1", "name": "test drive", "licence": "Apache-2.0", "cameras": entries} | fields
    (folder / "drive.yaml").write_text(yaml.safe_dump(whole))
    return folder
