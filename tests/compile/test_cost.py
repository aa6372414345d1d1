"""Cost is counted as by hand, and agrees with what the networks' authors publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from compile.cost import NodeCost, cost_of
from compile.importer import import_model
from tests.compile.graphs import Sketch


def the_cost(sketch: Sketch, tmp_path: Path, operator: str) -> NodeCost:
    cost = cost_of(import_model(sketch.save(tmp_path / "m.onnx")).model)
    assert cost.uncounted == ()
    return next(node for node in cost.nodes if node.operator == operator)


def test_a_strided_grouped_convolution(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 8, 16, 16])
    weight, bias = sketch.weight(np.ones((4, 2, 3, 3), np.float32)), sketch.weight(np.ones(4, np.float32))
    made = sketch.node("Conv", "x", weight, bias, group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    sketch.output(made, "y", [1, 4, 8, 8])
    cost = the_cost(sketch, tmp_path, "Conv")
    assert cost.macs == (4 * 8 * 8) * (2 * 3 * 3)
    assert cost.parameters == 4 * 2 * 3 * 3 + 4
    assert cost.output_elements == 4 * 8 * 8
    assert cost.activation_bytes == 4 * 8 * 8 * 4


def test_a_transposed_convolution_counts_its_inputs(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 6, 5, 5])
    weight = sketch.weight(np.ones((6, 4, 2, 2), np.float32))
    sketch.output(sketch.node("ConvTranspose", "x", weight, strides=[2, 2]), "y", [1, 4, 10, 10])
    assert the_cost(sketch, tmp_path, "ConvTranspose").macs == (6 * 5 * 5) * (4 * 2 * 2)


@pytest.mark.parametrize(("turned", "shape"), [(0, [3, 7]), (1, [7, 3])])
def test_a_gemm_sums_over_the_inner_side(tmp_path: Path, turned: int, shape: list[int]) -> None:
    sketch = Sketch(x=shape)
    sketch.output(sketch.node("Gemm", "x", sketch.weight(np.ones((7, 5), np.float32)), transA=turned), "y", [3, 5])
    assert the_cost(sketch, tmp_path, "Gemm").macs == 3 * 5 * 7


def test_a_batched_matrix_product(tmp_path: Path) -> None:
    sketch = Sketch(a=[1, 2, 3, 7], b=[1, 2, 7, 5])
    sketch.output(sketch.node("MatMul", "a", "b"), "y", [1, 2, 3, 5])
    cost = the_cost(sketch, tmp_path, "MatMul")
    assert (cost.macs, cost.parameters) == (2 * 3 * 5 * 7, 0)


def test_other_operators_count_elements_only_and_bytes_follow_the_type(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 3, 4, 4])
    sketch.output(sketch.node("Cast", "x", to=TensorProto.UINT8), "y", [1, 3, 4, 4], TensorProto.UINT8)
    cost = the_cost(sketch, tmp_path, "Cast")
    assert (cost.macs, cost.output_elements, cost.activation_bytes) == (0, 48, 48)


def test_a_weight_read_twice_counts_once(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    shared = sketch.weight(np.ones((4, 4), np.float32))
    sketch.output(sketch.node("MatMul", sketch.node("MatMul", "x", shared), shared), "y", [1, 4])
    assert cost_of(import_model(sketch.save(tmp_path / "m.onnx")).model).parameters == 16


def test_sizes_known_only_at_run_time_are_named_not_guessed(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 4])
    sketch.output(sketch.node("NonZero", "x", name="hits"), "y", [2, "n"], TensorProto.INT64)
    cost = cost_of(import_model(sketch.save(tmp_path / "m.onnx")).model)
    assert cost.uncounted == ("hits",)


def test_totals_by_operator_are_sorted_by_work(tmp_path: Path) -> None:
    sketch = Sketch(x=[1, 3, 8, 8])
    sketch.output(sketch.node("Relu", sketch.conv(sketch.conv("x", 3, 4), 4, 2)), "y", [1, 2, 8, 8])
    cost = cost_of(import_model(sketch.save(tmp_path / "m.onnx")).model)
    conv, relu = cost.by_operator()
    assert (conv.operator, conv.nodes, conv.macs) == ("Conv", 2, 8 * 8 * (3 * 4 + 4 * 2))
    assert (relu.operator, relu.macs) == ("Relu", 0)
    assert cost.activation_bytes == 4 * 8 * 8 * (4 + 2 + 2)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("yolox_nano_416", 0.91e6, 1.08e9 / 2),
        ("nanodet_m_416", 0.95e6, 1.2e9 / 2),
        ("fastestdet_352", 0.25e6, None),
        ("road_segmentation_adas_0001", 0.184e6, 4.77e9 / 2),
    ],
)
def test_real_networks_cost_what_their_authors_publish(
    shared_data: Path, name: str, parameters: float, macs: float | None
) -> None:
    """Two FLOPs a multiply-add. Source: tables of the NanoDet, FastestDet and Open Model Zoo repositories' READMEs."""
    cost = cost_of(import_model(shared_data / "models" / f"{name}.onnx").model)
    assert cost.parameters == pytest.approx(parameters, rel=0.05)
    assert macs is None or cost.macs == pytest.approx(macs, rel=0.08)
    assert cost.uncounted == ()
