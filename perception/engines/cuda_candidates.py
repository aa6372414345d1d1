"""YOLOX's raw rows to detections on the GPU: only what was found comes back to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.decoders.boxes import Candidates, Floats, Selection, grid, level_shapes
from perception.engines.cuda_selection import HEADER, ROOM, TOLD, selection_source
from perception.engines.engine import TensorInfo
from perception.errors import EngineError, SpecError
from perception.geometry import Geometry
from perception.model_spec import ModelSpec
from perception.results import Detections

WIDTH = 8  # of a candidate's row: x1 y1 x2 y2 score class key key

# A warp a row. The order in which rows arrive is the GPU's; they are sorted by their key, 64 bits: the best score first
# (the bits of a float that is not negative order as it does), equal scores as the network has them.
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
    const float* cell = cells + row * 3;
    const float stride = cell[2];
    const float x = DECODED ? values[0] : (values[0] + cell[0]) * stride;
    const float y = DECODED ? values[1] : (values[1] + cell[1]) * stride;
    const float half_width = (DECODED ? values[2] : expf(values[2]) * stride) * .5f;
    const float half_height = (DECODED ? values[3] : expf(values[3]) * stride) * .5f;
    if (!isfinite(half_width + half_height)) atomicAdd(header + 1, 1);
    float* out = found + (size_t)place * 8;
    out[0] = x - half_width;
    out[1] = y - half_height;
    out[2] = x + half_width;
    out[3] = y + half_height;
    out[4] = score;
    out[5] = __uint_as_float((unsigned)best_class);
    out[6] = __uint_as_float((unsigned)row);
    out[7] = __uint_as_float(~__float_as_uint(score + 0.f));
}
"""


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """Everything the kernel needs for one network, made on the host.

    Attributes:
        source: the CUDA program with its constants.
        cells: (rows, 3) float32, C-contiguous: x and y index of each row's cell, and its stride in pixels.
        width: values of a row: box, objectness, classes.
    """

    source: str
    cells: Floats
    width: int


def plan_candidates(spec: ModelSpec) -> CandidatePlan:
    """Lay out the kernel's work.

    Raises:
        SpecError: another decoder than `yolox`.
    """
    if spec.decoding.decoder != "yolox":
        raise SpecError(f"{spec.name}: decoder {spec.decoding.decoder} has no GPU kernel, expected yolox; use infer")
    shapes = level_shapes(spec)
    counts = [columns * rows for columns, rows in shapes]
    cells = np.concatenate([grid(columns, rows) for columns, rows in shapes])
    strides_px = np.repeat(np.array(spec.decoding.strides_px, np.float32), counts)[:, None]
    constants = {"ROWS": sum(counts), "CLASSES": len(spec.classes)}
    constants["DECODED"] = int(bool(spec.decoding.options.get("decoded", False)))
    defines = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    placed = np.ascontiguousarray(np.concatenate((cells, strides_px), axis=1), np.float32)
    return CandidatePlan(defines + SOURCE, placed, 5 + len(spec.classes))


def has_kernel(spec: ModelSpec, outputs: Sequence[TensorInfo]) -> bool:
    """Whether the candidates of a network can be found on the GPU."""
    dtypes = {tensor.name: tensor.dtype for tensor in outputs}
    return spec.decoding.decoder == "yolox" and dtypes.get(spec.decoding.tensors["output"]) == "float32"


class Answer:
    """What the selection wrote, as it lies in the host's memory."""

    def __init__(self, memory: Floats) -> None:
        """Look at (ANSWER,) float32, C-contiguous: four int32 counts, boxes, scores, classes."""
        self._counts = memory[:TOLD].view(np.int32)
        boxes, self._scores, classes = np.split(memory[TOLD:], (4 * ROOM, 5 * ROOM))
        self._boxes_px, self._class_ids = boxes.reshape(ROOM, 4), classes.view(np.int32)

    def counts(self) -> tuple[int, int]:
        """How many detections there are, and of how many candidates; beyond `ROOM` nothing was selected.

        Raises:
            EngineError: NaN or infinity came out of the network.
        """
        kept, bad, count, _ = self._counts.tolist()
        if bad:
            raise EngineError(
                f"network output: {bad} values are NaN or infinite; no result is given for this frame: check the "
                "model's precision and its input"
            )
        return kept, count

    def detections(self, kept: int) -> Detections:
        """The first `kept` of them; new arrays."""
        return Detections(self._boxes_px[:kept].copy(), self._scores[:kept].copy(), self._class_ids[:kept].copy())


ANSWER = TOLD + 6 * ROOM


def candidates_of(memory: Floats, count: int) -> Candidates:
    """The first `count` rows of what the candidates' kernel wrote after its header, best score first; new arrays."""
    rows = memory.reshape(-1, WIDTH)[:count]
    found = rows.take(rows.view(np.uint64)[:, 3].argsort(), axis=0)
    return Candidates(found[:, :4], found[:, 4], found.view(np.int32)[:, 5])


class YoloxDetections:
    """The kernels behind a network whose decoder is `yolox`. Made and used inside the device's context."""

    def __init__(
        self,
        spec: ModelSpec,
        lane: Any,  # noqa: ANN401
        device: Any,  # noqa: ANN401
        geometry: Geometry,
        *,
        score_threshold: float,
        number: int = 0,
    ) -> None:
        """Compile, upload the grid and allocate the answer.

        Args:
            spec: of the network.
            lane: the `Lane` it runs on; it and the device are not imported here, so that plans are made without a GPU.
            device: a `CudaDevice`.
            geometry: of the frames.
            score_threshold: rows from this score on are candidates.
            number: which picture of the network's batch.

        Raises:
            SpecError: another decoder, or an output that is not float32 of the shape the spec asks for.
        """
        import pycuda.driver as cuda

        from perception.engines.cuda_device import on_device, pinned

        plan = plan_candidates(spec)
        name = spec.decoding.tensors["output"]
        tensor, expected = lane.answers[name], (len(plan.cells), plan.width)
        if tensor.shape[1:] != expected or number >= len(tensor) or tensor.dtype != np.float32:
            raise SpecError(
                f"{spec.name}: output is {tensor.dtype} {list(tensor.shape)}, expected float32 {[1, *expected]}"
            )
        self._cuda, self._device, self._geometry = cuda, device, geometry
        self._select = Selection(spec.decoding)
        self._threshold = np.float32(score_threshold)
        self._find = device.kernel(plan.source, "candidates_of_rows", "PPfPP")
        self._keep = device.kernel(selection_source(spec.decoding, geometry), "detections_of_candidates", "PPPPPP")
        self._blocks = (-(-len(plan.cells) * 32 // 256), 1)
        self._cells = on_device(plan.cells)
        self._memory = on_device(np.zeros(HEADER + len(plan.cells) * WIDTH, np.float32))
        answer = pinned((ANSWER,), "float32")
        self._answer = Answer(answer)
        header, told = int(self._memory), int(answer.base.get_device_pointer())  # type: ignore[union-attr]
        self._found = header + 4 * HEADER
        rows = lane.addresses[name] + number * tensor[0].nbytes
        self._finds = (rows, int(self._cells), self._threshold, header, self._found)
        self._keeps = (header, self._found, told, *(told + 4 * (TOLD + part * ROOM) for part in (0, 4, 5)))

    def enqueue(self, stream: Any) -> None:  # noqa: ANN401  (PyCUDA is untyped)
        """Put both kernels on the stream; the second writes to the host's memory."""
        self._find.prepared_async_call(self._blocks, (256, 1, 1), stream, *self._finds)
        self._keep.prepared_async_call((1, 1), (ROOM, 1, 1), stream, *self._keeps)

    def read(self) -> Detections:
        """What was found in the frame that just finished; new arrays. Outside the context too.

        Raises:
            EngineError: NaN or infinity came out of the network.
        """
        kept, count = self._answer.counts()
        if count <= ROOM:
            return self._answer.detections(kept)
        candidates = np.empty(count * WIDTH, np.float32)
        with self._device.current("fetching candidates"):
            self._cuda.memcpy_dtoh(candidates, self._found)
        return self._select(candidates_of(candidates, count), self._geometry)
