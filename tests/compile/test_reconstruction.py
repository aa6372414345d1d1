"""Layers rounded and corrected one after the other, on a walk that runs every node once."""

from __future__ import annotations

import numpy as np
import pytest

from compile.backends.onnxrt import build, opened
from compile.frontier import Frontier, levels_of
from compile.graph import GraphView
from compile.importer import import_model
from compile.observation import Watch, observe
from compile.placement import place
from compile.quantize import quantize
from compile.ranges import min_max
from compile.reconstruction import JUDGING, Reconstruction, _Reconstructor, reconstruct, typical
from compile.rounding import moments_of, refitted
from compile.rules import RULES
from compile.slopes import LEAST_PASSED, slopes
from tests.compile.builders import imported_graph, segmenter
from tests.compile.graphs import Sketch
from tests.compile.test_equalization import feeds, two_layers


def prepared(tmp_path, kind: str, sketch: Sketch):
    graph = imported_graph(sketch, tmp_path)
    placement = place(graph, RULES[kind], scope="weighted", keep_float={})
    seen = observe(Watch(graph, placement.ranged_tensors, (), 8), feeds, threads=1)
    ranges = {name: min_max(histogram) for name, histogram in seen.histograms.items()}
    return graph, placement, ranges


def test_a_walk_in_stretches_gives_what_one_run_gives(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    walk = Frontier(graph.model, feeds(2), threads=1)
    for node in graph.nodes:
        walk.reach([node.output[0]])
        walk.forget_all_but([graph.outputs[0]])
    with opened(build(graph.model), threads=1) as engine:
        for feed, walked in zip(feeds(2), walk.values(graph.outputs[0]), strict=True):
            np.testing.assert_allclose(walked, engine.infer(feed)[graph.outputs[0]], atol=1e-5)


def test_a_walk_holds_only_what_the_rest_needs(tmp_path):
    graph = imported_graph(segmenter(), tmp_path)
    walk = Frontier(graph.model, feeds(2), threads=1)
    second = next(node for node in graph.nodes if node.name == "second")
    walk.reach([second.output[0]])
    walk.forget_all_but([graph.outputs[0]])
    with pytest.raises(KeyError):
        walk.values("images")
    assert walk.values(second.output[0])[0].shape == (1, 8, 64, 96)


def test_layers_of_one_level_do_not_depend_on_each_other():
    sketch = Sketch(images=[1, 4, 8, 8])
    left, right = sketch.conv("images", 4, 4, name="left"), sketch.conv("images", 4, 4, name="right")
    sketch.output(sketch.conv(sketch.node("Add", left, right), 4, 4, name="after"), "out", [1, 4, 8, 8])
    model = sketch.model()
    names = dict.fromkeys(("left", "right", "after"))
    assert [[node.name for node in level] for level in levels_of(model.graph.node, names)] == [
        ["left", "right"],
        ["after"],
    ]


@pytest.mark.parametrize("kind", ["tensorrt", "onnxrt"])
@pytest.mark.parametrize("rounding", ["nearest", "chosen"])
def test_corrected_layers_have_little_mean_error_left(tmp_path, kind, rounding):
    graph, placement, ranges = prepared(tmp_path, kind, two_layers())
    weights = reconstruct(Reconstruction(graph, placement, ranges, rounding, 8, 1), feeds())
    before = mean_error(graph, placement, quantize(graph, placement, ranges))
    after = mean_error(graph, placement, quantize(graph, placement, ranges, weights=weights))
    assert after < before / 2


def mean_error(graph, placement, model) -> float:
    """The greatest mean error of a channel of the last integer layer, as it stands in float simulation."""
    last = placement.integer_nodes[-1]
    final = {node.name: node.output[0] for node in model.graph.node}[last]
    real = {node.name: node.output[0] for node in graph.nodes}[last]
    walks = Frontier(graph.model, feeds(), threads=1), Frontier(model, feeds(), threads=1)
    for walk, name in zip(walks, (real, final), strict=True):
        walk.reach([name])
    errors = [a - b for a, b in zip(walks[0].values(real), walks[1].values(final), strict=True)]
    return float(np.abs(np.mean(errors, axis=(0, 1, 3, 4))).max())


def read_by_two_groups(lost: float):
    """Weights (2, 3, 6), what the float layer reads, and the same with every feature too small by a share."""
    random = np.random.default_rng(3)
    real = random.normal(0, 1, (512, 2, 6)).astype(np.float32)
    return random.normal(0, 1, (2, 3, 6)).astype(np.float32), real, real * np.float32(1 - lost)


def test_weights_are_refitted_to_what_the_layers_before_lose():
    weight, real, ours = read_by_two_groups(0.25)
    read = moments_of(ours, ours), moments_of(real - ours, ours)
    wanted = np.einsum("ngk,gok->ngo", real, weight)
    errors = [wanted - np.einsum("ngk,gok->ngo", ours, each) for each in (weight, refitted(weight, *read, hold=1.0))]
    assert np.abs(errors[1]).mean() < 0.6 * np.abs(errors[0]).mean()


def test_weights_behind_layers_that_lose_nothing_stay():
    weight, real, ours = read_by_two_groups(0.0)
    read = moments_of(ours, ours), moments_of(real - ours, ours)
    np.testing.assert_array_equal(refitted(weight, *read, hold=1.0), weight)


def test_a_few_clipped_features_do_not_move_a_trimmed_correction():
    errors = np.full((2, 400), 0.5, np.float32)
    errors[1, :4] = 100.0
    weights = np.ones_like(errors)
    np.testing.assert_allclose(typical(errors, weights, 0.05), [0.5, 0.5])
    assert typical(errors, weights, 0.0)[1] > 1.0


def test_a_correction_follows_the_errors_that_the_activation_behind_lets_through(tmp_path):
    """Nine values in ten lie where the SiLU gives next to nothing: their mean error is nobody's business."""
    graph = imported_graph(two_layers(), tmp_path)
    first = next(node for node in graph.nodes if node.name == "first")
    values = np.repeat(np.float32([-9.0, 3.0]), (900, 100))[None]
    errors = np.repeat(np.float32([0.5, -0.1]), (900, 100))[None]
    weights = slopes(graph, first.output[0], values) ** 2 + LEAST_PASSED
    assert typical(errors, np.ones_like(errors), 0.0)[0] > 0.4
    assert typical(errors, weights, 0.0)[0] == pytest.approx(-0.1, abs=0.02)


@pytest.mark.parametrize(
    ("operator", "attributes", "expected"),
    [
        ("Relu", {}, [0, 1, 1]),
        ("LeakyRelu", {"alpha": 0.2}, [0.2, 1, 1]),
        ("Sigmoid", {}, [0.0, 0.235, 0.0]),
        ("HardSigmoid", {}, [0, 0.2, 0]),
        ("HardSwish", {}, [0, 2 / 3, 1]),
        ("Softplus", {}, [1, 1, 1]),
    ],
)
def test_slopes_are_those_of_the_activation_and_1_where_it_is_not_known(tmp_path, operator, attributes, expected):
    sketch = Sketch(images=[1, 4, 8, 8])
    made = sketch.node(operator, sketch.conv("images", 4, 4, name="conv"), **attributes)
    sketch.output(sketch.conv(made, 4, 4), "out", [1, 4, 8, 8])
    graph = GraphView.of(import_model(sketch.save(tmp_path / "sketch.onnx", opset=14)).model)
    tensor = next(node for node in graph.nodes if node.name == "conv").output[0]
    np.testing.assert_allclose(slopes(graph, tensor, np.float32([-9, 0.5, 9])), expected, atol=0.02)


def test_a_layer_is_refitted_only_where_frames_that_it_was_not_fitted_on_agree(tmp_path):
    graph, placement, ranges = prepared(tmp_path, "tensorrt", two_layers())
    walk = _Reconstructor(Reconstruction(graph, placement, ranges, "chosen", 8, 1), feeds(6))
    node = next(node for node in graph.nodes if node.name == "second")
    random = np.random.default_rng(0)
    real = [random.normal(0, 1, (64, 1, 8)).astype(np.float32) for _ in range(6)]
    weight = random.normal(0, 1, (1, 8, 8)).astype(np.float32)
    smaller = [values * np.float32(0.7) for values in real]
    only_fitted = [real[at] if (at + 1) % JUDGING == 0 else smaller[at] for at in range(6)]
    assert walk._best(node, weight, real, smaller).how.startswith("weights refitted")
    assert not walk._best(node, weight, real, only_fitted).how.startswith("weights refitted")


def test_one_engine_mixes_ways_and_says_of_each_layer_which(tmp_path):
    graph, placement, ranges = prepared(tmp_path, "tensorrt", two_layers())
    weights = reconstruct(Reconstruction(graph, placement, ranges, "chosen", 8, 1), feeds())
    model = quantize(graph, placement, ranges, weights=weights)
    told = {node.name: node.doc_string for node in model.graph.node if node.name in weights}
    assert told == {name: each.how for name, each in weights.items()}
    assert len(set(told.values())) > 1


def test_weights_rounded_together_lose_less_at_the_output(tmp_path):
    graph, placement, ranges = prepared(tmp_path, "tensorrt", two_layers())
    losses = []
    for rounding in ("nearest", "chosen"):
        job = Reconstruction(graph, placement, ranges, rounding, 4, 1)
        model = quantize(graph, placement, ranges, weights=reconstruct(job, feeds()), weight_bits=4)
        with opened(build(graph.model), threads=1) as truth, opened(build(model), threads=1, integers=False) as ours:
            losses.append(np.mean([((truth.infer(f)["out"] - ours.infer(f)["out"]) ** 2).mean() for f in feeds()]))
    assert losses[1] < losses[0]


def test_the_same_frames_give_the_same_weights(tmp_path):
    graph, placement, ranges = prepared(tmp_path, "tensorrt", segmenter())
    job = Reconstruction(graph, placement, ranges, "chosen", 8, 1)
    first, second = reconstruct(job, feeds()), reconstruct(job, feeds())
    assert all(np.array_equal(first[name].codes, second[name].codes) for name in first)
    assert all(np.array_equal(first[name].bias, second[name].bias) for name in first)
