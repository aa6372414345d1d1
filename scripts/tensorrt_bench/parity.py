"""The frame kernel against OpenCV on random frames of every format, size and interpolation."""

from __future__ import annotations

import cv2
import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from perception.engines.cuda_device import CudaDevice, on_device
from perception.engines.cuda_frame import FrameKernel, FrameLayout, plan_frame
from perception.model_spec import PictureInput
from perception.preprocess import Preprocessor
from scripts.tensorrt_bench.book import Book

SIZES = ((1, 1), (2, 2), (3, 5), (35, 77), (641, 359), (1242, 375), (1920, 1080), (3840, 2160))
FORMATS = ("BGR", "RGB", "NV12", "YUYV")
INTERPOLATIONS = ("linear", "area", "nearest", "cubic")


def kernel_parity(book: Book) -> None:
    """Largest difference in grey levels, before normalisation."""
    device = CudaDevice.acquire()
    worst: dict[str, int] = {}
    rng, compared = np.random.default_rng(7), 0
    for width, height in SIZES:
        for pixel_format in FORMATS:
            for interpolation in INTERPOLATIONS:
                try:
                    layout = FrameLayout(width, height, pixel_format)  # type: ignore[arg-type]
                except ValueError:
                    continue  # an odd side where pixels share their chroma
                key = f"{pixel_format} {interpolation}"
                worst[key] = max(worst.get(key, 0), _difference(layout, interpolation, device, rng))
                compared += 1
    device.release()
    book.raw["kernel against OpenCV, grey levels"] = worst
    words = "frame kernel against OpenCV, largest difference before normalisation"
    book.row(words, max(worst.values()), unit="grey levels", limit=1, samples=compared)


def _difference(layout: FrameLayout, interpolation: str, device: CudaDevice, rng: np.random.Generator) -> int:
    picture = PictureInput(
        tensor="x", width_px=416, height_px=320, dtype="uint8", resize="letterbox_centre", pad_value=114,
        interpolation=interpolation, colour="RGB", layout="NHWC",
    )  # fmt: skip
    noise = rng.integers(0, 256, layout.shape, np.uint8)
    with device.current("comparing"):
        kernel = FrameKernel(plan_frame(layout, picture), layout, device)
        stream, frame = cuda.Stream(), on_device(noise)
        tensor = on_device(np.zeros(picture.shape, np.uint8))
        kernel.enqueue(int(frame), int(tensor), stream)
        stream.synchronize()
        got = np.empty(picture.shape, np.uint8)
        cuda.memcpy_dtoh(got, tensor)
    expected = Preprocessor(picture).prepare(_bgr_of(noise, layout)).feeds["x"]
    return int(np.abs(got.astype(int) - expected.astype(int)).max())


def _bgr_of(frame: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.uint8]:
    codes = {"RGB": cv2.COLOR_RGB2BGR, "NV12": cv2.COLOR_YUV2BGR_NV12, "YUYV": cv2.COLOR_YUV2BGR_YUYV}
    if layout.pixel_format == "BGR":
        return frame
    return np.asarray(cv2.cvtColor(frame, codes[layout.pixel_format]), np.uint8)
