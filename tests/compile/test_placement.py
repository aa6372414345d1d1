from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from compile.placement import place
from compile.rules import RULES
from tests.compile.builders import imported_graph
from tests.compile.graphs import Sketch

ONNXRT, TENSORRT = RULES["onnxrt"], RULES["tensorrt"]
OPEN = ["n", "c", "h", "w"]
ANY_WIDTH = replace(TENSORRT, min_channels=0, ends_in_float=False)


def chain(sketch: Sketch, *operators, channels=16) -> str:
    """Nodes one behind the other; a convolution keeps the number of channels."""
    tensor = next(iter(sketch.inputs)).name
    for position, operator in enumerate(operators):
        name = f"{operator.lower()}{position}"
        if operator == "Conv":
            tensor = sketch.conv(tensor, channels, channels, side=3, name=name)
        elif operator == "MaxPool":
            tensor = sketch.node("MaxPool", tensor, name=name, kernel_shape=[2, 2], strides=[2, 2])
        else:
            tensor = sketch.node(operator, tensor, name=name)
    return tensor


def placed(tmp_path, *operators, rules=ONNXRT, scope="weighted", keep_float=None, channels=16):
    sketch = Sketch(x=[1, channels, 16, 16])
    sketch.output(chain(sketch, *operators, channels=channels), "y", OPEN)
    return place(imported_graph(sketch, tmp_path), rules, scope=scope, keep_float=keep_float or {})


def test_onnx_runtime_gets_pairs_on_inputs_and_outputs_and_the_relu_goes(tmp_path):
    placement = placed(tmp_path, "Conv", "Relu", "Conv")
    assert placement.integer_nodes == ("conv0", "conv2")
    assert placement.absorbed == {"relu1": "conv0"}
    assert len(placement.sites) == 3
    assert [site.readers for site in placement.sites] == [("conv0",), None, None]


def test_tensorrt_gets_pairs_on_inputs_only_and_the_relu_stays(tmp_path):
    placement = placed(tmp_path, "Conv", "Relu", "Conv", rules=ANY_WIDTH)
    assert placement.integer_nodes == ("conv0", "conv2")
    assert placement.absorbed == {}
    assert [site.readers for site in placement.sites] == [("conv0",), ("conv2",)]


def test_tensorrt_keeps_the_last_layers_float(tmp_path):
    assert placed(tmp_path, "Conv", "Relu", "Conv", rules=TENSORRT).float_weighted == {
        "conv2": "last before a network output"
    }


def test_layers_narrower_than_the_rules_ask_for_stay_float(tmp_path):
    wide = dataclasses.replace(TENSORRT, min_channels=16)
    assert placed(tmp_path, "Conv", "Relu", "Conv", rules=wide, channels=8).float_weighted == {
        "conv0": "fewer than 16 channels",
        "conv2": "fewer than 16 channels",
    }


def test_a_layer_to_be_kept_float_loses_its_pairs_and_says_why(tmp_path):
    placement = placed(tmp_path, "Conv", "Relu", "Conv", keep_float={"conv0": "loses 40% of its signal"})
    assert placement.integer_nodes == ("conv2",)
    assert placement.float_weighted == {"conv0": "loses 40% of its signal"}
    assert len(placement.sites) == 2


@pytest.mark.parametrize(
    ("scope", "integer"),
    [("weighted", ("conv0",)), ("chains", ("conv0", "sigmoid1", "leakyrelu2", "maxpool3"))],
)
def test_chains_follow_into_eight_bits_as_far_as_their_kernels_go(tmp_path, scope, integer):
    chained = ("Conv", "Sigmoid", "LeakyRelu", "MaxPool", "Tanh", "Conv")
    assert placed(tmp_path, *chained, scope=scope).integer_nodes == (*integer, "conv5")


def test_a_chain_ends_where_no_integer_layer_comes_after_it(tmp_path):
    assert placed(tmp_path, "Conv", "Sigmoid", "MaxPool", scope="chains").integer_nodes == ("conv0",)
    kept = placed(tmp_path, "Conv", "Sigmoid", "Conv", "Sigmoid", "Conv", scope="chains", keep_float={"conv2": "asked"})
    assert kept.integer_nodes == ("conv0", "conv4")
    assert [site.readers for site in kept.sites] == [("conv0",), None, ("conv4",), None]


def test_a_chain_does_not_start_before_the_first_layer_nor_behind_one_kept_float(tmp_path):
    assert placed(tmp_path, "Sigmoid", "Conv", scope="chains").integer_nodes == ("conv1",)
    kept = placed(tmp_path, "Conv", "Sigmoid", "Conv", scope="chains", keep_float={"conv0": "asked for"})
    assert kept.integer_nodes == ("conv2",)


def test_what_passes_values_through_shares_one_scale(tmp_path):
    placement = placed(tmp_path, "Conv", "MaxPool", "Conv", scope="chains")
    shared = [site.scaled_by for site in placement.sites if len(site.scaled_by) > 1]
    assert len(shared) == 2
    assert shared[0] == shared[1]


def joined(tmp_path, operator, rules, **attributes):
    """Two convolutions joined by an operator, and a convolution behind it."""
    sketch = Sketch(x=[1, 16, 8, 8])
    left = sketch.conv("x", 16, 16, name="left")
    right = sketch.node("Tanh", "x", name="tanh")
    both = sketch.node(operator, left, right, name="join", **attributes)
    sketch.output(sketch.conv(both, 32 if operator == "Concat" else 16, 16, name="behind"), "y", OPEN)
    graph = imported_graph(sketch, tmp_path)
    return graph, place(graph, rules, scope="weighted", keep_float={})


def test_tensorrt_shares_one_scale_over_a_concat(tmp_path):
    _, placement = joined(tmp_path, "Concat", ANY_WIDTH, axis=1)
    behind = placement.sites[-1]
    assert behind.readers == ("behind",)
    assert len(behind.scaled_by) == 3


def test_tensorrt_pairs_the_skip_branch_of_a_residual_sum_only(tmp_path):
    graph, placement = joined(tmp_path, "Add", ANY_WIDTH)
    readers = {site.tensor: site.readers for site in placement.sites}
    skip = next(node for node in graph.nodes if node.name == "tanh").output[0]
    main = next(node for node in graph.nodes if node.name == "left").output[0]
    assert readers[skip] == ("join",)
    assert main not in readers


def test_a_relu_behind_what_shares_its_inputs_scale_stays(tmp_path):
    placement = placed(tmp_path, "Conv", "MaxPool", "Relu", "Conv", scope="chains")
    assert placement.absorbed == {}
    assert placement.integer_nodes == ("conv0", "maxpool1", "conv3")


def test_a_relu_whose_tensor_others_read_stays(tmp_path):
    sketch = Sketch(x=[1, 16, 8, 8])
    features = sketch.conv("x", 16, 16, name="conv")
    rectified = sketch.node("Relu", features, name="relu")
    sketch.output(sketch.node("Add", features, rectified), "y", OPEN)
    placement = place(imported_graph(sketch, tmp_path), ONNXRT, scope="weighted", keep_float={})
    assert placement.absorbed == {}


@pytest.mark.parametrize(
    ("bounds", "absorbed"), [((0.0, 6.0), True), ((-1.0, 1.0), True), ((1.0, 6.0), False), ((None, 6.0), True)]
)
def test_a_clip_that_lets_zero_pass_is_absorbed(tmp_path, bounds, absorbed):
    sketch = Sketch(x=[1, 16, 8, 8])
    names = ["" if bound is None else sketch.weight(np.float32(bound)) for bound in bounds]
    clipped = sketch.node("Clip", sketch.conv("x", 16, 16, name="conv"), *names, name="clip")
    sketch.output(clipped, "y", OPEN)
    placement = place(imported_graph(sketch, tmp_path), ONNXRT, scope="weighted", keep_float={})
    assert ("clip" in placement.absorbed) is absorbed


def test_a_layer_whose_weights_are_computed_stays_float(tmp_path):
    sketch = Sketch(x=[1, 16, 4, 4], w=[1, 16, 1, 1])
    sketch.output(sketch.node("Conv", "x", "w", name="conv"), "y", OPEN)
    placement = place(imported_graph(sketch, tmp_path), ONNXRT, scope="weighted", keep_float={})
    assert placement.float_weighted == {"conv": "its weights are no constant"}
    assert placement.sites == ()
