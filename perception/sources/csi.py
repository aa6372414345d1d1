"""CSI cameras of a Jetson through GStreamer's `nvarguscamerasrc`, in a process of its own.

The pipeline is NVIDIA's (Jetson Linux Developer Guide, Accelerated GStreamer, camera capture), ended by a pipe that
carries raw BGR. A capture daemon that crashes takes its process along and not the runtime: to the reader that is a gap.
The queue before the pipe drops what is not read, so a picture waits for one other at most. `captured_ns` is when
it arrived.

Untested on hardware; everything but `nvarguscamerasrc` and `nvvidconv` is tested with GStreamer's test picture.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.sources.live import Shot, now_ns

READ_TIMEOUT_S = 5.0
"""How long a picture may fail to come before the camera counts as gone; the capture daemon takes seconds to start."""

_LAUNCH = "gst-launch-1.0"
_END_S = 2.0


@dataclass(frozen=True, slots=True)
class Mode:
    """What is asked of a camera."""

    width_px: int = 1280
    height_px: int = 720
    rate_hz: int = 30


def argus(sensor_id: int, mode: Mode) -> tuple[str, ...]:
    """The elements that read a CSI sensor."""
    size = f"width={mode.width_px},height={mode.height_px},framerate={mode.rate_hz}/1"
    return (
        *("nvarguscamerasrc", f"sensor-id={sensor_id}"),
        *("!", f"video/x-raw(memory:NVMM),format=NV12,{size}"),
        *("!", "nvvidconv"),
        *("!", "video/x-raw,format=BGRx"),
    )


def open_gstreamer(source: Sequence[str], mode: Mode, *, where: str) -> Generator[Shot]:
    """The pictures that GStreamer elements give, as they come.

    Args:
        source: elements as `gst-launch-1.0` takes them, without what converts and carries their pictures.
        mode: the size of their pictures.
        where: the camera, for errors.

    Raises:
        SourceError: GStreamer is missing, refuses the pipeline, or gives no more pictures.
    """
    if shutil.which(_LAUNCH) is None:
        raise SourceError(f"{where}: {_LAUNCH} is not installed; run: sudo apt install gstreamer1.0-tools")
    size = f"width={mode.width_px},height={mode.height_px}"
    carried = ("!", "videoconvert", "!", f"video/x-raw,format=BGR,{size}")
    newest = ("!", "queue", "leaky=downstream", "max-size-buffers=1", "max-size-bytes=0", "max-size-time=0")
    with tempfile.TemporaryFile() as complaints:
        command = [_LAUNCH, "--quiet", *source, *carried, *newest, "!", "fdsink", "fd=1", "sync=false"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, stdin=subprocess.DEVNULL)
        try:
            yield from _shots(process, mode)
        finally:
            _end(process)
        raise SourceError(f"{where}: gives no more pictures ({_last_line(complaints)}); check the camera and its cable")


def _shots(process: subprocess.Popen[bytes], mode: Mode) -> Generator[Shot]:
    """Until a picture fails to come."""
    row_bytes = -(-3 * mode.width_px // 4) * 4  # GStreamer pads rows to four bytes
    while (content := _read(process, row_bytes * mode.height_px)) is not None:
        rows = content.reshape(mode.height_px, row_bytes)[:, : 3 * mode.width_px]
        pixels = rows.reshape(mode.height_px, mode.width_px, 3)
        pixels.flags.writeable = False
        yield Shot(pixels, now_ns())


def _read(process: subprocess.Popen[bytes], size: int) -> NDArray[np.uint8] | None:
    """One picture's bytes; None where they do not come."""
    pipe = process.stdout
    if pipe is None:
        raise ValueError("the process was started without a pipe")
    content = np.empty(size, np.uint8)
    view, filled = content.data, 0
    while filled < size:
        ready, _, _ = select.select([pipe], [], [], READ_TIMEOUT_S)
        count = os.readv(pipe.fileno(), [view[filled:]]) if ready else 0
        if count == 0:
            return None
        filled += count
    return content


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines or ["no reason given"])[-1]
