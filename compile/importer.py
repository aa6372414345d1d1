"""ONNX file in, clean graph out: checked, of fixed shapes, tidied, and proved to compute the same.

Cleaning may never change what a model computes. So the model is run as it came and as it is handed on, with the same
random input, and the most ambitious cleaning whose outputs agree is taken; what was given up is said in the notes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compile import cleaning, folding, model_checks
from compile.input_shapes import fix_shapes
from compile.onnx_file import read_onnx
from compile.onnx_graph import dtype_name, shape_of
from compile.opset import PER_CHANNEL_OPSET, upgrade_opset
from perception.engines.engine import TensorInfo
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import EngineError, ModelError

LARGEST_DIFFERENCE = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-6}
"""Between the model before and after cleaning, relative to the largest value of the output."""

UPGRADE = "the upgrade of its opset"
FOLLOWS = {UPGRADE: "; so nothing is quantized: export it again with opset_version=13 or newer"}
"""What giving up a step means for its user."""

Outputs = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class ImportedModel:
    """A model ready to be quantized and built.

    Attributes:
        model: the cleaned graph, all weights inside, every node named, shapes inferred.
        source_sha256: digest of the file's bytes, followed by those of its external data files in order of names.
        source_bytes: size of these files.
        source_opset: the operator set the file was written in.
        opset: the operator set of `model`.
        inputs: what must be fed; every side is fixed.
        outputs: what comes back; -1 stands for a side known only at run time.
        changes: what was cleaned, in words.
        notes: what was accepted but limits what can be done with the model.
    """

    model: onnx.ModelProto
    source_sha256: str
    source_bytes: int
    source_opset: int
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    changes: tuple[str, ...]
    notes: tuple[str, ...]


def import_model(path: Path, *, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ImportedModel:
    """Read a model and make it ready.

    Args:
        path: the ONNX file.
        batch: what a dynamic batch becomes.
        shapes: input name → its shape, for inputs whose other sides are dynamic.

    Raises:
        ModelError: one line naming file and node, or tensor, that cannot be handled, and what to do.
    """
    try:
        return _import(path, batch, shapes or {})
    except (UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: damaged or no ONNX model ({error}); export or download it again") from error


def _import(path: Path, batch: int, shapes: Mapping[str, tuple[int, ...]]) -> ImportedModel:
    file = read_onnx(path)
    source = file.model
    source_opset = model_checks.opset_of(source)
    model_checks.check_versions(source, path)
    changes = cleaning.drop_foreign_parts(source) + cleaning.name_nodes(source) + cleaning.free_separator(source)
    model_checks.check_operators(source, path)
    model_checks.check_weights(source, path)
    changes += cleaning.drop_initializer_inputs(source)
    cleaning.set_ir_version(source)
    model_checks.check_interface(source.graph, path)
    fixed = fix_shapes(source, batch, shapes, path)
    model_checks.check_structure(source, path)
    _know_shapes(source, path, anew=bool(fixed))
    cleaned = _clean(source, path)
    graph = cleaned.model.graph
    model_checks.check_determinism(graph, path)
    return ImportedModel(
        model=cleaned.model,
        source_sha256=file.sha256,
        source_bytes=file.size_bytes,
        source_opset=source_opset,
        opset=model_checks.opset_of(cleaned.model),
        inputs=tuple(map(_tensor_info, graph.input)),
        outputs=tuple(map(_tensor_info, graph.output)),
        changes=(*changes, *fixed, *cleaned.changes),
        notes=(*cleaned.notes, *model_checks.notes_on(graph)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Cleaned:
    """A model that computes what its source computes, what was done to it, and what to know."""

    model: onnx.ModelProto
    changes: list[str]
    notes: list[str]


def _clean(source: onnx.ModelProto, path: Path) -> _Cleaned:
    """The most ambitious cleaning that provably computes the same.

    Raises:
        ModelError: ONNX Runtime cannot run the model as it came, or even tidying it changes its outputs.
    """
    feeds = _random_feeds(source)
    expected = _expected_outputs(source, feeds, path)
    given_up: list[str] = []
    normalised = any(node.op_type == "BatchNormalization" for node in source.graph.node)
    old = model_checks.opset_of(source) < PER_CHANNEL_OPSET
    attempts = [(True, True, "fusing BatchNormalization")] * normalised + [(False, True, UPGRADE)] * old
    for fuse, upgrade, what in [*attempts, (False, False, "tidying it")]:
        model, changes, notes = _cleaned_copy(source, fuse=fuse, upgrade=upgrade)
        model_checks.check_sizes(model.graph, path)
        difference = _difference(expected, model, feeds)
        if difference is None:
            _state_ranks(model.graph, expected)
            return _Cleaned(model, changes, [*given_up, *notes, *_broken_outputs(expected)])
        given_up.append(f"{what} was given up: {difference}{FOLLOWS.get(what, '')}")
    raise ModelError(f"{path}: {'; '.join(given_up)}; export it again with opset_version=17")


def _know_shapes(source: onnx.ModelProto, path: Path, *, anew: bool) -> None:
    """Infer every shape that can be known; `anew` forgets those that the file declares.

    Raises:
        ModelError: they contradict each other, or are absurdly large.
    """
    if anew:
        cleaning.forget_shapes(source.graph)
    try:
        cleaning.infer_shapes(source)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: its shapes contradict each other ({reason}); export it again") from error
    model_checks.check_sizes(source.graph, path)


def _cleaned_copy(
    source: onnx.ModelProto, *, fuse: bool, upgrade: bool
) -> tuple[onnx.ModelProto, list[str], list[str]]:
    """Every step in order; returns the model, what was done, and what to know."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    cleaning.set_ir_version(model)
    changes = cleaning.tidy(model)
    notes: list[str] = []
    if upgrade:
        upgraded, notes = upgrade_opset(model)
        changes += upgraded
        cleaning.name_nodes(model)
        cleaning.tidy(model)
    changes += folding.fold_constants(model)
    if fuse:
        changes += folding.fuse_batch_norms(model)
    cleaning.set_ir_version(model)
    cleaning.infer_shapes(model)
    return model, changes, notes


def _tensor_info(value: onnx.ValueInfoProto) -> TensorInfo:
    return TensorInfo(value.name, shape_of(value) or (), dtype_name(value.type.tensor_type.elem_type))


def _state_ranks(graph: onnx.GraphProto, outputs: Outputs) -> None:
    """Declare open sides where inference could not even tell how many there are."""
    for value in graph.output:
        if shape_of(value) is None:
            sides = value.type.tensor_type.shape
            sides.ClearField("dim")
            for _ in range(outputs[value.name].ndim):
                sides.dim.add()


def _broken_outputs(outputs: Outputs) -> list[str]:
    """One sentence for each output that holds what is no number."""
    return [
        f"output {name} holds NaN on a random picture: if it does on real ones too, the model itself is broken"
        for name, value in outputs.items()
        if np.issubdtype(value.dtype, np.floating) and np.isnan(value).any()
    ]


def _random_feeds(model: onnx.ModelProto) -> Outputs:
    """Floats in 0..1, bytes in 0..255, ones for integers (sizes and counts), from a fixed seed."""
    generator = np.random.default_rng(0)
    feeds: Outputs = {}
    for value in model.graph.input:
        tensor = _tensor_info(value)
        if tensor.dtype.startswith("float"):
            feeds[tensor.name] = generator.random(tensor.shape, np.float32).astype(tensor.dtype)
        elif tensor.dtype == "uint8":
            feeds[tensor.name] = generator.integers(0, 256, tensor.shape, np.uint8)
        else:
            feeds[tensor.name] = np.ones(tensor.shape, tensor.dtype)
    return feeds


def _expected_outputs(source: onnx.ModelProto, feeds: Outputs, path: Path) -> Outputs:
    """What the model computes as it came.

    Raises:
        ModelError: ONNX Runtime cannot run it; told by the file's own node names, which its optimisations replace.
    """
    try:
        return _run(source, feeds)
    except EngineError as error:
        reason = error
    try:
        _run(source, feeds, optimise=False)
    except EngineError as error:
        reason = error
    raise ModelError(f"{path}: {reason}; correct that node and export again") from reason


def _run(model: onnx.ModelProto, feeds: Outputs, *, optimise: bool = True) -> Outputs:
    """Outputs of the model in ONNX Runtime, as copies.

    Raises:
        EngineError: ONNX Runtime refuses the model or fails.
    """
    engine = OnnxRuntimeEngine(model.SerializeToString(), threads=os.cpu_count() or 1, optimise=optimise)
    try:
        wanted = {tensor.name for tensor in engine.inputs}
        return {name: value.copy() for name, value in engine.infer({n: feeds[n] for n in wanted}).items()}
    finally:
        engine.close()


def _difference(expected: Outputs, model: onnx.ModelProto, feeds: Outputs) -> str | None:
    """How the model's outputs differ from those expected, in words; None where they agree."""
    try:
        outputs = _run(model, feeds)
    except EngineError as error:
        return str(error)
    for name, wanted in expected.items():
        got = outputs[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            return f"output {name} became {got.dtype} {list(got.shape)}, was {wanted.dtype} {list(wanted.shape)}"
        tolerance = LARGEST_DIFFERENCE.get(wanted.dtype.name, 0.0)
        finite = wanted[np.isfinite(wanted)]
        largest = float(np.abs(finite.astype(np.float64)).max(initial=1.0))
        if not np.allclose(got, wanted, rtol=0, atol=tolerance * largest, equal_nan=True):
            return f"output {name} differs by more than {tolerance:g} of its largest value {largest:.3g}"
    return None
