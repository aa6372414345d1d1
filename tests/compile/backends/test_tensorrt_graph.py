from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compile.backends.onnxrt import build
from compile.backends.tensorrt_graph import with_float_weights
from compile.recipes import RECIPES
from tests.compile.architectures import ARCHITECTURES
from tests.compile.builders import imported_graph, segmenter
from tests.compile.test_quantize import quantized, random_feed
from tests.compile.test_unseen_graphs import answers, prepared, quantizer_of

QUANTIZABLE = [name for name, made in ARCHITECTURES.items() if "tensorrt" in made.kinds]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unseen")


def integer_constants(model: onnx.ModelProto) -> set[str]:
    """Integers of weights: zero points are single numbers, or as many as there are channels."""
    return {t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1}


@pytest.mark.parametrize("name", QUANTIZABLE)
def test_float_weights_give_the_very_same_outputs(folder, name):
    unseen = prepared(name, folder)
    quantizer = quantizer_of(unseen, "tensorrt")
    recipe = next(recipe for recipe in RECIPES["tensorrt"] if quantizer.placement(recipe).integer_nodes)
    quantizer.observe([recipe])
    model = onnx.load_from_string(quantizer.candidate(recipe).content)
    changed = with_float_weights(model)
    onnx.checker.check_model(changed, full_check=True)
    assert not integer_constants(changed)
    wanted = answers(build(model), unseen.unseen, integers=False)
    got = answers(build(changed), unseen.unseen, integers=False)
    assert got.keys() == wanted.keys()
    for output, value in wanted.items():
        np.testing.assert_array_equal(got[output], value)


def test_every_weight_goes_behind_one_quantizer_and_the_model_given_stays(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    model = onnx.load_from_string(quantized(graph, {"images": random_feed()}, kind="tensorrt"))
    before, weights = build(model), integer_constants(model)
    changed = with_float_weights(model)
    assert weights
    assert build(model) == before
    made = {node.output[0] for node in changed.graph.node if node.op_type == "QuantizeLinear"}
    read = [node.input[0] for node in changed.graph.node if node.op_type == "DequantizeLinear"]
    assert set(read) <= made
    assert len(changed.graph.node) == len(model.graph.node) + len(weights)


def test_a_float_model_stays_as_it_is(tmp_path):
    model = imported_graph(segmenter(), tmp_path).model
    assert build(with_float_weights(model)) == build(model)
