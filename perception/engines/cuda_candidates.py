"""YOLOX's raw rows to candidate boxes on the GPU: only what may become a detection is copied to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycuda.driver as cuda

from perception.decoders.boxes import Candidates, grid, level_shapes
from perception.decoders.decoder import can_be
from perception.engines.cuda_device import CudaDevice, on_device, pinned
from perception.engines.tensorrt_lane import Lane
from perception.errors import EngineError, SpecError
from perception.model_spec import ModelSpec

ROOM = 1024  # candidates; the host's suppression would already miss any camera's deadline with more
_HEADER, _WIDTH = 2, 8  # (count, bad values) before rows of x1 y1 x2 y2 score class row unused

# A warp a row. The order in which rows arrive is the GPU's; the host sorts them by row, as its own decoder has them.
SOURCE = r"""
extern "C" __global__ void candidates_of_rows(
    const float* __restrict__ rows, const float* __restrict__ cells, float threshold, int* __restrict__ header,
    float* __restrict__ found)
{
    const int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= ROWS) return;
    const float* values = rows + (size_t)row * (5 + CLASSES);
    float best = -1.f;
    int best_class = 0, bad = 0;
    for (int column = lane; column < 5 + CLASSES; column += 32) {
        const float value = values[column];
        bad += !isfinite(value);
        if (column >= 5 && value > best) {
            best = value;
            best_class = column - 5;
        }
    }
    for (int distance = 16; distance; distance /= 2) {
        const float other = __shfl_down_sync(0xffffffffu, best, distance);
        const int other_class = __shfl_down_sync(0xffffffffu, best_class, distance);
        bad += __shfl_down_sync(0xffffffffu, bad, distance);
        if (other > best || (other == best && other_class < best_class)) {
            best = other;
            best_class = other_class;
        }
    }
    if (lane) return;
    if (bad) atomicAdd(header + 1, bad);
    const float score = values[4] * best;
    if (!(score >= threshold)) return;
    const int place = atomicAdd(header, 1);
    if (place >= ROOM) return;
    const float* cell = cells + row * 3;
    const float stride = cell[2];
    const float x = DECODED ? values[0] : (values[0] + cell[0]) * stride;
    const float y = DECODED ? values[1] : (values[1] + cell[1]) * stride;
    const float half_width = (DECODED ? values[2] : expf(values[2]) * stride) * .5f;
    const float half_height = (DECODED ? values[3] : expf(values[3]) * stride) * .5f;
    float* out = found + place * 8;
    out[0] = x - half_width;
    out[1] = y - half_height;
    out[2] = x + half_width;
    out[3] = y + half_height;
    out[4] = score;
    out[5] = (float)best_class;
    out[6] = (float)row;
}
"""


class YoloxCandidates:
    """The kernel behind a network whose decoder is `yolox`. Made and used inside the device's context."""

    def __init__(self, spec: ModelSpec, lane: Lane, device: CudaDevice, score_threshold: float) -> None:
        """Compile, upload the grid and allocate the answer.

        Raises:
            SpecError: another decoder, or an output that is not float32 of the shape the spec asks for.
        """
        if spec.decoding.decoder != "yolox":
            raise SpecError(
                f"{spec.name}: decoder {spec.decoding.decoder} has no GPU kernel, expected yolox; use infer"
            )
        shapes = level_shapes(spec)
        counts = [columns * rows for columns, rows in shapes]
        tensor = lane.answers[spec.decoding.tensors["output"]]
        expected = (1, sum(counts), 5 + len(spec.classes))
        if not can_be(tensor.shape, expected) or tensor.dtype != np.float32:
            raise SpecError(
                f"{spec.name}: output is {tensor.dtype} {list(tensor.shape)}, expected float32 {list(expected)}"
            )
        self._rows = lane.addresses[spec.decoding.tensors["output"]]
        cells = np.concatenate([grid(columns, rows) for columns, rows in shapes])
        strides = np.repeat(np.array(spec.decoding.strides_px, np.float32), counts)[:, None]
        self._cells = on_device(np.concatenate((cells, strides), axis=1).astype(np.float32))
        self._threshold = np.float32(score_threshold)
        constants = {"ROWS": expected[1], "CLASSES": len(spec.classes), "ROOM": ROOM}
        constants["DECODED"] = int(bool(spec.decoding.options.get("decoded", False)))
        defines = "".join(f"#define {name} {value}\n" for name, value in constants.items())
        self._function = device.kernel(defines + SOURCE, "candidates_of_rows", "PPfPP")
        self._blocks = -(-expected[1] * 32 // 256)
        self._answer = pinned((_HEADER + ROOM * _WIDTH,), "float32")
        self._header = self._answer[:_HEADER].view(np.int32)
        self._found = self._answer[_HEADER:].reshape(ROOM, _WIDTH)
        self._memory = cuda.mem_alloc(self._answer.nbytes)

    def enqueue(self, stream: Any) -> None:  # noqa: ANN401  (PyCUDA is untyped)
        """Put the kernel and the copy of its answer on the stream."""
        address = int(self._memory)
        cuda.memset_d32_async(address, 0, _HEADER, stream)
        found = address + 4 * _HEADER
        self._function.prepared_async_call(
            (self._blocks, 1), (256, 1, 1), stream, self._rows, int(self._cells), self._threshold, address, found
        )
        cuda.memcpy_dtoh_async(self._answer, address, stream)

    def read(self) -> Candidates:
        """The candidates of the frame that just finished, in the order of the network's rows.

        Raises:
            EngineError: NaN or infinity came out, or more candidates than there is room for.
        """
        count, bad = self._header.tolist()
        if bad:
            raise EngineError(
                f"network output: {bad} values are NaN or infinite; no result is given for this frame: check the "
                "model's precision and its input"
            )
        if count > ROOM:
            raise EngineError(f"network output: {count} candidates, room for {ROOM}; raise the score threshold")
        found = self._found[:count]
        found = found[found[:, 6].argsort()]
        return Candidates(found[:, :4], found[:, 4], found[:, 5].astype(np.int32))
