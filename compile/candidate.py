"""One engine that might ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from compile.decide import RowPrecision
from compile.recipes import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One engine that might ship.

    Attributes:
        name: unique among the candidates of a compilation.
        model: its graph.
        content: its bytes.
        recipe: None for float.
        kept_float: layers that could be quantized and are not → why.
        unfit: weighted layers that cannot be quantized for this engine → why.
        integer_nodes: weighted layers that compute in integers.
        weighted_layers: all weighted layers.
        half: what is not in integers may compute in FP16.
    """

    name: str
    model: onnx.ModelProto
    content: bytes
    recipe: Recipe | None
    kept_float: Mapping[str, str]
    unfit: Mapping[str, str]
    integer_nodes: frozenset[str]
    weighted_layers: int
    half: bool = False

    @property
    def integer_layers(self) -> int:
        """How many weighted layers compute in integers."""
        return len(self.integer_nodes)

    @property
    def precision(self) -> RowPrecision:
        """`mixed` where some weighted layers stayed float."""
        if not self.integer_nodes:
            return "fp16" if self.half else "fp32"
        return "int8" if self.integer_layers == self.weighted_layers else "mixed"

    @property
    def words(self) -> str:
        """How it was made, for people."""
        if self.recipe is None:
            return "as trained, in half precision" if self.half else "as trained"
        kept = f", {len(self.kept_float)} layers kept float" if self.kept_float else ""
        return f"{self.recipe.words}{kept}"
