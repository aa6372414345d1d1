"""What each engine kind can fuse into integer kernels, as data: the rules by which `compile.placement` puts pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["weighted", "chains"]


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """What one engine kind can fuse.

    Attributes:
        engine_kind: name in `perception.engines.table.ENGINES`.
        signed: activations in int8, zero point 0; else in uint8 with any zero point.
        weighted_ops: operators with constant weights that have an integer kernel.
        pass_through_ops: operators that move values unchanged: input and output share one scale.
        chained_ops: further operators with an integer kernel where all their inputs are in 8 bits already.
        absorbs: activations whose clamping the output's QuantizeLinear does as well; they leave the graph.
        output_pairs: an operator is fused only if its output carries a pair too.
        int32_bias: the bias must be integer, in the scale of input times weight; else it stays float.
        min_channels: weighted operators with fewer channels in or out are not worth a pair.
        ends_in_float: the last weighted operators before a network output stay float.
        concat_shares_scale: all inputs of a Concat carry the scale of its output.
        skip_branch_ops: operators that fuse behind a convolution if their other input carries a pair.
        guarded_ops: float operators whose weights the engine would quantize by itself, per tensor, where they stand
            between two pairs; an input that is dequantized channel by channel stops it.
        equalizes: a multiplication and an addition in front of a pair cost next to nothing; see `compile.equalization`.
        half: what is not in 8 bits may compute in FP16.
    """

    engine_kind: str
    signed: bool
    weighted_ops: frozenset[str]
    pass_through_ops: frozenset[str] = frozenset()
    chained_ops: frozenset[str] = frozenset()
    absorbs: frozenset[str] = frozenset()
    output_pairs: bool = False
    int32_bias: bool = False
    min_channels: int = 0
    ends_in_float: bool = False
    concat_shares_scale: bool = False
    skip_branch_ops: frozenset[str] = frozenset()
    guarded_ops: frozenset[str] = frozenset()
    equalizes: bool = False
    half: bool = False

    def ops_of(self, scope: Scope) -> frozenset[str]:
        """The operators that follow into 8 bits where their inputs are there already."""
        return frozenset() if scope == "weighted" else self.pass_through_ops | self.chained_ops


RULES: dict[str, PlacementRules] = {
    # Source: onnxruntime, core/optimizer/qdq_transformer/selectors_actions: a node unit is fused when every input comes
    # from a DequantizeLinear and every output goes to a QuantizeLinear; Conv takes its bias as int32 only.
    # For guarded_ops see weight_bias_quantization.cc beside it.
    "onnxrt": PlacementRules(
        engine_kind="onnxrt",
        signed=False,
        weighted_ops=frozenset({"Conv", "MatMul", "Gemm"}),
        pass_through_ops=frozenset({"MaxPool", "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Flatten"}),
        chained_ops=frozenset({"Add", "Mul", "Sigmoid", "LeakyRelu", "Concat", "AveragePool", "GlobalAveragePool"}),
        absorbs=frozenset({"Relu", "Clip"}),
        output_pairs=True,
        int32_bias=True,
        guarded_ops=frozenset({"Conv", "ConvTranspose", "Gemm"}),
    ),
    # Source: NVIDIA, TensorRT documentation, "Explicit Quantization", Q/DQ placement recommendations; Model-Optimizer,
    # modelopt/onnx/quantization; the ends stay float because TensorRT 8.6 does not build otherwise (measured).
    # Model-Optimizer also skips convolutions of fewer than 16 channels, because they are seldom faster: here the time
    # measured on the built engine decides that, not the shape.
    "tensorrt": PlacementRules(
        engine_kind="tensorrt",
        signed=True,
        weighted_ops=frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"}),
        ends_in_float=True,
        concat_shares_scale=True,
        skip_branch_ops=frozenset({"Add"}),
        equalizes=True,
        half=True,
    ),
}
