"""Uncompressed pictures as robots record them: an encoding's name, bytes, and how they become BGR.

Names and layouts are those of ROS `sensor_msgs/image_encodings` and of foxglove `RawImage`; where the two name one
layout twice, both names stand here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError

_EIGHT_OF_SIXTEEN_BITS = 255 / 65535


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pixels lie in memory.

    Attributes:
        samples: numbers a pixel has in a row.
        bits: of a number; 16-bit pictures use the whole range, 65535 is white.
        conversion: OpenCV's code to BGR; None where they are BGR.
        rows: rows in memory for each row of the picture; planes of colour make it more than 1.
    """

    samples: int
    bits: int
    conversion: int | None
    rows: Fraction = Fraction(1)


def _bayer(bits: int) -> dict[str, Encoding]:
    return {
        f"bayer_rggb{bits}": Encoding(1, bits, cv2.COLOR_BayerRGGB2BGR),
        f"bayer_bggr{bits}": Encoding(1, bits, cv2.COLOR_BayerBGGR2BGR),
        f"bayer_gbrg{bits}": Encoding(1, bits, cv2.COLOR_BayerGBRG2BGR),
        f"bayer_grbg{bits}": Encoding(1, bits, cv2.COLOR_BayerGRBG2BGR),
    }


_BGR8, _MONO8 = Encoding(3, 8, None), Encoding(1, 8, cv2.COLOR_GRAY2BGR)
_UYVY, _YUY2 = Encoding(2, 8, cv2.COLOR_YUV2BGR_UYVY), Encoding(2, 8, cv2.COLOR_YUV2BGR_YUY2)

ENCODINGS: dict[str, Encoding] = {
    "bgr8": _BGR8,
    "8UC3": _BGR8,
    "rgb8": Encoding(3, 8, cv2.COLOR_RGB2BGR),
    "bgra8": Encoding(4, 8, cv2.COLOR_BGRA2BGR),
    "rgba8": Encoding(4, 8, cv2.COLOR_RGBA2BGR),
    "mono8": _MONO8,
    "8UC1": _MONO8,
    "bgr16": Encoding(3, 16, None),
    "rgb16": Encoding(3, 16, cv2.COLOR_RGB2BGR),
    "bgra16": Encoding(4, 16, cv2.COLOR_BGRA2BGR),
    "rgba16": Encoding(4, 16, cv2.COLOR_RGBA2BGR),
    "mono16": Encoding(1, 16, cv2.COLOR_GRAY2BGR),
    **_bayer(8),
    **_bayer(16),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUY2,
    "yuyv": _YUY2,
    "nv12": Encoding(1, 8, cv2.COLOR_YUV2BGR_NV12, Fraction(3, 2)),
    "nv21": Encoding(1, 8, cv2.COLOR_YUV2BGR_NV21, Fraction(3, 2)),
}


@dataclass(frozen=True, slots=True)
class RawPicture:
    """One uncompressed picture.

    Attributes:
        width_px: width in pixels.
        height_px: height in pixels.
        encoding: name in `ENCODINGS`.
        step_bytes: from the start of one row to the start of the next.
        content: `step_bytes` for each row.
        big_endian: byte order of 16-bit numbers.
    """

    width_px: int
    height_px: int
    encoding: str
    step_bytes: int
    content: bytes | memoryview | NDArray[np.uint8]
    big_endian: bool = False

    def pixels(self, *, where: str) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR, read-only; a view of `content` where that is BGR already.

        YUV follows BT.601 of limited range, as ROS has it. Bayer patterns are interpolated bilinearly.

        Raises:
            SourceError: an encoding that is no camera picture, or a content that is no such picture.
        """
        encoding = self._encoding(where)
        samples = self._samples(encoding, where)
        try:
            pixels = samples if encoding.conversion is None else cv2.cvtColor(samples, encoding.conversion)
        except cv2.error as error:
            raise SourceError(
                f"{where}: {self.width_px}x{self.height_px} px of {self.encoding} cannot be converted to BGR "
                f"({error.err}); YUV wants an even size: record it so, or as bgr8"
            ) from error
        if encoding.bits == 16:
            pixels = cv2.convertScaleAbs(pixels, alpha=_EIGHT_OF_SIXTEEN_BITS)
        colours: NDArray[np.uint8] = np.asarray(pixels, np.uint8)
        colours.flags.writeable = False
        return colours

    def _encoding(self, where: str) -> Encoding:
        if self.encoding not in ENCODINGS:
            raise SourceError(
                f"{where}: got encoding {self.encoding!r}, expected a camera picture ({', '.join(ENCODINGS)}); "
                "name the cameras you want with --camera, or convert this one"
            )
        return ENCODINGS[self.encoding]

    def _samples(self, encoding: Encoding, where: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """(rows, W, samples) as they lie in memory, padding left out; one sample a pixel has no third axis."""
        rows, row_bytes = int(self.height_px * encoding.rows), self.width_px * encoding.samples * encoding.bits // 8
        content = np.frombuffer(self.content, np.uint8)
        if min(rows, row_bytes) < 1 or self.step_bytes < row_bytes or content.size < rows * self.step_bytes:
            raise SourceError(
                f"{where}: got {content.size} bytes in steps of {self.step_bytes} for {self.width_px}x{self.height_px} "
                f"px of {self.encoding}, expected {rows} rows of at least {row_bytes} bytes; record it anew"
            )
        lines = content[: rows * self.step_bytes].reshape(rows, self.step_bytes)[:, :row_bytes]
        order = ">" if self.big_endian else "<"
        numbers = lines.view(f"{order}u{encoding.bits // 8}").astype(f"=u{encoding.bits // 8}", copy=False)
        shape = (rows, self.width_px, encoding.samples)
        return numbers.reshape(shape[: 3 if encoding.samples > 1 else 2])
