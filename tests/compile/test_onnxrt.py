from __future__ import annotations

import numpy as np
import pytest

from compile.backends.onnxrt import build, node_times, open_float_taps, opened
from perception.errors import EngineError
from tests.compile.builders import imported_graph, segmenter
from tests.compile.test_quantize import random_feed


@pytest.fixture
def graph(tmp_path):
    return imported_graph(segmenter(), tmp_path)


def test_inner_tensors_come_out_beside_the_outputs(graph):
    inner = graph.nodes[1].output[0]
    with open_float_taps(graph.model, (inner, "mask", "images"), threads=1) as tapped:
        tensors = tapped.infer({"images": random_feed()})
        assert set(tensors) == {inner, "mask"}
        assert tensors[inner].shape == graph.shapes[inner]
        assert tensors[inner].min() == 0.0


def test_tapping_leaves_the_model_as_it_was(graph):
    before = build(graph.model)
    with open_float_taps(graph.model, (graph.nodes[0].output[0],), threads=1):
        pass
    assert build(graph.model) == before


def test_the_trace_names_every_node_that_runs_and_leaves_no_file(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    times = node_times(build(graph.model), {"images": random_feed()}, threads=1, runs=2)
    assert sum("Conv" in node.op_type for node in times) == 3
    assert times == sorted(times, key=lambda node: -node.mean_us)
    assert all(np.isfinite(node.mean_us) for node in times)
    assert sorted(tmp_path.iterdir()) == before


def test_bytes_that_are_no_model_are_refused_in_one_line():
    with pytest.raises(EngineError, match="refuses the model") as refused, opened(b"no model", threads=1):
        pass
    assert "\n" not in str(refused.value)
