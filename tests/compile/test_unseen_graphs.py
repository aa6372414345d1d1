"""Networks nobody here has seen: each is imported and quantized by every recipe, or refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compile.backends.onnxrt import build, opened
from compile.candidate import Candidate
from compile.compiler import weight_bits
from compile.graph import GraphView
from compile.importer import ImportedModel, import_model
from compile.quantizer import Quantizer, usable_recipes
from compile.recipes import RECIPES
from compile.rules import RULES
from hw_profiles.machine import read_machine
from perception.decode import open_decoder
from perception.engines.engine import Tensors
from perception.errors import ModelError, SpecError, TollgateError
from perception.model_spec import Decoding, ModelSpec, PictureInput
from tests.compile import architectures as nets
from tests.compile.architectures import ARCHITECTURES, Architecture, Net, picture, stem
from tests.compile.graphs import Sketch, rt_detr

FRAMES, HELD_OUT_SEED = 24, 99
SAME = 1e-4
"""Of an output's largest value: how far an imported network may be from the file it came from."""


@dataclass(frozen=True)
class Prepared:
    """An imported network, with the frames it is calibrated on and one more."""

    architecture: Architecture
    source: onnx.ModelProto
    imported: ImportedModel
    frames: list[Tensors]
    unseen: Tensors


def frame(imported: ImportedModel, fed: dict[str, np.ndarray], seed: int) -> Tensors:
    """Smooth pictures of uneven brightness for what takes pictures, and what is always fed for the rest."""
    random = np.random.default_rng(seed)
    feeds = dict(fed)
    for tensor in imported.inputs:
        if tensor.name not in fed:
            pixels = random.random(tensor.shape, np.float32)
            for axis in (-2, -1):
                pixels = sum(np.roll(pixels, step, axis) for step in range(3)) / 3
            feeds[tensor.name] = np.ascontiguousarray(pixels * random.uniform(0.5, 1), tensor.dtype)
    return feeds


@cache
def prepared(name: str, folder: Path) -> Prepared:
    architecture = ARCHITECTURES[name]
    path = architecture.make().save(folder / "unseen.onnx", **architecture.saved)
    imported = import_model(path)
    frames = [frame(imported, architecture.fed, seed) for seed in (*range(FRAMES), HELD_OUT_SEED)]
    return Prepared(architecture, onnx.load(path), imported, frames[:-1], frames[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unseen")


def quantizer_of(unseen: Prepared, kind: str) -> Quantizer:
    frames = unseen.frames
    return Quantizer(
        graph=GraphView.of(unseen.imported.model),
        rules=RULES[kind],
        feeds=lambda: frames,
        some_feeds=lambda count: frames[:count],
        keep_float={},
        weight_bits=weight_bits(read_machine()),
        threads=1,
    )


def answers(content: bytes, feeds: Tensors, *, integers: bool = True) -> Tensors:
    with opened(content, threads=1, integers=integers) as engine:
        wanted = {tensor.name for tensor in engine.inputs}
        made = engine.infer({name: value for name, value in feeds.items() if name in wanted})
        return {name: value.copy() for name, value in made.items()}


def sqnr_db(got: np.ndarray, wanted: np.ndarray) -> float:
    noise = float(((got.astype(np.float64) - wanted) ** 2).mean())
    return float("inf") if noise == 0 else 10 * np.log10(float((wanted.astype(np.float64) ** 2).mean()) / noise)


def check_answers(got: Tensors, wanted: Tensors, architecture: Architecture) -> None:
    """Finite, and near to what float says; integers equal in most places."""
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
        if value.dtype.kind == "f":
            assert np.isfinite(got[name]).all()
            assert sqnr_db(got[name], value) >= architecture.sqnr_db, name
        else:
            assert (got[name] == value).mean() >= architecture.agreement, name


def check_candidate(candidate: Candidate, unseen: Prepared, kind: str) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(candidate.content), full_check=True)
    assert dict(candidate.unfit) == unseen.architecture.expected_unfit(kind)
    assert candidate.integer_layers > 0
    # Only ONNX Runtime's own candidates are computed in integers by it; those for another engine are rounded to grids.
    got = answers(candidate.content, unseen.unseen, integers=kind == "onnxrt")
    check_answers(got, answers(build(unseen.imported.model), unseen.unseen), unseen.architecture)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_unseen_network_computes_the_same_once_imported(folder: Path, name: str) -> None:
    unseen = prepared(name, folder)
    assert unseen.imported.opset == max(13, unseen.architecture.saved["opset"])
    before = answers(unseen.source.SerializeToString(), unseen.unseen)
    after = answers(build(unseen.imported.model), unseen.unseen)
    assert before.keys() == after.keys()
    for output, value in before.items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(after[output], value, rtol=0, atol=SAME * max(1, np.abs(value).max()))


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_recipe_quantizes_an_unseen_network_and_says_what_stays_float(folder: Path, name: str, kind: str) -> None:
    unseen = prepared(name, folder)
    quantizer = quantizer_of(unseen, kind)
    recipes = [recipe for recipe in RECIPES[kind] if quantizer.placement(recipe).integer_nodes]
    assert bool(recipes) is (kind in unseen.architecture.kinds)
    quantizer.observe(recipes)
    for recipe in recipes:
        check_candidate(quantizer.candidate(recipe), unseen, kind)


def test_shared_weights_are_quantized_for_each_reader_in_its_own_scale_of_inputs(folder: Path) -> None:
    quantizer = quantizer_of(prepared("shared weights", folder), "onnxrt")
    recipe = RECIPES["onnxrt"][0]
    quantizer.observe([recipe])
    model = onnx.load_model_from_string(quantizer.candidate(recipe).content)
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    near, far = (scales[f"head_{name}::bias::scale"] for name in ("near", "far"))
    assert np.allclose(far / near, far[0] / near[0])
    assert far[0] / near[0] > 2


def test_weights_in_a_file_beside_the_model_give_the_same_engine(folder: Path, tmp_path: Path) -> None:
    inside = prepared("opset 17", folder)
    path = tmp_path / "unseen.onnx"
    onnx.save(inside.source, path, save_as_external_data=True, location="unseen.data", size_threshold=0)
    beside = Prepared(inside.architecture, inside.source, import_model(path), inside.frames, inside.unseen)
    engines = []
    for unseen in (inside, beside):
        quantizer = quantizer_of(unseen, "onnxrt")
        quantizer.observe(RECIPES["onnxrt"][:1])
        engines.append(quantizer.candidate(RECIPES["onnxrt"][0]).content)
    assert engines[0] == engines[1]


def test_a_convolution_with_computed_weights_between_pairs_still_runs(folder: Path) -> None:
    unseen = prepared("dynamic weights", folder)
    quantizer = quantizer_of(unseen, "onnxrt")
    recipe = RECIPES["onnxrt"][0]
    quantizer.observe([recipe])
    model = onnx.load_model_from_string(quantizer.candidate(recipe).content)
    dynamic = next(node for node in model.graph.node if node.name == "dynamic")
    assert not dynamic.input[0].endswith("::by_channel")


def test_names_that_quantization_would_make_are_written_otherwise(folder: Path) -> None:
    imported = prepared("odd names", folder).imported
    names = [node.name for node in imported.model.graph.node if node.op_type == "Conv"]
    assert names == ["/backbone/Conv", "images:quantize", "straße 1", "t4_0", "t0_0:weight"]
    assert "2 names written with ':' instead of '::', which marks what quantization adds" in imported.changes


# What stays float as a whole, and says why


def saved(tmp_path: Path, sketch: Sketch, **settings: int) -> Path:
    return sketch.save(tmp_path / "unseen.onnx", **(settings or {"opset": 17}))


def test_an_upgrade_that_would_change_the_answer_leaves_the_network_float_and_says_so(tmp_path: Path) -> None:
    """The converter of onnx turns Hardmax over all that follows into one over a single axis."""
    net = picture()
    net.image(net.node("Hardmax", net.convolved(stem(net), 8, 4, name="head"), axis=1))
    imported = import_model(saved(tmp_path, net, opset=11, ir_version=6))
    assert imported.opset == 11
    (note,) = imported.notes
    assert note.startswith("the upgrade of its opset was given up: output out differs by more than 0.001")
    assert note.endswith("so nothing is quantized: export it again with opset_version=13 or newer")
    frames = [frame(imported, {}, 0)]
    assert (
        usable_recipes(quantizer_of(Prepared(Architecture(Net), None, imported, frames, {}), "onnxrt"), "onnxrt") == ()
    )


@pytest.mark.parametrize("kind", RULES)
def test_a_network_of_half_precision_stays_as_it_is_and_says_so(tmp_path: Path, kind: str) -> None:
    imported = import_model(saved(tmp_path, nets.of_half_precision()))
    assert imported.notes == (
        "1 layers have weights of float16 (the first is node half (Conv)): they stay as they are; "
        "export the model in float32 to let compile quantize it",
    )
    quantizer = quantizer_of(Prepared(Architecture(Net), None, imported, [], {}), kind)
    placement = quantizer.placement(RECIPES[kind][0])
    assert placement.integer_nodes == ()
    assert placement.float_weighted == {"half": "its weights are float16, expected float32"}


# What is refused


def broken_weight(*, constant: bool) -> Sketch:
    net = picture()
    weight = net.drawn(4, 3, 3, 3)
    weight[1, 1] = np.nan
    tensor = helper.make_tensor("broken", TensorProto.FLOAT, weight.shape, weight.ravel())
    name = net.node("Constant", value=tensor, name="kept") if constant else net.weight(weight, "broken")
    return net.image(net.node("Conv", "images", name, name="first", pads=[1] * 4))


def noisy() -> Sketch:
    net = picture()
    noise = net.node("RandomNormalLike", stem(net), name="noise")
    return net.image(net.convolved(noise, 8, 4, name="head"))


def training() -> Sketch:
    net = picture()
    dropped = net.node("Dropout", stem(net), net.weight(np.float32(0.5)), net.weight(np.bool_(True)), name="drop")
    return net.image(net.convolved(dropped, 8, 4, name="head"))


@pytest.mark.parametrize(
    ("sketch", "complaint"),
    [
        (broken_weight(constant=False), "initializer broken of node first (Conv) holds 9 NaN of 108 values"),
        (broken_weight(constant=True), "initializer broken of node kept (Constant) holds 9 NaN of 108 values"),
        (noisy(), "node noise (RandomNormalLike) draws random numbers, expected the same answer"),
        (training(), "node drop (Dropout) draws random numbers, expected the same answer"),
    ],
    ids=["NaN", "NaN in a Constant node", "random numbers", "a dropout that trains"],
)
def test_a_network_that_cannot_be_trusted_is_refused_with_its_node(
    tmp_path: Path, sketch: Sketch, complaint: str
) -> None:
    with pytest.raises(ModelError) as caught:
        import_model(saved(tmp_path, sketch))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_number_on_a_calibration_frame_is_refused_with_its_node(tmp_path: Path) -> None:
    net = picture()
    nothing = net.node("Sub", stem(net), "t1_0")
    net.image(net.convolved(net.node("Div", nothing, nothing, name="ratio"), 8, 4, name="head"))
    imported = import_model(saved(tmp_path, net))
    assert imported.notes == (
        "output out holds NaN on a random picture: if it does on real ones too, the model itself is broken",
    )
    quantizer = quantizer_of(Prepared(Architecture(Net), None, imported, [frame(imported, {}, 0)], {}), "onnxrt")
    with pytest.raises(ModelError, match=r"made by node ratio \(Div\): holds NaN or infinity on a calibration frame"):
        quantizer.observe(RECIPES["onnxrt"])


# Outputs under names that mislead, and heads that nobody can read


def detr_spec(**tensors: str) -> ModelSpec:
    return ModelSpec(
        name="unseen",
        task="detection",
        picture=PictureInput(tensor="images", width_px=64, height_px=64),
        decoding=Decoding(decoder="detr", tensors=tensors),
        classes=tuple("abcde"),
    )


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"boxes": "scores", "labels": "labels", "scores": "boxes"}, r"output scores has shape \[1, 20\], expected"),
        ({"boxes": "boxes", "labels": "classes", "scores": "scores"}, "no output classes, the model has labels, boxes"),
        (
            {"boxes": "boxes", "scores": "scores"},
            "got the roles boxes, scores, expected boxes, logits or boxes, labels",
        ),
    ],
    ids=["swapped", "absent", "missing"],
)
def test_outputs_that_do_not_fit_their_roles_are_refused_by_name(
    tmp_path: Path, tensors: dict[str, str], complaint: str
) -> None:
    imported = import_model(saved(tmp_path, rt_detr()))
    with pytest.raises(SpecError, match=complaint) as caught:
        open_decoder(detr_spec(**tensors), imported.outputs)
    assert "\n" not in str(caught.value)


def test_outputs_in_another_order_are_read_by_their_names(tmp_path: Path) -> None:
    sketch = rt_detr()
    sketch.outputs.reverse()
    imported = import_model(saved(tmp_path, sketch))
    assert [tensor.name for tensor in imported.outputs] == ["scores", "boxes", "labels"]
    open_decoder(detr_spec(boxes="boxes", labels="labels", scores="scores"), imported.outputs)


def test_lanes_as_polynomials_have_no_decoder_and_that_is_one_sentence(tmp_path: Path) -> None:
    imported = import_model(saved(tmp_path, nets.polynomials()))
    decoding = Decoding(decoder="lane_polynomials", tensors={"lanes": "lanes"})
    spec = detr_spec().model_copy(update={"decoding": decoding})
    with pytest.raises(
        TollgateError, match=r"decoder 'lane_polynomials' is unknown, expected one of yolox, "
    ) as caught:
        open_decoder(spec, imported.outputs)
    assert "\n" not in str(caught.value)
