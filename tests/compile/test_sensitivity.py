from __future__ import annotations

import numpy as np
import pytest

from compile.observation import Watch, observe
from compile.placement import place
from compile.ranges import min_max
from compile.rules import RULES
from compile.sensitivity import layer_losses
from tests.compile.builders import HEIGHT_PX, WIDTH_PX, imported_graph, segmenter


def losses(tmp_path, outlier: float, *, opset=13, frames=2) -> dict[str, float]:
    sketch = segmenter(outlier=outlier)
    path = tmp_path / f"{outlier}.{opset}"
    path.mkdir()
    graph = imported_graph(sketch, path)
    graph.model.opset_import[0].version = opset
    placement = place(graph, RULES["onnxrt"], scope="weighted", keep_float={})
    random = np.random.default_rng(0)
    feeds = [{"images": random.random((1, 3, HEIGHT_PX, WIDTH_PX), np.float32)} for _ in range(frames)]
    histograms = observe(Watch(graph, placement.ranged_tensors, (), 1), lambda: feeds, threads=1).histograms
    ranges = {name: min_max(histogram) for name, histogram in histograms.items()}
    return {loss.node: loss.noise_share for loss in layer_losses(graph, placement, ranges, feeds, threads=1)}


def test_a_network_of_even_channels_loses_little_anywhere(tmp_path):
    assert max(losses(tmp_path, 1.0).values()) < 0.01


def test_the_layers_around_an_outlier_channel_lose_most_and_come_first(tmp_path):
    found = losses(tmp_path, 5000.0)
    assert next(iter(found)) in ("first", "second")
    assert min(found["first"], found["second"]) > 0.3
    assert found["third"] < 0.05


@pytest.mark.parametrize("opset", [13, 18])
def test_the_audit_runs_before_and_after_axes_became_an_input(tmp_path, opset):
    assert set(losses(tmp_path, 1.0, opset=opset)) == {"first", "second", "third"}
