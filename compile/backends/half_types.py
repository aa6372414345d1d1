"""FP16 written into the graph itself, for TensorRT from 11 on, which computes in the types that the ONNX file says.

What half precision could hurt stays float32: the decoding behind the last layer with weights, whose pixels want more
than 11 bits; operators that sum or raise; constants that do not survive the rounding. Inputs and outputs keep their
types. Imports no TensorRT.

Source: NVIDIA, TensorRT Developer Guide, "Strongly Typed Networks" and "Explicit Quantization": the scale of a
QuantizeLinear has the type of the tensor it rounds, that of a DequantizeLinear the type it gives.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference, version_converter

from compile.model_checks import opset_of
from compile.onnx_graph import attribute_of, element_types_of, producers, subgraphs, tensors_read
from perception.errors import ModelError

HALF_SCALES_OPSET = 19
"""QuantizeLinear and DequantizeLinear take FP16 scales from here on. Source: ONNX operator changelog, opset 19."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
SUMMING = frozenset(
    {"CumSum", "Exp", "Log", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"}
    | {"ReduceProd", "ReduceSum", "ReduceSumSquare", "InstanceNormalization"}
)
PLACING = frozenset({"GridSample", "NonMaxSuppression", "RoiAlign", "TopK", "Range"})
TYPED_BY_ATTRIBUTE = frozenset(
    {"Cast", "CastLike", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "SequenceEmpty"}
)
_SURVIVES = 1e-3  # twice what rounding to 11 bits costs at most, of a constant's largest value


def with_half_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in FP16 where that is safe, every type written in the graph; a new model.

    Args:
        model: float32, with or without QuantizeLinear and DequantizeLinear.

    Raises:
        ModelError: it is quantized, and cannot be lifted to the operator set that has FP16 scales.
    """
    return _Typing(_lifted(model)).model()


def _lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if not quantized or opset_of(model) >= HALF_SCALES_OPSET:
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        return copied
    try:
        return version_converter.convert_version(model, HALF_SCALES_OPSET)
    except (version_converter.ConvertError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"model: opset {opset_of(model)} cannot be lifted to {HALF_SCALES_OPSET}, which FP16 scales need "
            f"({' '.join(str(error).split())[:200]}); export it with opset {HALF_SCALES_OPSET}, or compile without FP16"
        ) from error


class _Typing:
    """One graph being typed: a float32 tensor `t` keeps its name, its FP16 twin is called `t::half`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._types = element_types_of(shape_inference.infer_shapes(model, data_prop=True).graph)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._there = {value.name for value in model.graph.input} | set(self._constants)
        self._nodes: list[onnx.NodeProto] = []
        self._opset = opset_of(model)

    def model(self) -> onnx.ModelProto:
        stay = _behind_the_last_weights(self._graph)
        for node in self._graph.node:
            if node.output[0] in stay or self._stays_float(node):
                for name in sorted(tensors_read(node)):
                    self._float(name)
            else:
                self._make_half(node)
            self._nodes.append(node)
            self._there.update(node.output)
        for value in self._graph.output:
            self._float(value.name)
        return self._written()

    def _stays_float(self, node: onnx.NodeProto) -> bool:
        """Whether a node must not, or should not, compute in FP16."""
        if node.domain not in ("", "ai.onnx") or subgraphs(node):
            return True
        if node.op_type in SUMMING | PLACING | TYPED_BY_ATTRIBUTE:
            return True
        if len(node.output) > 1 and attribute_of(node, "stash_type", None) is not None:
            return True
        schema = defs.get_schema(node.op_type, self._opset)
        gives = [_formal(schema.outputs, place) for place in range(len(node.output))]
        if not all(_may_be_half(schema, formal) for formal in gives):
            return True
        return not all(_survives(self._constants[name]) for name in self._taken_half(node) if name in self._constants)

    def _taken_half(self, node: onnx.NodeProto) -> dict[str, None]:
        """Names of its float32 inputs that the operator also takes in FP16."""
        schema = defs.get_schema(node.op_type, self._opset)
        return {
            name: None
            for place, name in enumerate(node.input)
            if self._types.get(name) == TensorProto.FLOAT and _may_be_half(schema, _formal(schema.inputs, place))
        }

    def _make_half(self, node: onnx.NodeProto) -> None:
        taken = self._taken_half(node)
        for place, name in enumerate(node.input):
            if name in taken and _may_be_half_at(node, place, self._opset):
                node.input[place] = self._half(name, is_scale=node.op_type in QUANTIZERS and place == 1)
            elif name:
                self._float(name)
        for place, name in enumerate(node.output):
            if self._types.get(name) == TensorProto.FLOAT:
                node.output[place] = _twin(name)

    def _half(self, name: str, *, is_scale: bool) -> str:
        """Name of a float32 tensor's twin, made where it is not there yet; a scale stays above 0."""
        twin = _twin(name)
        if twin not in self._there:
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
                values = np.maximum(values, np.finfo(np.float16).smallest_subnormal) if is_scale else values
                self._graph.initializer.append(numpy_helper.from_array(values, twin))
            else:
                self._nodes.append(helper.make_node("Cast", [name], [twin], f"{name}::to_half", to=TensorProto.FLOAT16))
            self._there.add(twin)
        return twin

    def _float(self, name: str) -> None:
        """See to it that a tensor is there under its own name."""
        if name not in self._there and _twin(name) in self._there:
            cast = helper.make_node("Cast", [_twin(name)], [name], f"{name}::to_float", to=TensorProto.FLOAT)
            self._nodes.append(cast)
            self._there.add(name)

    def _written(self) -> onnx.ModelProto:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        read = {name for node in nodes for name in tensors_read(node)} | {value.name for value in self._graph.output}
        kept = [TensorProto.FromString(t.SerializeToString()) for t in self._graph.initializer if t.name in read]
        for field, values in ((self._graph.node, nodes), (self._graph.initializer, kept)):
            del field[:]
            field.extend(values)
        del self._graph.value_info[:]
        return self._model


def _behind_the_last_weights(graph: onnx.GraphProto) -> set[str]:
    """Outputs of the nodes between the last layers with weights and the graph's outputs."""
    makers = producers(graph)
    found: set[str] = set()
    waiting = [value.name for value in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type not in WEIGHTED and node.output[0] not in found:
            found.add(node.output[0])
            waiting.extend(tensors_read(node))
    return found


def _twin(name: str) -> str:
    return f"{name}::half"


def _formal(formals: Iterable[defs.OpSchema.FormalParameter], place: int) -> defs.OpSchema.FormalParameter:
    """What the operator's definition says of an input or output; the last one may stand for many."""
    known = list(formals)
    return known[min(place, len(known) - 1)]


def _may_be_half(schema: defs.OpSchema, formal: defs.OpSchema.FormalParameter) -> bool:
    """Whether a formal input or output may be FP16, or is none that could be float32."""
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    types = allowed.get(formal.type_str, {formal.type_str})
    return "tensor(float16)" in types or "tensor(float)" not in types


def _may_be_half_at(node: onnx.NodeProto, place: int, opset: int) -> bool:
    schema = defs.get_schema(node.op_type, opset)
    return _may_be_half(schema, _formal(schema.inputs, place))


def _survives(tensor: onnx.TensorProto) -> bool:
    """Whether a constant is as good in FP16: nothing overflows, and nothing as large as the largest is lost."""
    if tensor.data_type != TensorProto.FLOAT:
        return True
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float32)
    if not np.array_equal(np.isfinite(values), np.isfinite(rounded)):
        return False
    finite = np.isfinite(values)
    lost = np.abs(rounded[finite] - values[finite])
    return bool(lost.max(initial=0.0) <= _SURVIVES * np.abs(values[finite]).max(initial=0.0))
