"""Ways to quantize, and the candidates they make. A new range rule or scope is one more line in the table."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx

from compile.backends.onnxrt import build
from compile.decide import RowPrecision
from compile.graph import GraphView
from compile.placement import Placement, PlacementRules, Scope, place
from compile.quantize import quantize
from compile.ranges import RANGE_RULES, Histogram, Range, collect_histograms
from compile.recordings import no_progress
from compile.sensitivity import LayerLoss, layer_losses
from perception.engines.engine import Tensors
from perception.errors import ModelError

NOTHING_KEPT: Mapping[str, str] = MappingProxyType({})
PER_CHANNEL_OPSET = 13


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantize a whole network.

    Attributes:
        name: of the candidate it makes.
        range_rule: name in `compile.ranges.RANGE_RULES`.
        scope: how far 8 bits reach.
        words: for people.
    """

    name: str
    range_rule: str
    scope: Scope
    words: str


RECIPES: dict[str, tuple[Recipe, ...]] = {
    # The first is what everybody tries first; it is always measured, so that its price is known.
    "onnxrt": (
        Recipe("int8-minmax", "minmax", "weighted", "MinMax ranges, convolutions and matrix products"),
        Recipe("int8-percentile", "percentile_99.99", "weighted", "99.99 % ranges, convolutions and matrix products"),
        Recipe("int8-minmax-chains", "minmax", "chains", "MinMax ranges, whole chains of operators"),
        Recipe("int8-percentile-chains", "percentile_99.99", "chains", "99.99 % ranges, whole chains of operators"),
    ),
}


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
        integer_layers: weighted layers that compute in integers.
        weighted_layers: all weighted layers.
    """

    name: str
    model: onnx.ModelProto
    content: bytes
    recipe: Recipe | None
    kept_float: Mapping[str, str]
    unfit: Mapping[str, str]
    integer_layers: int
    weighted_layers: int

    @property
    def precision(self) -> RowPrecision:
        """`mixed` where some weighted layers stayed float."""
        if self.integer_layers == 0:
            return "fp32"
        return "int8" if self.integer_layers == self.weighted_layers else "mixed"

    @property
    def words(self) -> str:
        """How it was made, for people."""
        if self.recipe is None:
            return "as trained"
        kept = f", {len(self.kept_float)} layers kept float" if self.kept_float else ""
        return f"{self.recipe.words}{kept}"


@dataclass(slots=True)
class Quantizer:
    """Makes candidates of one network: the histograms are collected once and serve every recipe.

    Attributes:
        graph: the float network.
        rules: of the engine kind.
        feeds: starts the calibration frames anew.
        few_feeds: starts a few of them anew, for the audit of layers.
        keep_float: layers demanded to stay float → why.
        weight_bits: see `compile.quantize.weight_grid`.
        threads: CPU threads.
    """

    graph: GraphView
    rules: PlacementRules
    feeds: Callable[[], Iterable[Tensors]]
    few_feeds: Callable[[], Iterable[Tensors]]
    keep_float: Mapping[str, str]
    weight_bits: int
    threads: int
    _histograms: dict[str, Histogram] = field(default_factory=dict)

    def observe(self, recipes: Iterable[Recipe], advance: Callable[[], None] = no_progress) -> None:
        """Run the float network over the calibration frames and count what the recipes need.

        Args:
            recipes: those that candidates will be made of.
            advance: called after each frame.

        Raises:
            ModelError: a tensor is not finite on a real frame.
        """
        placements = [self.placement(recipe) for recipe in recipes]
        tensors = tuple(dict.fromkeys(name for placement in placements for name in placement.ranged_tensors))
        watched = collect_histograms(self.graph, tensors, self._watched_feeds(advance), threads=self.threads)
        self._histograms |= watched

    def placement(self, recipe: Recipe, kept: Mapping[str, str] = NOTHING_KEPT) -> Placement:
        """Where a recipe puts its pairs."""
        return place(self.graph, self.rules, scope=recipe.scope, keep_float={**kept, **self.keep_float})

    def float_candidate(self) -> Candidate:
        """The network as it was trained."""
        weighted = sum(node.op_type in self.rules.weighted_ops for node in self.graph.nodes)
        return Candidate(
            "fp32", self.graph.model, build(self.graph.model), None, NOTHING_KEPT, NOTHING_KEPT, 0, weighted
        )

    def candidate(self, recipe: Recipe, kept: Mapping[str, str] = NOTHING_KEPT) -> Candidate:
        """The network quantized by a recipe, but for the layers to be kept float."""
        placement = self.placement(recipe, kept)
        model = quantize(self.graph, placement, self._ranges(recipe, placement), weight_bits=self.weight_bits)
        weighted = [node.name for node in self.graph.nodes if node.op_type in self.rules.weighted_ops]
        kept_float = {**kept, **self.keep_float}
        return Candidate(
            name=f"{recipe.name}, {len(kept)} float" if kept else recipe.name,
            model=model,
            content=build(model),
            recipe=recipe,
            kept_float=kept_float,
            unfit={name: why for name, why in placement.float_weighted.items() if name not in kept_float},
            integer_layers=len(set(weighted) & set(placement.integer_nodes)),
            weighted_layers=len(weighted),
        )

    def losses(self, recipe: Recipe) -> list[LayerLoss]:
        """What each layer loses by a recipe, greatest first."""
        placement = self.placement(recipe)
        ranges = self._ranges(recipe, placement)
        return layer_losses(self.graph, placement, ranges, self.few_feeds(), threads=self.threads)

    def _watched_feeds(self, advance: Callable[[], None]) -> Callable[[], Iterable[Tensors]]:
        def feeds() -> Iterable[Tensors]:
            for feed in self.feeds():
                yield feed
                advance()

        return feeds

    def _ranges(self, recipe: Recipe, placement: Placement) -> dict[str, Range]:
        rule = RANGE_RULES[recipe.range_rule]
        return {name: rule(self._histograms[name]) for name in placement.ranged_tensors}


def usable_recipes(quantizer: Quantizer, engine_kind: str) -> tuple[Recipe, ...]:
    """The recipes of an engine kind that quantize anything in this network, each placement once."""
    opset = next(entry.version for entry in quantizer.graph.model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < PER_CHANNEL_OPSET:
        return ()
    found: dict[tuple[str, tuple[str, ...]], Recipe] = {}
    for recipe in RECIPES[engine_kind]:
        nodes = quantizer.placement(recipe).integer_nodes
        if nodes:
            found.setdefault((recipe.range_rule, nodes), recipe)
    return tuple(found.values())


def kept_by_pattern(graph: GraphView, patterns: Iterable[str]) -> dict[str, str]:
    """Layers that `--keep-float` names, by shell patterns over node names.

    Raises:
        ModelError: a pattern names no node.
    """
    names = [node.name for node in graph.nodes]
    kept: dict[str, str] = {}
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ModelError(
                f"--keep-float {pattern!r}: no node of that name, the first are {', '.join(names[:5])}; "
                "see them all with: tollgate inspect"
            )
        kept |= dict.fromkeys(matched, f"kept float by {pattern!r}")
    return kept
