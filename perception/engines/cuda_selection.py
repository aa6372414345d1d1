"""Candidates to detections on the GPU, by one block: order, suppression of duplicates, and the way to source pixels.

The same as `perception.decoders.boxes.Selection`, for as many candidates as a block has threads. What is left is
written into the host's memory as it stands: nothing is copied and nothing computed after it.
"""

from __future__ import annotations

import numpy as np

from perception.geometry import Geometry
from perception.model_spec import Decoding

ROOM = 256  # threads of the block, a candidate each; of more the host selects
HEADER = 2  # (count, bad values) before the candidates' rows
TOLD = 4  # (kept, bad values, count, nothing) before what is written to the host

# The overlap of two boxes is OpenCV's to the bit: products in double, one minus the distance in single precision.
# Source: opencv/opencv `modules/dnn/src/nms.inl.hpp`, `modules/core/include/opencv2/core/types.hpp` jaccardDistance.
SOURCE = r"""
__device__ inline float overlap_of(const float* a, const float* b)
{
    const double a_width = (double)a[2] - a[0], a_height = (double)a[3] - a[1];
    const double b_width = (double)b[2] - b[0], b_height = (double)b[3] - b[1];
    const double both = __dmul_rn(a_width, a_height) + __dmul_rn(b_width, b_height);
    if (both <= 2.220446049250313e-16) return 1.f;
    const double width = fmin((double)a[2], (double)b[2]) - fmax((double)a[0], (double)b[0]);
    const double height = fmin((double)a[3], (double)b[3]) - fmax((double)a[1], (double)b[1]);
    const double shared = width > 0 && height > 0 ? __dmul_rn(width, height) : 0;
    return 1.f - (float)(1. - shared / (both - shared));
}

extern "C" __global__ void detections_of_candidates(
    int* __restrict__ header, const float* __restrict__ found, int* __restrict__ told, float* __restrict__ boxes,
    float* __restrict__ scores, int* __restrict__ class_ids)
{
    __shared__ unsigned long long keys[ROOM];
    __shared__ float corners[ROOM][4], score_of[ROOM];
    __shared__ int class_of[ROOM], stays[ROOM];
    const int me = threadIdx.x, count = header[0], bad = header[1];
    __syncthreads();
    if (me == 0) {
        header[0] = header[1] = 0;  // for the next frame
        told[1] = bad;
        told[2] = count;
        if (count == 0) told[0] = 0;
    }
    if (count > ROOM) return;
    const float* row = found + me * 8;
    if (me < count) keys[me] = (unsigned long long)__float_as_uint(row[7]) << 32 | __float_as_uint(row[6]);
    __syncthreads();
    if (me < count) {
        int rank = 0;
        for (int other = 0; other < count; ++other) rank += keys[other] < keys[me];
        for (int side = 0; side < 4; ++side) corners[rank][side] = row[side];
        score_of[rank] = row[4];
        class_of[rank] = (int)__float_as_uint(row[5]);
        stays[rank] = 1;
    }
    __syncthreads();
    for (int better = 0; SUPPRESSES && better < count; ++better) {
        if (me > better && me < count && stays[better] && stays[me]
            && (ACROSS_CLASSES || class_of[me] == class_of[better])
            && overlap_of(corners[better], corners[me]) > (float)IOU)
            stays[me] = 0;
        __syncthreads();
    }
    if (me >= count) return;
    int place = 0;
    for (int better = 0; better < me; ++better) place += stays[better];
    if (me == count - 1) told[0] = place + stays[me] < MOST ? place + stays[me] : MOST;
    if (!stays[me]) return;
    for (int side = 0; side < 4; ++side)
        boxes[place * 4 + side] = (corners[me][side] - (float)(side % 2 ? OFFSET_Y : OFFSET_X))
                                  / (side % 2 ? (float)SCALE_Y : (float)SCALE_X);
    scores[place] = score_of[me];
    class_ids[place] = class_of[me];
}
"""


def selection_source(decoding: Decoding, geometry: Geometry) -> str:
    """The CUDA program for one network and one size of frames; kernel `detections_of_candidates`."""
    constants = {
        "ROOM": ROOM,
        "SUPPRESSES": int(decoding.nms_iou is not None),
        "IOU": repr(float(decoding.nms_iou or 0)),
        "ACROSS_CLASSES": int(decoding.nms_across_classes),
        "MOST": decoding.max_detections,
        "OFFSET_X": geometry.offset_x_px,
        "OFFSET_Y": geometry.offset_y_px,
        "SCALE_X": repr(float(np.float32(geometry.scale_x))),
        "SCALE_Y": repr(float(np.float32(geometry.scale_y))),
    }
    return "".join(f"#define {name} {value}\n" for name, value in constants.items()) + SOURCE
