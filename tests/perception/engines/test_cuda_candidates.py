from __future__ import annotations

import ctypes

import numpy as np
import pytest

from perception.decoders.boxes import Candidates
from perception.decoders.yolox import YoloX
from perception.engines.cuda_candidates import WIDTH, candidates_of, plan_candidates
from perception.engines.cuda_selection import HEADER
from perception.engines.engine import TensorInfo
from perception.errors import SpecError
from perception.geometry import stretch
from perception.model_spec import Decoding, ModelSpec, PictureInput
from tests.perception.engines.cuda_on_cpu import address, library_of, separated

SIZE_PX, CELLS = (32, 32), 4 * 4 + 2 * 2 + 1


def spec_of(classes: int, *, decoded: bool = False) -> ModelSpec:
    decoding = Decoding(
        decoder="yolox", tensors={"output": "output"}, strides_px=(8, 16, 32), options={"decoded": decoded},
        max_detections=CELLS,
    )  # fmt: skip
    picture = PictureInput(tensor="images", width_px=32, height_px=32)
    names = tuple(f"class {number}" for number in range(classes))
    return ModelSpec(name="test", task="detection", picture=picture, decoding=decoding, classes=names)


SPECS = (spec_of(1), spec_of(8), spec_of(80), spec_of(80, decoded=True))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    programs = []
    for number, spec in enumerate(SPECS):
        plan = plan_candidates(spec)
        programs.append(separated(plan.source, "candidates_of_rows", number))
        programs.append(f"""
extern "C" void run_{number}(const float* rows, const float* cells, float threshold, int* header, float* found)
{{
    over_warps({len(plan.cells)}, [=] {{ program_{number}::candidates_of_rows_{number}(
        rows, cells, threshold, header, found); }});
}}""")
    return library_of(programs, tmp_path_factory.mktemp("kernels"))


def written(kernels, number: int, rows: np.ndarray, threshold: float) -> np.ndarray:
    plan = plan_candidates(SPECS[number])
    memory = np.zeros(HEADER + WIDTH * CELLS, np.float32)
    getattr(kernels, f"run_{number}")(
        address(rows),
        address(plan.cells),
        ctypes.c_float(threshold),
        address(memory[:HEADER]),
        address(memory[HEADER:]),
    )
    return memory


def found_in(memory: np.ndarray) -> Candidates:
    count, bad = memory[:HEADER].view(np.int32)
    assert bad == 0
    return candidates_of(memory[HEADER:], count)


def bad_values_in(memory: np.ndarray) -> int:
    return int(memory[:HEADER].view(np.int32)[1])


def rows_of(number: int) -> np.ndarray:
    rows = np.random.default_rng(number).random((CELLS, 5 + len(SPECS[number].classes)), np.float32)
    rows[:, 7:] = np.round(rows[:, 7:], 1)  # equal best classes: the first of them counts
    return rows


@pytest.mark.parametrize("number", range(len(SPECS)))
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4])
def test_candidates_are_the_host_decoders(kernels, number, threshold):
    spec, rows = SPECS[number], rows_of(number)
    got = found_in(written(kernels, number, rows, threshold))
    shape = (1, *rows.shape)
    decoder = YoloX(spec, {"output": TensorInfo("output", shape, "float32")})
    expected = decoder({"output": rows[None]}, stretch(SIZE_PX, SIZE_PX), SIZE_PX, threshold)
    assert 0 < len(got.scores) == len(expected.scores)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-6)
    np.testing.assert_array_equal(got.class_ids, expected.class_ids)
    np.testing.assert_allclose(got.boxes_px, expected.boxes_px, rtol=1e-5, atol=1e-4)


def test_nothing_above_the_threshold_is_no_candidate(kernels):
    assert len(found_in(written(kernels, 1, rows_of(1) * np.float32(0.1), 0.5)).scores) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 4, 5, 84])
def test_a_number_that_is_none_anywhere_in_the_output_is_counted(kernels, value, column):
    rows = rows_of(2)
    rows[CELLS // 2, column] = value
    assert bad_values_in(written(kernels, 2, rows, 0.99)) == 1


def test_a_box_without_end_is_counted(kernels):
    rows = rows_of(2)
    rows[3, 2], rows[3, 4:] = 1000, 1  # exp(1000) is infinite
    assert bad_values_in(written(kernels, 2, rows, 0.99)) == 1


def test_equal_scores_come_in_the_order_of_the_networks_rows(kernels):
    rows = rows_of(1)
    rows[:, 4:] = 0.5
    rows[:, 2:4] = 0
    got = found_in(written(kernels, 1, rows, 0.0))
    centres_px = (got.boxes_px[:, :2] + got.boxes_px[:, 2:]) / 2
    cells = plan_candidates(SPECS[1]).cells
    np.testing.assert_allclose(centres_px, (rows[:, :2] + cells[:, :2]) * cells[:, 2:], rtol=1e-5, atol=1e-4)


def test_another_decoder_has_no_kernel():
    spec = spec_of(1).model_copy(update={"decoding": Decoding(decoder="yolov8", tensors={"output": "o"})})
    with pytest.raises(SpecError, match="decoder yolov8 has no GPU kernel, expected yolox; use infer"):
        plan_candidates(spec)
