"""From a camera's bytes to the network's tensor on the GPU, in one kernel.

The same steps as `perception.preprocess`: resize by its rules, round to whole grey levels, then look each value
up in the table of what it becomes. Weights and table are made on the host, so every interpolation, colour order,
normalisation and tensor type runs through the same few lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.engines.resize_taps import Taps, is_by_swscale, is_mean, resize_taps
from perception.geometry import RESIZES, Geometry
from perception.model_spec import PictureInput

PixelFormat: TypeAlias = Literal["BGR", "RGB", "NV12", "YUYV"]

_BLOCK = (32, 8, 1)
_STORED_AS = {
    "float32": ("float", "float32"),
    "float16": ("unsigned short", "uint16"),
    "uint8": ("unsigned char", "uint8"),
}

# YUV is BT.601 of limited range in 20-bit fixed point, chroma not interpolated: what OpenCV's cvtColor does.
# Source: opencv/opencv `modules/imgproc/src/color_yuv.simd.hpp`.
SOURCE = r"""
struct Pixel { int b, g, r; };

__device__ inline int byte_of(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

__device__ inline Pixel from_yuv(int y, int u, int v)
{
    const int round = 1 << 19, luma = (y > 16 ? y - 16 : 0) * 1220542;
    u -= 128;
    v -= 128;
    Pixel pixel;
    pixel.b = byte_of((luma + round + 2116026 * u) >> 20);
    pixel.g = byte_of((luma + round - 852492 * v - 409993 * u) >> 20);
    pixel.r = byte_of((luma + round + 1673527 * v) >> 20);
    return pixel;
}

__device__ inline Pixel fetch(const unsigned char* __restrict__ frame, int x, int y, int width, int height)
{
#if FORMAT_YUYV
    const unsigned char* pair = frame + ((size_t)y * width + (x & ~1)) * 2;
    return from_yuv(pair[(x & 1) * 2], pair[1], pair[3]);
#elif FORMAT_NV12
    const unsigned char* chroma = frame + (size_t)(height + y / 2) * width + (x & ~1);
    return from_yuv(frame[(size_t)y * width + x], chroma[0], chroma[1]);
#else
    const unsigned char* at = frame + ((size_t)y * width + x) * 3;
    Pixel pixel;
    pixel.b = at[FORMAT_RGB ? 2 : 0];
    pixel.g = at[1];
    pixel.r = at[FORMAT_RGB ? 0 : 2];
    return pixel;
#endif
}

__device__ inline int within(int index, int size) { return index < 0 ? 0 : index >= size ? size - 1 : index; }

// The CPU's arithmetic, OpenCV's. Linear: fixed point, 11 bits a weight, digits dropped where it drops them. Area by
// whole numbers: integer sums. Area otherwise: float, each product rounded before it is added. Else: float, near it.
// Source: opencv/opencv `modules/imgproc/src/resize.cpp`, VResizeLinear for uchar, resizeAreaFast_, ResizeArea_.
// And libswscale's, where the CPU shrinks by it: 14 bits a weight along x and 12 along y, 15 bits between them.
// Source: FFmpeg `libswscale/swscale.c`, hScale8To15_c, and `libswscale/output.c`, yuv2planeX_8_c.
#if LINEAR
typedef int Sum;
__device__ inline Sum weight_of(float weight) { return (int)rintf(weight * 2048.f); }
__device__ inline Sum times(Sum weight, int value) { return weight * value; }
__device__ inline Sum of_row(Sum weight, Sum sum) { return (weight * (sum >> 4)) >> 16; }
__device__ inline int level(Sum value) { return byte_of((value + 2) >> 2); }
#elif BY_SWSCALE
typedef int Sum;
__device__ inline Sum weight_of(float weight) { return (int)rintf(weight * 16384.f); }
__device__ inline Sum times(Sum weight, int value) { return weight * value; }
__device__ inline Sum of_row(Sum weight, Sum sum) { return weight * (sum >> 7); }
__device__ inline int level(Sum value) { return byte_of((value + (1 << 20)) >> 21); }
#elif MEAN
typedef int Sum;
__device__ inline Sum weight_of(float) { return 1; }
__device__ inline Sum times(Sum, int value) { return value; }
__device__ inline Sum of_row(Sum, Sum sum) { return sum; }
__device__ inline int level(Sum value)
{
    if (TAPS_X == 2 && TAPS_Y == 2) return (value + 2) >> 2;
    return byte_of((int)rintf(__fmul_rn((float)value, 1.f / (TAPS_X * TAPS_Y))));
}
#else
typedef float Sum;
__device__ inline Sum weight_of(float weight) { return weight; }
__device__ inline Sum times(Sum weight, int value) { return __fmul_rn(weight, (float)value); }
__device__ inline Sum of_row(Sum weight, Sum sum) { return __fmul_rn(weight, sum); }
__device__ inline int level(Sum value) { return byte_of((int)rintf(value)); }
#endif

extern "C" __global__ void tensor_from_frame(
    const unsigned char* __restrict__ frame, STORED* __restrict__ tensor,
    const int* __restrict__ first_x, const float* __restrict__ weights_x,
    const int* __restrict__ first_y, const float* __restrict__ weights_y,
    const STORED* __restrict__ table, int width, int height)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= NETWORK_WIDTH || y >= NETWORK_HEIGHT) return;
    const int column = x - OFFSET_X, row = y - OFFSET_Y;
    int b = PAD_VALUE, g = PAD_VALUE, r = PAD_VALUE;
    if (column >= 0 && row >= 0 && column < CONTENT_WIDTH && row < CONTENT_HEIGHT) {
        Sum sum_b = 0, sum_g = 0, sum_r = 0;
        for (int j = 0; j < TAPS_Y; ++j) {
            const Sum weight_y = weight_of(weights_y[row * TAPS_Y + j]);
            if (weight_y == 0) continue;
            const int source_y = within(first_y[row] + j, height);
            Sum row_b = 0, row_g = 0, row_r = 0;
            for (int i = 0; i < TAPS_X; ++i) {
                const Sum weight = weight_of(weights_x[column * TAPS_X + i]);
                const Pixel pixel = fetch(frame, within(first_x[column] + i, width), source_y, width, height);
                row_b += times(weight, pixel.b);
                row_g += times(weight, pixel.g);
                row_r += times(weight, pixel.r);
            }
            sum_b += of_row(weight_y, row_b);
            sum_g += of_row(weight_y, row_g);
            sum_r += of_row(weight_y, row_r);
        }
        b = level(sum_b);
        g = level(sum_g);
        r = level(sum_r);
    }
    const STORED values[3] = {table[(TENSOR_RGB ? r : b) * 3], table[g * 3 + 1], table[(TENSOR_RGB ? b : r) * 3 + 2]};
    const int cell = y * NETWORK_WIDTH + x;
    for (int channel = 0; channel < 3; ++channel)
        tensor[CHANNELS_LAST ? cell * 3 + channel : channel * NETWORK_WIDTH * NETWORK_HEIGHT + cell] = values[channel];
}
"""


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """What a camera delivers: size and pixel format. NV12 and YUYV want an even width, NV12 an even height too."""

    width_px: int
    height_px: int
    pixel_format: PixelFormat = "BGR"

    def __post_init__(self) -> None:
        """Refuse sizes a format cannot have.

        Raises:
            ValueError: no pixels, or an odd side where chroma is shared.
        """
        odd = (self.width_px % 2 and self.pixel_format in ("NV12", "YUYV")) or (
            self.height_px % 2 and self.pixel_format == "NV12"
        )
        if self.width_px < 1 or self.height_px < 1 or odd:
            raise ValueError(
                f"frame of {self.width_px}×{self.height_px} px {self.pixel_format}: expected at least 1×1, and even "
                "sides where pixels share their chroma"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the uint8 buffer."""
        if self.pixel_format == "NV12":
            return (self.height_px * 3 // 2, self.width_px)
        return (self.height_px, self.width_px, 2 if self.pixel_format == "YUYV" else 3)


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Everything the kernel needs for one camera and one network, made on the host.

    Attributes:
        geometry: where the picture lies inside the network's picture.
        source: the CUDA program with its constants.
        taps_x: columns that make one resized pixel.
        taps_y: rows that make one.
        table: (256, 3), what each grey level becomes in each channel, in the type it is stored as.
        grid: blocks along x and y.
    """

    geometry: Geometry
    source: str
    taps_x: Taps
    taps_y: Taps
    table: NDArray[np.generic]
    grid: tuple[int, int]


def plan_frame(layout: FrameLayout, picture: PictureInput) -> FramePlan:
    """Lay out the kernel's work for frames of one layout."""
    source_size_px = (layout.width_px, layout.height_px)
    geometry = RESIZES[picture.resize](source_size_px, (picture.width_px, picture.height_px))
    content_size_px = (geometry.content_width_px, geometry.content_height_px)
    taps_x, taps_y = resize_taps(source_size_px, content_size_px, picture.interpolation)
    constants = {
        "STORED": _STORED_AS[picture.dtype][0],
        "FORMAT_RGB": int(layout.pixel_format == "RGB"),
        "FORMAT_NV12": int(layout.pixel_format == "NV12"),
        "FORMAT_YUYV": int(layout.pixel_format == "YUYV"),
        "TENSOR_RGB": int(picture.colour == "RGB"),
        "CHANNELS_LAST": int(picture.layout == "NHWC"),
        "NETWORK_WIDTH": picture.width_px,
        "NETWORK_HEIGHT": picture.height_px,
        "CONTENT_WIDTH": geometry.content_width_px,
        "CONTENT_HEIGHT": geometry.content_height_px,
        "OFFSET_X": geometry.offset_x_px,
        "OFFSET_Y": geometry.offset_y_px,
        "PAD_VALUE": picture.pad_value,
        "LINEAR": int(picture.interpolation == "linear"),
        "BY_SWSCALE": int(is_by_swscale(source_size_px, content_size_px, picture.interpolation)),
        "MEAN": int(picture.interpolation == "area" and is_mean(source_size_px, content_size_px)),
        "TAPS_X": taps_x.weights.shape[1],
        "TAPS_Y": taps_y.weights.shape[1],
    }
    defines = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    grid = (-(-picture.width_px // _BLOCK[0]), -(-picture.height_px // _BLOCK[1]))
    return FramePlan(geometry, defines + SOURCE, taps_x, taps_y, _table(picture), grid)


def _table(picture: PictureInput) -> NDArray[np.generic]:
    values = np.arange(256)[:, None]
    table = ((values * picture.scale - picture.mean) / picture.std).astype(picture.dtype)
    return np.ascontiguousarray(table).view(_STORED_AS[picture.dtype][1])


class FrameKernel:
    """The kernel of a plan with its tables on the GPU. Made and used inside the device's context."""

    def __init__(self, plan: FramePlan, layout: FrameLayout, device: Any) -> None:  # noqa: ANN401
        """Compile and upload.

        Args:
            plan: from `plan_frame`.
            layout: of the frames.
            device: a `CudaDevice`; not imported here, so that plans are made without a GPU.

        Raises:
            EngineError: the kernel does not compile.
        """
        from perception.engines.cuda_device import on_device

        self._grid = plan.grid
        self._size_px = (layout.width_px, layout.height_px)
        taps = (plan.taps_x.first, plan.taps_x.weights, plan.taps_y.first, plan.taps_y.weights)
        self._tables = [on_device(array) for array in (*taps, plan.table)]
        self._addresses = [int(table) for table in self._tables]
        self._function = device.kernel(plan.source, "tensor_from_frame", "PPPPPPPii")

    def enqueue(self, frame_address: int, tensor_address: int, stream: Any) -> None:  # noqa: ANN401
        """Put the work on a stream; both addresses are the GPU's."""
        self._function.prepared_async_call(
            self._grid, _BLOCK, stream, frame_address, tensor_address, *self._addresses, *self._size_px
        )
